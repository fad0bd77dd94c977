// nvr-streamer: recordings from running nvr-readerds over HTTP/1.1. One event-loop thread for all viewers; a
// thread a disk until its daemon has been there for the first time.
#include <fmt/format.h>
#include <sys/resource.h>

#include "tools/common/exit_code.h"
#include "tools/streamer/options.h"
#include "tools/streamer/server.h"

namespace nvr::streamer {
namespace {

// A descriptor a viewer; the soft limit is for programs that use select().
void raise_descriptor_limit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int run(int argc, char** argv) {
  auto options = parse_options(argc, argv);
  if (!options) return options.error();
  raise_descriptor_limit();
  boost::asio::io_context loop(1);
  Service service;
  service.settings = options->settings;
  Server server(loop, service);
  if (const auto listening = server.listen(); !listening) {
    fmt::print(stderr, "nvr-streamer: {}\n", listening.error().message);
    return tools::kExitUsage;
  }
  for (auto& [name, socket] : options->disks)
    service.disks.push_back(std::make_unique<Disk>(loop, name, socket, options->connection));
  server.run();
  return tools::kExitOk;
}

}  // namespace
}  // namespace nvr::streamer

int main(int argc, char** argv) {
  return nvr::streamer::run(argc, argv);
}
