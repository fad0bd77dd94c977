#include "daemon/options.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#include "daemon/build_facts.h"
#include "daemon/memory_budget.h"
#include "daemon/metrics_address.h"
#include "daemon/options_text.h"

namespace nvr::daemon {
namespace {

constexpr const char* kAbout =
    "Reads video recordings from one directory (one disk) on behalf of other processes.\n"
    "Clients link libnvr-client and get 64 KiB chunks through shared memory: whatever a stalled or\n"
    "failing disk does, it never reaches their threads. Run one daemon per disk.";

constexpr const char* kExamples =
    "Example:\n"
    "  nvr-readerd --dir /media/disk1/sample --socket /run/nvr-readerd/disk1.sock\n"
    "  nvr-cat --socket /run/nvr-readerd/disk1.sock 3/1842086 > recording\n"
    "\n"
    "Logs go to stderr; a line containing \"ready\" says that clients can connect. SIGTERM, SIGINT and "
    "SIGQUIT\n"
    "end the daemon within a second, whatever the disk does. Exit status: 0 after a signal, 2 for options,\n"
    "directories or sockets that cannot be used, 3 when another directory has come in the place of DIR.";

[[noreturn]] void reject(const std::string& why) {
  std::fprintf(stderr, "nvr-readerd: %s (see nvr-readerd --help)\n", why.c_str());
  std::exit(2);
}

// A size is parsed as unsigned, which a minus sign would make a very large one.
const CLI::Validator kNotNegative(
    [](const std::string& text) { return text.starts_with('-') ? "must not be negative" : std::string(); },
    "");

void define(CLI::App& app, Options& options) {
  app.footer(kExamples);
  app.set_version_flag("--version", build_facts());
  app.set_config("--config", "",
                 "File with more options, one a line (dir = \"/media/disk1/sample\"); the command line goes "
                 "before it")
      ->type_name("FILE");
  app.allow_config_extras(false);  // a misspelt key is an error
  app.add_flag("--check-config")
      ->description("Check the options, DIR and the socket's directory, and serve nothing")
      ->configurable(false);
  app.add_flag("--print-config")
      ->description("Print all options as --config reads them, and serve nothing")
      ->configurable(false);
  app.add_option("--dir", options.directory,
                 "Directory of sample files, named by 16 hex digits (00000003001c1ba6)")
      ->required()
      ->type_name("DIR");
  app.add_option("--socket", options.socket_path,
                 "Unix socket to listen on; its directory must exist. Not needed where systemd passes one")
      ->type_name("PATH");
  app.add_option(
         "--engine", options.engine,
         "How the disk is read: mmap, one request at a time; io_uring, many; auto, io_uring where it works")
      ->check(CLI::IsMember({"mmap", "io_uring", "auto"}))
      ->capture_default_str()
      ->type_name("ENGINE");
  app.add_option("--slow-op-ms", options.slow_operation_ms,
                 "Warn when one disk operation takes this long: while it is stuck, at doubling intervals, "
                 "and at its end")
      ->check(CLI::Range(1, 3'600'000))
      ->capture_default_str()
      ->type_name("MS");
  app.add_option(
         "--fail-fast", options.fail_fast_s,
         "When the disk has not answered for this long, refuse new opens at once (Unavailable) until it "
         "does; 0: let them wait")
      ->check(CLI::Range(0, 3'600))
      ->capture_default_str()
      ->type_name("SECONDS");
  app.add_option("--max-clients", options.max_clients, "Connections at a time; more get ResourceExhausted")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--max-clients-per-uid", options.max_clients_per_uid,
                 "Connections at a time of one user [default: --max-clients]")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  app.add_option("--connects-per-second", options.connects_per_second,
                 "Connects that one user (not root, nor the daemon's) may make in the long run; more get "
                 "ResourceExhausted; 0: any number")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--client-memory", options.client_memory_bytes,
                 "Most shared memory that one connection may ask for (64MiB, 1GiB, ...) [default: 64MiB]")
      ->transform(CLI::AsSizeValue(false))
      ->transform(kNotNegative)  // runs first
      ->type_name("SIZE");
  app.add_option("--total-memory", options.total_memory_bytes,
                 "Most shared memory of all connections together [default: a quarter of what the machine "
                 "or a cgroup lets the daemon have]")
      ->transform(CLI::AsSizeValue(false))
      ->transform(kNotNegative)  // runs first
      ->type_name("SIZE");
  app.add_option("--allow-uid", options.allowed_uids,
                 "User that may connect, besides the daemon's own and root; may be repeated")
      ->type_name("UID");
  app.add_option("--device-kind", options.device_kind, "What the disk is: auto asks sysfs")
      ->transform(CLI::Transformer(std::map<std::string, DeviceKind>{{"auto", DeviceKind::kAuto},
                                                                     {"rotational", DeviceKind::kRotational},
                                                                     {"solid", DeviceKind::kSolid}}))
      ->type_name("auto|rotational|solid");
  app.add_option(
         "--io-depth", options.io_depth,
         "Operations that the io_uring engine keeps on the disk at a time [default: 4 on a rotational "
         "disk, else 32]")
      ->check(CLI::Range(1, 64))
      ->type_name("N");
  app.add_option("--reserve", options.reserve_percent,
                 "Of a rotational disk's time, how much to leave to others, such as the recorder's writes")
      ->check(CLI::Range(0, 90))
      ->capture_default_str()
      ->type_name("PERCENT");
  app.add_option("--scheduling", options.fifo_visits)  // for nvr-bench: what the sweep is measured against
      ->transform(CLI::CheckedTransformer(std::map<std::string, bool>{{"visits", false}, {"fifo", true}}))
      ->group("");
  app.add_flag("--wait-for-dir", options.wait_for_directory,
               "If DIR is not there yet (disk not mounted), try again until it is, then serve it");
  app.add_option(
         "--expect-file", options.expected_file,
         "File (or directory) that DIR must have before it is served: tells a mounted disk from an empty "
         "mount point")
      ->type_name("NAME");
  app.add_flag("!--no-sandbox", options.sandbox, "Do not give up privileges after start-up");
  app.add_option("--metrics", options.metrics,
                 "Serve metrics for Prometheus at http://HOST:PORT/metrics (127.0.0.1:9464, [::1]:9464); to "
                 "anybody who can connect there")
      ->type_name("HOST:PORT");
  app.add_option("--log-level", options.log_level, "What to log")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str()
      ->type_name("LEVEL");
}

tl::unexpected<Error> wrong(std::string why) {
  return fail(Code::kInvalidArgument, std::move(why));
}

// What no single option can tell by itself.
Result<void> settle(Options& options) {
  if (options.directory.empty()) return wrong("--dir is empty");
  if (options.socket_path.empty() && getenv("LISTEN_FDS") == nullptr) return wrong("--socket is required");
  if (options.max_clients_per_uid == 0) options.max_clients_per_uid = options.max_clients;
  if (options.max_clients_per_uid > options.max_clients)
    return wrong("--max-clients-per-uid is more than --max-clients");
  if (!options.metrics.empty())
    if (const auto address = MetricsAddress::parse(options.metrics); !address)
      return wrong("--metrics " + address.error().message);
  std::error_code unknown;  // it stays relative where nobody knows to what
  if (const auto path = std::filesystem::absolute(options.directory, unknown); !unknown)
    options.directory = path;
  if (options.expected_file.starts_with('/')) return wrong("--expect-file is relative to DIR");
  if (options.client_memory_bytes == 0) return wrong("--client-memory 0 would admit nobody");
  if (options.total_memory_bytes == 0) options.total_memory_bytes = available_memory_bytes() / 4;
  return {};
}

// Fills in the options that `app` defines. InvalidArgument. Throws CLI::Success for --help and --version.
Result<void> parse(CLI::App& app, Options& options, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success&) {
    throw;
  } catch (const CLI::ConfigError& error) {
    return wrong(app["--config"]->as<std::string>() + ": " + error.what());
  } catch (const CLI::ParseError& error) {
    return wrong(error.what());
  }
  return settle(options);
}

void require_directory(const std::string& path, const char* what) {
  struct stat st = {};
  if (stat(path.c_str(), &st) != 0) reject(std::string(what) + " " + path + ": " + strerror(errno));
  if (!S_ISDIR(st.st_mode)) reject(std::string(what) + " " + path + " is no directory");
}

// For --check-config: what the daemon would find out by itself when it starts.
void check_surroundings(const Options& options) {
  if (!options.wait_for_directory) require_directory(options.directory, "--dir");
  if (options.socket_path.empty()) return;
  const auto slash = options.socket_path.rfind('/');
  require_directory(slash == std::string::npos ? "." : options.socket_path.substr(0, slash + 1),
                    "the directory of --socket");
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app(kAbout, "nvr-readerd");
  define(app, options);
  try {
    if (const auto parsed = parse(app, options, argc, argv); !parsed) reject(parsed.error().message);
  } catch (const CLI::Success& wanted) {
    std::exit(app.exit(wanted));
  }
  if (app.count("--check-config") > 0) check_surroundings(options);
  if (app.count("--print-config") > 0) std::fputs(as_config(options).c_str(), stdout);
  if (app.count("--check-config") + app.count("--print-config") > 0) std::exit(0);
  return options;
}

Result<Options> read_config(const std::string& path) {
  Options options;
  CLI::App app(kAbout, "nvr-readerd");
  define(app, options);
  const std::string config = "--config=" + path;
  const std::array arguments = {"nvr-readerd", config.c_str()};
  if (auto parsed = parse(app, options, arguments.size(), arguments.data()); !parsed)
    return tl::unexpected(parsed.error());
  return options;
}

}  // namespace nvr::daemon
