#include "tools/slowdisk/control.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace nvr::slowdisk {
namespace {

constexpr timeval kPatience = {.tv_sec = 2, .tv_usec = 0};  // with whoever connects and says nothing
constexpr timeval kAnswerDue = {.tv_sec = 30, .tv_usec = 0};
constexpr std::size_t kLongestLine_bytes = 1 << 20;  // a file in many pieces makes a long order
constexpr std::string_view kError = "error: ";

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return fail(Code::kInvalidArgument, "the control path is empty or too long for a socket: " + path);
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<shm::UniqueFd> connect_to(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return tl::unexpected(address.error());
  shm::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "cannot make a socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0)
    return fail_errno(errno, "no disk listens at " + path);
  return fd;
}

void set_patience(int fd, timeval patience) {
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

// What comes in, cut at `separator`, which is left out. Nothing at the end, or when it takes too long.
class Pieces {
 public:
  Pieces(int fd, std::string_view separator) : fd_(fd), separator_(separator) {}

  std::optional<std::string> next() {
    for (;;) {
      if (const auto end = buffer_.find(separator_); end != std::string::npos) {
        std::string piece = buffer_.substr(0, end);
        buffer_.erase(0, end + separator_.size());
        return piece;
      }
      std::array<char, 4096> bytes = {};
      const ssize_t count = recv(fd_, bytes.data(), bytes.size(), 0);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0 || buffer_.size() > kLongestLine_bytes) return std::nullopt;
      buffer_.append(bytes.data(), static_cast<std::size_t>(count));
    }
  }

 private:
  int fd_;
  std::string_view separator_;
  std::string buffer_;
};

}  // namespace

ControlServer::ControlServer(std::string path, Follow follow, shm::UniqueFd listener, shm::UniqueFd stop)
    : path_(std::move(path)),
      follow_(std::move(follow)),
      listener_(std::move(listener)),
      stop_(std::move(stop)),
      thread_([this] { run(); }) {}

Result<std::unique_ptr<ControlServer>> ControlServer::create(const std::string& path, Follow follow) {
  const auto address = address_of(path);
  if (!address) return tl::unexpected(address.error());
  struct stat st = {};
  const bool is_left_over = lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode) && !connect_to(path);
  if (is_left_over) unlink(path.c_str());
  shm::UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  shm::UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  if (!listener || !stop) return fail_errno(errno, "cannot make a socket");
  fchmod(listener.get(), 0600);  // of the path that bind() makes
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0 ||
      listen(listener.get(), 16) != 0)
    return fail_errno(errno, "cannot listen at " + path);
  return std::unique_ptr<ControlServer>(
      new ControlServer(path, std::move(follow), std::move(listener), std::move(stop)));
}

ControlServer::~ControlServer() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
  unlink(path_.c_str());
}

void ControlServer::run() {
  std::array<pollfd, 2> entries = {pollfd{.fd = listener_.get(), .events = POLLIN, .revents = 0},
                                   pollfd{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  for (;;) {
    if (poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) return;
    if (entries[1].revents != 0) return;
    const shm::UniqueFd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (connection) serve(connection.get());
  }
}

void ControlServer::serve(int connection) {
  set_patience(connection, kPatience);
  Pieces lines(connection, "\n");
  while (const auto line = lines.next()) {
    const auto said = follow_(*line);
    const std::string answer = said ? "ok\n" + *said : std::string(kError) + said.error().message + '\n';
    if (!send_all(connection, answer + '\n')) return;
  }
}

Result<std::string> send_order(const std::string& path, const std::string& line) {
  const auto connection = connect_to(path);
  if (!connection) return tl::unexpected(connection.error());
  set_patience(connection->get(), kAnswerDue);
  // What was sent is half the matter: the answer says whether it arrived.
  static_cast<void>(send_all(connection->get(), line + '\n'));
  const auto answer = Pieces(connection->get(), "\n\n").next();
  if (!answer) return fail(Code::kUnavailable, "the disk at " + path + " does not answer");
  if (answer->starts_with(kError)) return fail(Code::kInvalidArgument, answer->substr(kError.size()));
  const auto first_line = answer->find('\n');
  return first_line == std::string::npos ? std::string() : answer->substr(first_line + 1) + '\n';
}

}  // namespace nvr::slowdisk
