#include "tests/streamer/streamer_process.h"

#include <unistd.h>

#include <algorithm>

namespace nvr::test {
namespace {

// Empty: there is none.
std::string find_program(const std::string& name) {
  for (const char* const directory : {"/usr/bin/", "/usr/sbin/"}) {
    if (access((directory + name).c_str(), X_OK) == 0) return directory + name;
  }
  return "";
}

Command command_of(const std::vector<std::pair<std::string, std::string>>& disks,
                   const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {NVR_TEST_STREAMER, "--listen", "127.0.0.1:0"};
  for (const auto& [name, socket] : disks) argv.insert(argv.end(), {"--disk", name + "=" + socket});
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return {.argv = std::move(argv)};
}

std::size_t count(std::string_view text, std::string_view wanted) {
  std::size_t count = 0;
  for (auto at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, at + 1)) ++count;
  return count;
}

}  // namespace

std::optional<std::string> missing_program(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (find_program(name).empty()) return name + " is not installed";
  }
  return std::nullopt;
}

std::string path_of_program(const std::string& name) {
  const std::string path = find_program(name);
  return !path.empty() ? path : throw TestFailure(name + " is not installed");
}

StreamerProcess::StreamerProcess(const std::vector<std::pair<std::string, std::string>>& disks,
                                 const std::vector<std::string>& arguments)
    : Server("the streamer", command_of(disks, arguments)) {
  const auto expected = static_cast<std::size_t>(
      std::ranges::count_if(disks, [](const auto& disk) { return access(disk.second.c_str(), F_OK) == 0; }));
  const std::string ready = "ready on 127.0.0.1:";
  require_ready([&] {
    const std::string text = log();
    return text.find(ready) != std::string::npos && count(text, ": connected to") >= expected;
  });
  const std::string text = log();
  port_ = static_cast<std::uint16_t>(std::stoul(text.substr(text.find(ready) + ready.size())));
}

// The first SIGTERM waits for the clients, the second, which is the base class's, does not.
StreamerProcess::~StreamerProcess() {
  if (pid() > 0 && is_running()) signal(SIGTERM);
}

std::string StreamerProcess::url(const std::string& target) const {
  return "http://127.0.0.1:" + std::to_string(port_) + target;
}

double StreamerProcess::metric(const std::string& name) const {
  return samples_of(test::ask(*this, "/metrics").body)[name];
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
