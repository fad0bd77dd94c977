// nvr-slowdisk: a disk with a model and with faults, for trying out what reads from disks.
//
// Threads: main takes FUSE's requests in; the head serves them in the model's order and time; the control
// thread takes orders. All of them share the Head, which has the one lock.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include <cstdio>

#include "shm/clock.h"
#include "shm/unique_fd.h"
#include "tools/common/exit_code.h"
#include "tools/slowdisk/control.h"
#include "tools/slowdisk/directory_fs.h"
#include "tools/slowdisk/extents.h"
#include "tools/slowdisk/head.h"
#include "tools/slowdisk/image_fs.h"
#include "tools/slowdisk/journal.h"
#include "tools/slowdisk/options.h"

namespace nvr::slowdisk {
namespace {

constexpr std::uint64_t kDirectoryCapacity_bytes = std::uint64_t{1} << 40;
constexpr std::uint64_t kBlock_bytes = 4096;

int report(const Error& error) {
  fmt::print(stderr, "nvr-slowdisk: {}\n", error.message);
  return tools::kExitOther;
}

// Termination becomes readable, in this and in all threads to come.
Result<shm::UniqueFd> catch_signals() {
  sigset_t signals = {};
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  shm::UniqueFd fd(pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0 ? signalfd(-1, &signals, SFD_CLOEXEC)
                                                                      : -1);
  if (!fd) return fail(Code::kInternal, "cannot catch signals");
  return fd;
}

// What `Fs` offers, mounted and served until the end.
template <class Fs>
Result<void> serve(Fs& fs, const Options& options, bool read_only) {
  const auto signals = catch_signals();
  if (!signals) return tl::unexpected(signals.error());
  const auto journal = Journal::create(options.log, Time(shm::now_ns()));
  if (!journal) return tl::unexpected(journal.error());
  // Mounted last but one, unmounted after whatever still hangs has been answered.
  const auto operations = Fs::operations();
  auto session = FuseSession::create(
      operations, &fs, {.mountpoint = options.mountpoint, .source = "nvr-slowdisk", .read_only = read_only});
  if (!session) return tl::unexpected(session.error());
  Head head(options.disk, **journal);
  fs.attach(head);
  std::unique_ptr<ControlServer> control;
  if (!options.control.empty()) {
    auto created = ControlServer::create(options.control, [&head](const std::string& line) {
      return parse_order(line).and_then([&head](const Order& order) { return head.follow(order); });
    });
    if (!created) return tl::unexpected(created.error());
    control = std::move(*created);
  }
  // Writing back what waits for this very disk must not wait for memory that writing back would free.
  prctl(PR_SET_IO_FLUSHER, 1);
  go_first();
  fmt::print("ready\n");
  std::fflush(stdout);
  session->run(signals->get());
  return {};
}

Result<void> serve_directory(Options options) {
  if (options.capacity_bytes == 0) options.capacity_bytes = kDirectoryCapacity_bytes;
  options.disk.mechanics.capacity_bytes = options.capacity_bytes;
  options.disk.knows_files = true;
  options.disk.can_be_short = options.direct_io;
  auto fs = DirectoryFs::open({.path = options.source,
                               .capacity_bytes = options.capacity_bytes,
                               .seed = options.disk.mechanics.seed,
                               .direct_io = options.direct_io,
                               .forget_at_open = options.forget_at_open});
  if (!fs) return tl::unexpected(fs.error());
  return serve(*fs, options, true);
}

Result<void> serve_image(Options options) {
  auto fs = ImageFs::open(options.source);
  if (!fs) return tl::unexpected(fs.error());
  if (options.capacity_bytes == 0) options.capacity_bytes = fs->size_bytes();
  options.disk.mechanics.capacity_bytes = options.capacity_bytes;
  options.disk.short_granule_bytes = kBlock_bytes;
  return serve(*fs, options, false);
}

Result<void> give_order(const Options& options) {
  auto order = parse_order(options.order);
  if (!order) return fail(Code::kInvalidArgument, order.error().message + " (see nvr-slowdisk order --help)");
  if (!options.mounted_at.empty()) order = in_image(*order, options.mounted_at);
  if (!order) return tl::unexpected(order.error());
  const auto said = send_order(options.control, to_string(*order));
  if (!said) return tl::unexpected(said.error());
  fmt::print("{}", *said);
  return {};
}

int run(int argc, char** argv) {
  auto options = parse_options(argc, argv);
  if (!options) return options.error();
  if (options->command == Options::Command::kOrder) {
    const auto done = give_order(*options);
    return done ? tools::kExitOk : report(done.error());
  }
  struct stat st = {};
  const bool is_directory = stat(options->source.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
  const auto done = is_directory ? serve_directory(std::move(*options)) : serve_image(std::move(*options));
  return done ? tools::kExitOk : report(done.error());
}

}  // namespace
}  // namespace nvr::slowdisk

int main(int argc, char** argv) {
  return nvr::slowdisk::run(argc, argv);
}
