// Scenario "disk": many streams on one spinning disk, modelled by nvr-slowdisk: a real block device with ext4
// whose head takes the time that a head takes. Each load has a disk of its own, full of its recordings, so
// that they lie all over it; nothing of it is cached when a system begins.
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "shm/unique_fd.h"
#include "tools/bench/scenario.h"
#include "tools/bench/slow_disk.h"
#include "tools/bench/window.h"

namespace nvr::bench {
namespace {

constexpr std::uint64_t kMiB = 1U << 20;
constexpr double kModelBytesPerS = 160e6;
constexpr std::size_t kViewers = 40;
constexpr std::size_t kRunning = 16;  // beside first chunks
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Contestant {
  std::string name;
  MakeSystem make;
  bool fifo = false;  // the daemon's visits are first in, first out
};

// What is asked of the disk.
struct DiskLoad {
  std::string part;
  FileShape shape = {};
  double seconds = 0;
  std::vector<Contestant> contestants = {};
  std::vector<WindowStream> streams = {};
  std::vector<FileRange> opens = {};
};

// A disk that is full of recordings.
struct Laboratory {
  SlowDisk disk;
  FileSet files;
  double mb_per_s = 0;  // of one sequential reader
};

// What one reader of large blocks gets of it, past the page cache.
Result<double> sequential_mb_per_s(const FileSet& files) {
  constexpr std::size_t kBlock = 8 * kMiB;
  constexpr std::uint64_t kMost = 512 * kMiB;
  const shm::UniqueFd fd(open(files.path(0).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open " + files.path(0));
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, kBlock) != 0) return fail_errno(ENOMEM, "no memory");
  const std::unique_ptr<void, decltype(&free)> buffer(memory, &free);
  // The first block finds the place.
  BenchClock::time_point started;
  std::uint64_t bytes = 0;
  for (std::uint64_t at = 0; at < std::min(files.file_bytes(), kMost);) {
    const ssize_t got = pread(fd.get(), memory, kBlock, static_cast<off_t>(at));
    if (got <= 0) return fail_errno(got < 0 ? errno : EIO, "cannot read " + files.path(0));
    if (at == 0)
      started = BenchClock::now();
    else
      bytes += static_cast<std::uint64_t>(got);
    at += static_cast<std::uint64_t>(got);
  }
  const std::chrono::duration<double> took = BenchClock::now() - started;
  if (bytes == 0) return fail(Code::kInvalidArgument, "recordings are too short to measure the disk with");
  return static_cast<double>(bytes) / 1e6 / took.count();
}

Result<Laboratory> put_up(const DiskOptions& options, const std::filesystem::path& scratch, FileShape shape) {
  const std::uint64_t data_mib = shape.count * shape.bytes / kMiB;
  const std::string size = fmt::format("{}M", data_mib + data_mib / 25 + 256);
  auto disk = SlowDisk::up(
      options.script, scratch,
      {"--size", size, "--seek", "8.5ms", "--rotation", "4.2ms", "--bandwidth", "160MB", "--seed", "1"});
  if (!disk) return tl::unexpected(disk.error());
  if (auto set = disk->set_read_ahead(options.read_ahead_kib); !set) return tl::unexpected(set.error());
  const std::filesystem::path recordings = disk->mounted_at() / "recordings";
  std::error_code error;
  if (!std::filesystem::create_directory(recordings, error))
    return fail_errno(error.value(), "cannot make " + recordings.string());
  auto files = FileSet::create(recordings, shape);
  if (!files) return tl::unexpected(files.error());
  if (auto cold = disk->forget(); !cold) return tl::unexpected(cold.error());
  const auto mb_per_s = sequential_mb_per_s(*files);
  if (!mb_per_s) return tl::unexpected(mb_per_s.error());
  return Laboratory{std::move(*disk), std::move(*files), *mb_per_s};
}

// A system of its own, which begins with nothing cached.
Result<void> measure(const Contestant& contestant, const Laboratory& laboratory, const DiskLoad& load,
                     const BenchOptions& options, const std::filesystem::path& scratch, Samples& samples) {
  if (auto cold = laboratory.disk.forget(); !cold) return cold;
  SystemSetup setup = {.files = laboratory.files,
                       .scratch = scratch,
                       .daemon = options.daemon,
                       .device_kind = "rotational",
                       .streams = load.streams.size() + 1};
  if (contestant.fifo) setup.daemon_options = {"--scheduling", "fifo"};
  const auto system = contestant.make(setup);
  if (!system) {
    const Result<void> failed = tl::unexpected(system.error());
    return contestant.make == make_nvr_io_uring_system ? unless_refused(failed) : failed;
  }
  Opener opener = {.ranges = load.opens};
  const auto result = run_window(**system, laboratory.files, load.streams, load.seconds, 0,
                                 load.opens.empty() ? nullptr : &opener);
  if (!result) return tl::unexpected(result.error());
  const bool has_viewers = load.part == "viewers";
  const double mb_per_s = result->bytes() / 1e6 / result->seconds;
  const auto opened_in_ms = [&](double part) {
    return opener.ns.count() > 0 ? static_cast<double>(opener.ns.percentile(part)) / 1e6 : kNone;
  };
  samples.gb_per_s.push_back(mb_per_s / 1e3);
  samples.add("seconds", result->seconds);
  samples.add("read_ahead_kb", options.disk.read_ahead_kib);
  samples.add("disk_mb_per_s", laboratory.mb_per_s);
  samples.add("mb_per_s", mb_per_s);
  samples.add("share", mb_per_s / laboratory.mb_per_s);
  samples.add("jain", has_viewers ? kNone : fairness_of(result->stream_bytes));
  samples.add("underruns", has_viewers ? static_cast<double>(result->underruns) : kNone);
  samples.add("stalled_s", has_viewers ? result->stalled_s : kNone);
  samples.add("first_chunk_p50_ms", opened_in_ms(0.5));
  samples.add("first_chunk_p99_ms", opened_in_ms(0.99));
  return {};
}

Block block_of(DiskLoad load, const BenchOptions& options) {
  const auto& chosen = options.disk.systems;
  std::erase_if(load.contestants, [&](const Contestant& contestant) {
    const std::string name = contestant.name.substr(0, contestant.name.find("_fifo"));
    return !chosen.empty() && std::ranges::find(chosen, name) == chosen.end();
  });
  const double write_s = static_cast<double>(load.shape.count * load.shape.bytes) / kModelBytesPerS;
  return {.round_s = write_s + (load.seconds + 2) * static_cast<double>(load.contestants.size()),
          .set_up = [load, &options](const SystemSetup& setup) -> Result<std::vector<Turn>> {
            auto put_up_now = put_up(options.disk, setup.scratch, load.shape);
            if (!put_up_now) return tl::unexpected(put_up_now.error());
            const auto laboratory = std::make_shared<Laboratory>(std::move(*put_up_now));
            std::vector<Turn> turns;
            for (const Contestant& contestant : load.contestants)
              turns.push_back({.part = load.part,
                               .system = contestant.name,
                               .streams = load.streams.size(),
                               .measure = [=, &options, scratch = setup.scratch](Samples& samples) {
                                 return measure(contestant, *laboratory, load, options, scratch, samples);
                               }});
            return turns;
          }};
}

// As much as the disk can deliver in the time, shared by the streams: the fewer, the longer the recordings.
// The more streams, the longer the time, so that each has its turn a dozen times.
DiskLoad throughput(std::size_t streams, const DiskOptions& options) {
  constexpr std::uint64_t kLeastBytes = 2048 * kMiB;
  constexpr double kStreamsOfOneTime = 16;
  const double seconds = options.seconds * std::max(1.0, static_cast<double>(streams) / kStreamsOfOneTime);
  const auto bytes = static_cast<std::uint64_t>(seconds * kModelBytesPerS * 1.1);
  DiskLoad load = {
      .part = "throughput",
      .shape = {.count = streams, .bytes = (std::max(bytes, kLeastBytes) / streams + kMiB - 1) / kMiB * kMiB},
      .seconds = seconds,
      .contestants = {{"seed", make_seed_system},
                      {"pread", make_pread_system},
                      {"nvr_mmap", make_nvr_mmap_system},
                      {"nvr_io_uring", make_nvr_io_uring_system}}};
  for (std::size_t i = 0; i < streams; ++i)
    load.streams.push_back({.range = {.file = i, .begin = 0, .end = load.shape.bytes},
                            .first_file = i,  // again, for one that gets more than its share
                            .last_file = i});
  return load;
}

DiskLoad viewers(const DiskOptions& options) {
  constexpr std::size_t kExported = 8;
  DiskLoad load = {.part = "viewers",
                   .shape = {.count = kViewers + kExported, .bytes = 128 * kMiB},
                   .seconds = options.viewer_seconds,
                   .contestants = {{"seed", make_seed_system},
                                   {"nvr_mmap", make_nvr_mmap_system},
                                   {"nvr_io_uring", make_nvr_io_uring_system}}};
  for (std::size_t i = 0; i < kViewers; ++i)
    load.streams.push_back({.range = {.file = i, .begin = 0, .end = load.shape.bytes},
                            .first_file = i,
                            .last_file = i,
                            .bytes_per_s = 4e6 / 8});
  load.streams.push_back(
      {.range = {.file = kViewers, .begin = 0, .end = load.shape.bytes, .priority = Priority::kExport},
       .first_file = kViewers,
       .last_file = kViewers + kExported - 1});
  return load;
}

// Sixteen streams go around in some recordings, and between these on the disk lie others, which nobody has
// read: each is opened once, at any place.
DiskLoad first_chunk(const DiskOptions& options) {
  constexpr std::size_t kRead = 5;  // of a stream
  constexpr std::size_t kOpened = 8;
  DiskLoad load = {.part = "first-chunk",
                   .shape = {.count = kRunning * (kRead + kOpened), .bytes = 24 * kMiB},
                   .seconds = options.first_chunk_seconds,
                   .contestants = {{"nvr_mmap", make_nvr_mmap_system},
                                   {"nvr_io_uring", make_nvr_io_uring_system},
                                   {"nvr_mmap_fifo", make_nvr_mmap_system, true},
                                   {"nvr_io_uring_fifo", make_nvr_io_uring_system, true}}};
  std::mt19937_64 random(1);
  for (std::size_t first = 0; first < load.shape.count; first += kRead + kOpened) {
    load.streams.push_back({.range = {.file = first, .begin = 0, .end = load.shape.bytes},
                            .first_file = first,
                            .last_file = first + kRead - 1});
    for (std::size_t file = first + kRead; file < first + kRead + kOpened; ++file)
      load.opens.push_back({.file = file,
                            .begin = random() % (load.shape.bytes / kChunkBytes / 2) * kChunkBytes,
                            .end = load.shape.bytes});
  }
  std::ranges::shuffle(load.opens, random);
  return load;
}

double least_share(std::size_t streams) {
  switch (streams) {
    case 1:
      return 0.95;
    case 4:
      return 0.60;
    case 16:
      return 0.65;
    default:
      return 0.70;
  }
}

void require(Referee& referee, const std::vector<std::size_t>& stream_counts) {
  for (const std::size_t streams : stream_counts) {
    const auto what = [&](const char* figure) { return describe_streams(streams) + ", " + figure; };
    const auto ours = [&](std::string_view figure) { return referee.ours(streams, figure, "throughput"); };
    referee.at_least(least_share(streams), what("MB/s / the disk's"), ours("share"));
    if (streams == 16)
      referee.at_least(6, what("MB/s / seed"),
                       ours("mb_per_s") / referee.value("seed", streams, "mb_per_s", "throughput"));
    if (streams > 1) referee.at_least(0.98, what("fairness (Jain)"), ours("jain"));
  }
  referee.at_most(0, "viewers and export, underruns", referee.ours(kViewers + 1, "underruns", "viewers"));
  referee.at_least(0.6, "viewers and export, MB/s / the disk's",
                   referee.ours(kViewers + 1, "share", "viewers"));
  const auto of_fifo = [&](std::string_view figure) {
    return referee.ours(kRunning, figure, "first-chunk") /
           referee.value(referee.our_name() + "_fifo", kRunning, figure, "first-chunk");
  };
  const double throughput = of_fifo("mb_per_s");
  referee.at_least(0.95, "first chunk, MB/s / fifo", throughput);
  const double p99 = of_fifo("first_chunk_p99_ms");
  // Without an open there is nothing to be proud of.
  const bool has_failed = std::isnan(p99) && !std::isnan(throughput);
  referee.at_most(0.25, "first chunk, p99 / fifo",
                  has_failed ? std::numeric_limits<double>::infinity() : p99);
}

}  // namespace

Plan plan_disk(const BenchOptions& options) {
  BenchOptions once = options;  // a measurement takes long enough
  once.rounds = 1;
  Plan plan = {
      .heading = fmt::format(
          "disk: a modelled disk (8.5 ms seek, 4.2 ms rotation, 160 MB/s), ext4, nothing cached, {}\n"
          "      share: of what one sequential reader gets; a viewer takes 4 Mbit/s and holds 2 s;\n"
          "      the kernel reads ahead {} KiB",
          describe_run(once), options.disk.read_ahead_kib),
      .files = {.count = 0},
      .require = [counts = options.disk.streams](Referee& referee) { require(referee, counts); },
      .watches_others = false};  // the disk is a process of its own
  const auto is_wanted = [&](std::string_view part) {
    return std::ranges::find(options.disk.parts, part) != options.disk.parts.end();
  };
  if (is_wanted("throughput"))
    for (const std::size_t streams : options.disk.streams)
      plan.blocks.push_back(block_of(throughput(streams, options.disk), options));
  if (is_wanted("viewers")) plan.blocks.push_back(block_of(viewers(options.disk), options));
  if (is_wanted("first-chunk")) plan.blocks.push_back(block_of(first_chunk(options.disk), options));
  return plan;
}

}  // namespace nvr::bench
