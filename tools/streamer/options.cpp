#include "tools/streamer/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>

#include "tools/common/command_line.h"
#include "tools/streamer/target.h"

namespace nvr::streamer {
namespace {

constexpr double kLongestTimeoutS = 1e8;  // three years; keeps the sum with now() in range

tl::unexpected<int> refuse(const std::string& message) {
  fmt::print(stderr, "nvr-streamer: {}\n", message);
  return tl::unexpected(tools::kExitUsage);
}

// "127.0.0.1:8080" or "[::1]:8080". False when it is not that.
bool parse_endpoint(std::string_view text, Settings& settings) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), settings.port);
  settings.host = host;
  return !host.empty() && !port.empty() && error == std::errc() && end == port.data() + port.size();
}

class Timeouts {
 public:
  Timeouts(CLI::App& app) : app_(app) {}

  void add(const char* name, std::chrono::milliseconds& target, const std::string& help) {
    const double normal_s = std::chrono::duration<double>(target).count();
    app_.add_option_function<double>(
            name,
            [&target](const double& seconds) {
              target = std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>(seconds));
            },
            fmt::format("{} (default: {})", help, normal_s))
        ->check(CLI::Range(0.001, kLongestTimeoutS))
        ->option_text("SECONDS");
  }

 private:
  CLI::App& app_;
};

}  // namespace

tl::expected<Options, int> parse_options(int argc, char** argv) {
  Options options;
  options.connection = {.streams = 96, .slots_per_stream = 8, .timeout = std::chrono::seconds(2)};
  Settings& settings = options.settings;
  std::vector<std::string> disks;
  std::string endpoint = "127.0.0.1:8080";

  CLI::App app("Serves recordings from nvr-readerd over HTTP/1.1: GET /ID or /DISK/ID, with ranges.",
               "nvr-streamer");
  app.footer(
      "ID is 16 hex digits, as the file is named, or STREAM/RECORDING in decimal. /ID looks on all disks.\n"
      "/healthz and /healthz/DISK tell how the disks are, /metrics what Prometheus wants to know.\n"
      "Exit codes: 0 after a signal, 1 other, 2 options or an address that cannot be used.");
  app.add_option("--disk", disks, "A disk's name and its daemon's socket; once for each disk")
      ->required()
      ->take_all()
      ->allow_extra_args(false)
      ->option_text("NAME=SOCKET");
  app.add_option("--listen", endpoint, "Where to listen; port 0 takes a free one (default: 127.0.0.1:8080)")
      ->option_text("ADDRESS:PORT");
  app.add_option("--max-connections", settings.max_connections,
                 "Connections at a time; more are answered 503 (default: 1024)")
      ->check(CLI::Range(1, 1'000'000))
      ->option_text("COUNT");
  app.add_option(
         "--streams", options.connection.streams,
         "Recordings that can be read from one disk at a time; more requests wait, first come, first\n"
         "served, for up to --open-timeout (default: 96)")
      ->check(CLI::Range(1, 256))
      ->option_text("COUNT");
  app.add_option(
         "--slots", options.connection.slots_per_stream,
         "Chunks of 64 KiB read ahead for each: 2, 4, 8, ... 64 (default: 8). STREAMS x SLOTS x 64 KiB is\n"
         "memory of the daemon, within its --client-memory")
      ->check(CLI::Range(2, 64))
      ->option_text("COUNT");
  app.add_flag("--replicas", settings.etags_for_replicas,
               "ETags of size and mtime only, the same for copies of a recording on several hosts");
  Timeouts timeouts(app);
  timeouts.add("--open-timeout", settings.open_timeout,
               "503 when nothing of a recording has arrived for so long");
  timeouts.add("--stall-timeout", settings.stall_timeout,
               "Close a connection whose disk goes silent in mid-body for so long");
  timeouts.add("--write-timeout", settings.write_timeout, "Close one whose viewer takes nothing for so long");
  timeouts.add("--idle-timeout", settings.idle_timeout, "Close one that asks for nothing for so long");
  timeouts.add("--header-timeout", settings.header_timeout, "Close one whose request takes so long to come");
  timeouts.add("--settle-time", settings.settle_time,
               "Let caches keep a recording once nobody has written to it for so long");
  timeouts.add("--drain-timeout", settings.drain_timeout, "After SIGTERM, let responses go on for so long");
  if (const auto code = tools::parse_command_line(app, argc, argv)) return tl::unexpected(*code);

  if (!parse_endpoint(endpoint, settings))
    return refuse("--listen wants ADDRESS:PORT, e.g. 127.0.0.1:8080 or [::1]:8080");
  if (!std::has_single_bit(options.connection.slots_per_stream))
    return refuse("--slots wants a power of two, 2 to 64");
  for (const std::string& disk : disks) {
    const auto equals = disk.find('=');
    const std::string name = disk.substr(0, equals);
    if (equals == std::string::npos || equals + 1 == disk.size() || !is_disk_name(name))
      return refuse(
          "--disk wants NAME=SOCKET, NAME a letter and then letters, digits, '.', '-' and '_', not: " + disk);
    if (std::ranges::any_of(options.disks, [&](const auto& other) { return other.first == name; }))
      return refuse("--disk: there are two disks called " + name);
    options.disks.emplace_back(name, disk.substr(equals + 1));
  }
  // Streams outlast a daemon's restart for as long as a viewer would wait for a disk.
  options.connection.resume = std::max(settings.open_timeout, settings.stall_timeout);
  return options;
}

}  // namespace nvr::streamer
