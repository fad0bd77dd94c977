#include "daemon/options.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>

#include "daemon/build_facts.h"
#include "daemon/config_file.h"
#include "daemon/memory_budget.h"
#include "daemon/metrics_address.h"
#include "daemon/options_text.h"
#include "shm/did_you_mean.h"
#include "shm/protocol.h"

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

constexpr std::size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;
constexpr shm::Geometry kSmallest{.streams = 1, .slots = shm::kMinSlots};
constexpr std::uint64_t kSmallestConnection = kSmallest.read_bytes() + kSmallest.write_bytes();

// All that is wrong, a sentence each.
using Mistakes = std::vector<std::string>;

void reject_if_any(const Mistakes& mistakes) {
  if (mistakes.empty()) return;
  for (const std::string& mistake : mistakes)
    std::fprintf(stderr, "nvr-readerd: %s%s\n", mistake.c_str(),
                 &mistake == &mistakes.back() ? " (see nvr-readerd --help)" : "");
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
  app.add_flag("--check-config")
      ->description("Check the options, DIR and the socket's directory, and serve nothing")
      ->configurable(false);
  app.add_flag("--print-config")
      ->description("Print all options as --config reads them, and serve nothing")
      ->configurable(false);
  app.add_option("--dir", options.directory,
                 "Directory of sample files, named by 16 hex digits (00000003001c1ba6). Required")
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
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, DeviceKind>{{"auto", DeviceKind::kAuto},
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

// The configuration file for CLI11: every setting is judged before the first is used, so that the user hears
// of all mistakes at once, each with its place.
class ConfigFile : public CLI::Config {
 public:
  // `app` has parsed the command line when the file is read, and outlives this.
  explicit ConfigFile(const CLI::App& app) : app_(&app) { define(judge_, options_); }

  // The settings that are right.
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    const std::string text{std::istreambuf_iterator<char>(input), {}};
    auto [settings, mistakes] = parse_config(text);
    std::vector<CLI::ConfigItem> right;
    for (ConfigSetting& setting : settings) {
      if (auto why = judge(setting); !why.empty()) {
        mistakes.push_back({setting.line, std::move(why)});
      } else {
        if ((*app_)["--" + setting.key]->empty()) lines_.emplace(setting.key, setting.line);
        // CLI11 takes the first item of a name only.
        const auto same = std::ranges::find(right, setting.key, &CLI::ConfigItem::name);
        if (same != right.end())
          same->inputs.insert(same->inputs.end(), setting.values.begin(), setting.values.end());
        else
          right.push_back({.parents = {}, .name = setting.key, .inputs = std::move(setting.values)});
      }
    }
    std::ranges::stable_sort(mistakes, {}, &ConfigMistake::line);
    for (const ConfigMistake& mistake : mistakes) mistakes_.push_back(place(mistake.line) + mistake.what);
    return right;
  }
  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return {}; }

  [[nodiscard]] const Mistakes& mistakes() const { return mistakes_; }
  // "disk1.conf:3: " for an option whose value comes from the file and not from the command line, else
  // nothing.
  [[nodiscard]] std::string place_of(const std::string& key) const {
    const auto line = lines_.find(key);
    return line == lines_.end() ? std::string() : place(line->second);
  }

 private:
  [[nodiscard]] std::string place(std::size_t line) const {
    return (*app_)["--config"]->as<std::string>() + ":" + std::to_string(line) + ": ";
  }
  // Returns what is wrong with it, or nothing.
  [[nodiscard]] std::string judge(const ConfigSetting& setting) const {
    CLI::Option* const option = judge_.get_option_no_throw("--" + setting.key);
    if (option == nullptr || !option->get_configurable())
      return "unknown key '" + setting.key + "'" + shm::did_you_mean(setting.key, keys());
    const auto earlier = seen_.find(setting.key);
    if (earlier != seen_.end() && option->get_expected_max() == 1)
      return "'" + setting.key + "' again, after line " + std::to_string(earlier->second);
    seen_.emplace(setting.key, setting.line);
    try {
      if (option->get_expected_min() == 0) {
        if (setting.values.size() > 1) return "'" + setting.key + "' is true or false, not a list";
        option->add_result(option->get_flag_value(setting.key, setting.values.front()));
      } else {
        option->add_result(setting.values);
      }
      option->run_callback();
    } catch (const CLI::Error& error) {
      return error.what();
    }
    return {};
  }
  [[nodiscard]] std::vector<std::string> keys() const {
    std::vector<std::string> keys;
    for (const CLI::Option* const option : judge_.get_options())
      if (option->get_configurable() && !option->get_lnames().empty())
        keys.push_back(option->get_lnames().front());
    return keys;
  }

  const CLI::App* app_;
  Options options_;  // of the judge
  // CLI11 reads files with a const object.
  mutable CLI::App judge_;
  mutable std::map<std::string, std::size_t> seen_, lines_;
  mutable Mistakes mistakes_;
};

// What no single option can tell by itself.
Mistakes settle(Options& options, const ConfigFile& file) {
  Mistakes mistakes = file.mistakes();
  const bool may_be_misspelt = !mistakes.empty();  // an option that seems to be missing
  const auto object = [&](const std::string& option, const std::string& why) {
    mistakes.push_back(file.place_of(option) + "--" + option + " " + why);
  };
  if (options.directory.empty() && !may_be_misspelt) object("dir", "is required");
  if (options.socket_path.empty() && getenv("LISTEN_FDS") == nullptr && !may_be_misspelt)
    object("socket", "is required");
  if (options.socket_path.size() > kMaxSocketPath)
    object("socket", "is too long: a socket's path has up to " + std::to_string(kMaxSocketPath) + " bytes");
  if (options.max_clients_per_uid == 0) options.max_clients_per_uid = options.max_clients;
  if (options.max_clients_per_uid > options.max_clients)
    object("max-clients-per-uid", "is more than --max-clients");
  if (!options.metrics.empty())
    if (const auto address = MetricsAddress::parse(options.metrics); !address)
      object("metrics", address.error().message);
  std::error_code unknown;  // it stays relative where nobody knows to what
  if (const auto path = std::filesystem::absolute(options.directory, unknown); !unknown)
    options.directory = path;
  if (options.expected_file.starts_with('/')) object("expect-file", "is relative to DIR");
  if (options.total_memory_bytes == 0) options.total_memory_bytes = available_memory_bytes() / 4;
  const auto admits_nobody = [&](const std::string& option, std::uint64_t bytes) {
    if (bytes >= kSmallestConnection) return;
    object(option, std::to_string(bytes) + " (bytes) would admit nobody: the smallest connection needs " +
                       std::to_string(kSmallestConnection) + "; a size may have a unit (64MiB)");
  };
  admits_nobody("client-memory", options.client_memory_bytes);
  admits_nobody("total-memory", options.total_memory_bytes);
  return mistakes;
}

// Fills in the options that `app` defines. Throws CLI::Success for --help and --version.
Mistakes parse(CLI::App& app, Options& options, int argc, const char* const* argv) {
  const auto file = std::make_shared<ConfigFile>(app);
  app.config_formatter(file);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success&) {
    throw;
  } catch (const CLI::ParseError& error) {
    Mistakes mistakes = file->mistakes();
    const auto unexpected = shm::unexpected_arguments(app);
    mistakes.insert(mistakes.end(), unexpected.begin(), unexpected.end());
    if (unexpected.empty()) mistakes.emplace_back(error.what());
    return mistakes;
  }
  return settle(options, *file);
}

void require_directory(const std::string& path, const char* what, Mistakes& mistakes) {
  struct stat st = {};
  if (stat(path.c_str(), &st) != 0)
    mistakes.push_back(std::string(what) + " " + path + ": " + strerror(errno));
  else if (!S_ISDIR(st.st_mode))
    mistakes.push_back(std::string(what) + " " + path + " is no directory");
}

// For --check-config: what the daemon would find out by itself when it starts.
void check_surroundings(const Options& options, Mistakes& mistakes) {
  if (!options.wait_for_directory && !options.directory.empty())
    require_directory(options.directory, "--dir", mistakes);
  if (options.socket_path.empty()) return;
  const auto slash = options.socket_path.rfind('/');
  require_directory(slash == std::string::npos ? "." : options.socket_path.substr(0, slash + 1),
                    "the directory of --socket", mistakes);
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app(kAbout, "nvr-readerd");
  define(app, options);
  try {
    Mistakes mistakes = parse(app, options, argc, argv);
    if (app.count("--check-config") > 0) check_surroundings(options, mistakes);
    reject_if_any(mistakes);
  } catch (const CLI::Success& wanted) {
    std::exit(app.exit(wanted));
  }
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
  std::string all;
  for (const std::string& mistake : parse(app, options, arguments.size(), arguments.data()))
    all += (all.empty() ? "" : "\n") + mistake;
  if (!all.empty()) return fail(Code::kInvalidArgument, std::move(all));
  return options;
}

}  // namespace nvr::daemon
