// Requests to nvr-streamer, as its connections take them: Boost.Beast's parser, the header's bound, the
// target and the ranges. The disk is one that no daemon serves.
//
// What must hold: a response is well formed, none follows a request that could not be understood, and how the
// bytes are cut into reads makes no difference.
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "shm/unique_fd.h"
#include "tests/fuzz/target.h"
#include "tests/support/environment.h"
#include "tools/streamer/viewer.h"

namespace nvr::test {
namespace {

using namespace streamer;

struct Streamer {
  Streamer() {
    service.settings.max_connections = 8;
    service.disks.push_back(std::make_unique<Disk>(loop, "disk", "/nowhere/socket", ConnectOptions{}));
  }
  boost::asio::io_context loop;
  Service service;
};

Streamer streamer_here;  // from the start, so that no test case leaks its descriptors

// One connection from its beginning to its end.
class Connection {
 public:
  explicit Connection(Streamer& streamer) : streamer_(streamer) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
      throw TestFailure("cannot create sockets");
    viewer_end_.reset(ends[0]);
    boost::asio::ip::tcp::socket socket(streamer.loop);
    socket.assign(boost::asio::ip::tcp::v4(), ends[1]);
    viewer_ = std::make_shared<Viewer>(std::move(socket), streamer.service, false,
                                       [this](const std::shared_ptr<Viewer>&) { has_ended_ = true; });
    viewer_->start();
  }
  ~Connection() {
    shutdown(viewer_end_.get(), SHUT_WR);
    turn();
    viewer_->end();
    viewer_.reset();
    turn();
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void send(std::string_view bytes) {
    static_cast<void>(::send(viewer_end_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
    turn();
  }
  [[nodiscard]] const std::string& said() const { return said_; }

 private:
  void turn() {
    streamer_.loop.restart();
    while (streamer_.loop.poll() > 0) receive();
    receive();
  }
  void receive() {
    std::array<char, 16'384> buffer;
    for (ssize_t length = 0; (length = recv(viewer_end_.get(), buffer.data(), buffer.size(), 0)) > 0;)
      said_.append(buffer.data(), static_cast<std::size_t>(length));
  }

  Streamer& streamer_;
  shm::UniqueFd viewer_end_;
  std::shared_ptr<Viewer> viewer_;
  bool has_ended_ = false;
  std::string said_;
};

struct Response {
  unsigned status = 0;
  bool was_understood = true;  // the request
};

// No text of the streamer's has a line that begins as a response does.
std::vector<Response> responses_in(const std::string& said, Judgement& judgement) {
  constexpr std::string_view kBeginning = "HTTP/1.";
  std::vector<Response> responses;
  for (std::size_t at = 0; at < said.size();) {
    const std::string_view rest = std::string_view(said).substr(at);
    judgement.require(rest.starts_with(kBeginning), "something that is no response");
    const auto next = said.find("HTTP/1.", at + 1);
    const std::string_view one = rest.substr(0, next == std::string::npos ? rest.size() : next - at);
    at += one.size();
    if (one.size() < 12 || one.find("\r\n\r\n") == std::string_view::npos) {
      judgement.object("a response without a header");
      return responses;
    }
    const auto status = static_cast<unsigned>(std::stoul(std::string(one.substr(9, 3))));
    responses.push_back({.status = status,
                         .was_understood = status != 431 &&
                                           one.find("no HTTP request") == std::string_view::npos &&
                                           one.find("with a body") == std::string_view::npos});
  }
  return responses;
}

std::vector<Response> responses_to(std::string_view text, std::size_t piece, Judgement& judgement) {
  Connection connection(streamer_here);
  while (!text.empty()) {
    connection.send(text.substr(0, piece));
    text.remove_prefix(std::min(piece, text.size()));
  }
  return responses_in(connection.said(), judgement);
}

void check(const std::vector<Response>& responses, Judgement& judgement) {
  for (std::size_t i = 0; i < responses.size(); ++i) {
    const auto [status, was_understood] = responses[i];
    constexpr std::array kKnown = {200u, 400u, 404u, 405u, 431u, 503u};
    judgement.require(std::ranges::find(kKnown, status) != kKnown.end(), "a status that cannot be");
    judgement.require(was_understood || i + 1 == responses.size(),
                      "a response after a request that made no sense");
    judgement.reach(std::to_string(status) + (was_understood ? "" : " and the end"));
  }
  if (responses.size() > 1) judgement.reach("several on one connection");
}

void run(std::span<const std::byte> input, Judgement& judgement) {
  Program program(input);
  const std::size_t piece = 1 + program.take<std::uint8_t>();
  // With an end to the last request: until then the parser may, or may not, have looked at its lines.
  const std::string text = std::string(text_of(program.take_bytes(input.size()))) + "\r\n\r\n";
  const auto whole = responses_to(text, text.size(), judgement);
  check(whole, judgement);
  const auto cut = responses_to(text, piece, judgement);
  // Which of several mistakes is told first may depend on it.
  const auto told = [](const Response& response) { return response.was_understood ? response.status : 0; };
  judgement.require(std::ranges::equal(whole, cut, {}, told, told),
                    "how the request is cut into reads makes a difference");
}

}  // namespace

const FuzzTarget http_target = {
    "http",
    run,
    {"200", "400", "400 and the end", "404", "405", "431 and the end", "503", "several on one connection"}};

}  // namespace nvr::test
