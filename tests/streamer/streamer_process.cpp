#include "tests/streamer/streamer_process.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

namespace nvr::test {
namespace {

constexpr int kWaitMs = static_cast<int>(std::chrono::milliseconds(kLongEnough).count());

}  // namespace

// ---- Programs
// --------------------------------------------------------------------------------------------------------

std::optional<std::string> missing_program(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const bool is_there =
        std::ranges::any_of(std::vector<std::string>{"/usr/bin/", "/usr/sbin/"},
                            [&](const auto& d) { return access((d + name).c_str(), X_OK) == 0; });
    if (!is_there) return name + " is not installed";
  }
  return std::nullopt;
}

std::string path_of_program(const std::string& name) {
  for (const char* const directory : {"/usr/bin/", "/usr/sbin/"}) {
    if (access((directory + name).c_str(), X_OK) == 0) return directory + name;
  }
  throw TestFailure(name + " is not installed");
}

// ---- The streamer
// ----------------------------------------------------------------------------------------------------

StreamerProcess::StreamerProcess(const std::vector<std::pair<std::string, std::string>>& disks,
                                 std::vector<std::string> arguments) {
  std::vector<std::string> argv = {NVR_TEST_STREAMER, "--listen", "127.0.0.1:0"};
  std::size_t expected = 0;
  for (const auto& [name, socket] : disks) {
    argv.push_back("--disk");
    argv.push_back(name + "=" + socket);
    if (access(socket.c_str(), F_OK) == 0) ++expected;
  }
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  process_.emplace(spawn({.argv = argv, .uid = {}, .max_descriptors = {}}, log_.fd(), log_.fd()));
  const std::string ready = "ready on 127.0.0.1:";
  const bool settled = wait_until([&] {
    const std::string text = log();
    std::size_t connected = 0;
    for (auto at = text.find(": connected to"); at != std::string::npos;
         at = text.find(": connected to", at + 1))
      ++connected;
    return (text.find(ready) != std::string::npos && connected >= expected) || !is_running();
  });
  if (!settled || !is_running()) throw TestFailure("the streamer does not become ready; it said:\n" + log());
  const std::string text = log();
  port_ = static_cast<std::uint16_t>(std::stoul(text.substr(text.find(ready) + ready.size())));
}

StreamerProcess::~StreamerProcess() {
  if (!process_ || process_->pid() <= 0) return;
  if (process_->is_running()) {
    process_->signal(SIGTERM);
    process_->signal(SIGTERM);  // what a test has left open is not waited for
    const auto exit = process_->wait();
    if (!exit || *exit != Exit{.code = 0, .signal = {}})
      report_late_failure("a streamer ended with " + (exit ? to_string(*exit) : "nothing") + "; it said:\n" +
                          log());
  }
  const std::string text = log();
  if (text.find("Sanitizer") != std::string::npos || text.find("runtime error:") != std::string::npos)
    report_late_failure("a streamer's sanitizer speaks:\n" + text);
}

std::string StreamerProcess::url(const std::string& target) const {
  return "http://127.0.0.1:" + std::to_string(port_) + target;
}

void StreamerProcess::kill() {
  process_->signal(SIGKILL);
  if (!process_->wait()) throw TestFailure("the streamer survives SIGKILL");
}

double StreamerProcess::metric(const std::string& name) const {
  std::istringstream lines(test::ask(*this, "/metrics").body);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + " ")) return std::stod(line.substr(name.size()));
  }
  return 0;
}

// ---- The wire
// --------------------------------------------------------------------------------------------------------

std::string Reply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Wire::Wire(std::uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    throw TestFailure("cannot connect to the streamer");
}

bool Wire::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t length = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (length <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(length));
  }
  return true;
}

bool Wire::ask(const std::string& target, const std::vector<std::string>& headers,
               const std::string& method) {
  std::string request = method + " " + target + " HTTP/1.1\r\nHost: here\r\n";
  for (const std::string& header : headers) request += header + "\r\n";
  return send(request + "\r\n");
}

// More bytes. False at the end.
bool Wire::fill() {
  pollfd entry = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
  if (poll(&entry, 1, kWaitMs) != 1) throw TestFailure("nothing comes from the streamer");
  char bytes[65536];
  const ssize_t length = recv(fd_.get(), bytes, sizeof(bytes), 0);
  if (length <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(length));
  return true;
}

Reply Wire::receive_head() {
  Reply reply;
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!fill()) return reply;
  }
  std::istringstream lines(buffer_.substr(0, end + 2));
  buffer_.erase(0, end + 4);
  std::string line;
  std::getline(lines, line);
  if (!line.starts_with("HTTP/1.")) throw TestFailure("no HTTP: " + line);
  reply.status = static_cast<unsigned>(std::stoul(line.substr(9)));
  while (std::getline(lines, line)) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos) throw TestFailure("no header: " + line);
    std::string name = line.substr(0, colon);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    reply.headers[name] = line.substr(colon + 2, line.size() - colon - 3);
  }
  return reply;
}

Reply Wire::receive(bool is_head) {
  Reply reply = receive_head();
  if (reply.status == 0) return reply;
  const std::string length = reply.header("content-length");
  const std::size_t promised = is_head || length.empty() ? 0 : std::stoull(length);
  reply.body = take(promised);
  reply.is_complete = reply.body.size() == promised;
  return reply;
}

std::string Wire::take(std::size_t most) {
  while (buffer_.size() < most && fill()) {
  }
  std::string taken = buffer_.substr(0, most);
  buffer_.erase(0, most);
  return taken;
}

bool Wire::has_news() const {
  pollfd entry = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
  return !buffer_.empty() || poll(&entry, 1, 0) == 1;
}

bool Wire::is_closed_by_peer() {
  try {
    while (fill()) buffer_.clear();
  } catch (const TestFailure&) {
    return false;
  }
  return true;
}

Reply ask(const StreamerProcess& streamer, const std::string& target, const std::vector<std::string>& headers,
          const std::string& method) {
  Wire wire(streamer.port());
  wire.ask(target, headers, method);
  return wire.receive(method == "HEAD");
}

std::string problem_with(const Reply& reply, unsigned status, const RecordingFile& file, std::uint64_t begin,
                         std::uint64_t end) {
  if (reply.status != status) return std::to_string(reply.status) + ": " + reply.body.substr(0, 200);
  if (!reply.is_complete || reply.body.size() != end - begin)
    return std::to_string(reply.body.size()) + " bytes";
  if (reply.header("content-length") != std::to_string(end - begin)) return "wrong Content-Length";
  return file.difference(begin, std::as_bytes(std::span(reply.body)));
}

}  // namespace nvr::test
