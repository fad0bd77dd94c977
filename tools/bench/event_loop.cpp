// Scenario "event-loop": 256 streams of one client, read by one thread under epoll through native_handle(),
// against a thread for each stream that blocks in next(). Recordings in the page cache; every cache line
// read.
#include <errno.h>
#include <fmt/format.h>
#include <sys/epoll.h>

#include <optional>
#include <utility>

#include "shm/unique_fd.h"
#include "tools/bench/nvr_system.h"
#include "tools/bench/scenario.h"
#include "tools/bench/window.h"

namespace nvr::bench {
namespace {

constexpr std::size_t kStreams = 256;
constexpr std::uint32_t kSlots = 8;

// One stream, which goes from recording to recording until it is closed.
class Reading {
 public:
  Reading(NvrSystem& system, const FileSet& files, std::size_t file)
      : system_(system), files_(files), range_(files.whole(file)) {}

  [[nodiscard]] Result<void> open() {
    auto stream = system_.client().open(
        {.recording = files_.id(range_.file), .begin = range_.begin, .end = range_.end});
    if (!stream) return tl::unexpected(stream.error());
    stream_.emplace(std::move(*stream));
    return {};
  }

  // Takes what is there.
  [[nodiscard]] Result<void> take_all() {
    for (;;) {
      const auto chunk = stream_->try_next();
      if (chunk && *chunk) {
        tally_.take((*chunk)->bytes());
      } else if (chunk) {
        if (chunk->error().code == Code::kDeadlineExceeded) return {};
        return tl::unexpected(chunk->error());
      } else {
        if (auto closed = close(); !closed) return closed;
        range_ = files_.whole(range_.file + 1);
        if (auto opened = open(); !opened) return opened;
      }
    }
  }

  [[nodiscard]] Result<void> close() {
    stream_.reset();
    bytes_ += tally_.bytes;
    return check_begin_of(system_, files_, range_, std::exchange(tally_, {}));
  }

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  NvrSystem& system_;
  const FileSet& files_;
  FileRange range_;
  std::optional<Stream> stream_ = {};
  Tally tally_ = {};  // of the recording that is open
  std::uint64_t bytes_ = 0;
};

// Waits for news, takes all there is of each stream, and so on. How many bytes.
Result<std::uint64_t> read_in_one_thread(NvrSystem& system, const FileSet& files,
                                         std::chrono::nanoseconds window) {
  std::vector<Reading> readings;
  for (std::size_t i = 0; i < kStreams; ++i) readings.emplace_back(system, files, i);
  const auto for_all = [&](Result<void> (Reading::*what)()) {
    Result<void> done;
    for (Reading& reading : readings)
      if (done) done = (reading.*what)();
    return done;
  };
  const auto end = BenchClock::now() + window;
  const shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLIN;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, system.client().native_handle(), &event) != 0)
    return fail_errno(errno, "cannot watch a client");
  auto done = for_all(&Reading::open);
  while (done && BenchClock::now() < end) {
    done = system.client().dispatch();
    if (done) done = for_all(&Reading::take_all);
    epoll_wait(epoll.get(), &event, 1, 100);
  }
  if (done) done = for_all(&Reading::close);
  if (!done) return tl::unexpected(done.error());
  std::uint64_t bytes = 0;
  for (const Reading& reading : readings) bytes += reading.bytes();
  return bytes;
}

Result<std::uint64_t> read_in_threads(NvrSystem& system, const FileSet& files,
                                      std::chrono::nanoseconds window) {
  std::vector<WindowStream> streams;
  for (std::size_t i = 0; i < kStreams; ++i)
    streams.push_back({.range = files.whole(i), .last_file = files.count() - 1, .stays_cached = true});
  const auto result = run_window(system, files, streams, std::chrono::duration<double>(window).count());
  if (!result) return tl::unexpected(result.error());
  return static_cast<std::uint64_t>(result->bytes());
}

struct Way {
  const char* part;
  Result<std::uint64_t> (*read)(NvrSystem&, const FileSet&, std::chrono::nanoseconds);
};
constexpr std::array kWays = {Way{"one epoll thread", read_in_one_thread},
                              Way{"a thread for each stream", read_in_threads}};

Result<std::vector<Turn>> turns_of(SystemSetup setup, std::chrono::nanoseconds window) {
  setup.streams = kStreams;
  setup.slots = kSlots;
  std::vector<std::shared_ptr<NvrSystem>> systems;
  const auto started = for_each_engine([&](const std::string& engine) -> Result<void> {
    auto system = NvrSystem::start(setup, engine);
    if (!system) return tl::unexpected(system.error());
    systems.push_back(std::move(*system));
    return {};
  });
  if (!started) return tl::unexpected(started.error());
  std::vector<Turn> turns;
  for (const Way& way : kWays)
    for (const auto& system : systems)
      turns.push_back({.part = way.part,
                       .system = std::string(system->name()),
                       .streams = kStreams,
                       .measure = [=, &files = setup.files](Samples& samples) -> Result<void> {
                         const auto meter = Meter::start(*system);
                         if (!meter) return tl::unexpected(meter.error());
                         const auto bytes = way.read(*system, files, window);
                         if (!bytes) return tl::unexpected(bytes.error());
                         const auto flow = meter->stop(*bytes, *bytes / kChunkBytes);
                         if (!flow) return tl::unexpected(flow.error());
                         samples.add(*flow);
                         return {};
                       }});
  return turns;
}

}  // namespace

Plan plan_event_loop(const BenchOptions& options) {
  return {.heading = fmt::format("event-loop: {} streams of one client, windows of {} chunks, {}\n"
                                 "            recordings in the page cache, every cache line read",
                                 kStreams, kSlots, describe_run(options)),
          .files = options.files,
          .blocks = {{.warm_up_rounds = 1,
                      .rounds = options.rounds,
                      .round_s = 4 * std::chrono::duration<double>(2 * options.run_time).count(),
                      .set_up = [window = 2 * options.run_time](const SystemSetup& setup) {
                        return turns_of(setup, window);
                      }}}};
}

}  // namespace nvr::bench
