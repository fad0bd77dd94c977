// Scenario "disk": many streams on one spinning disk, modelled by nvr-slowdisk: a real block device with ext4
// whose head takes the time that a head takes. Each load has a disk of its own, full of its recordings, so
// that they lie all over it; nothing of it is cached when a system begins.
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>

#include "shm/unique_fd.h"
#include "tools/bench/compare.h"
#include "tools/bench/disk_load.h"
#include "tools/bench/scratch.h"
#include "tools/bench/slow_disk.h"

namespace nvr::bench {
namespace {

struct Contestant {
  const char* name;
  MakeSystem make;
  bool fifo = false;
};
constexpr std::array<Contestant, 6> kContestants = {{{"seed", make_seed_system},
                                                     {"pread", make_pread_system},
                                                     {"nvr_mmap", make_nvr_mmap_system},
                                                     {"nvr_io_uring", make_nvr_io_uring_system},
                                                     {"nvr_mmap_fifo", make_nvr_mmap_system, true},
                                                     {"nvr_io_uring_fifo", make_nvr_io_uring_system, true}}};
constexpr std::uint64_t kMiB = 1U << 20;
constexpr double kModelBytesPerS = 160e6;

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
  std::chrono::steady_clock::time_point started;
  std::uint64_t bytes = 0;
  for (std::uint64_t at = 0; at < std::min(files.file_bytes(), kMost);) {
    const ssize_t got = pread(fd.get(), memory, kBlock, static_cast<off_t>(at));
    if (got <= 0) return fail_errno(got < 0 ? errno : EIO, "cannot read " + files.path(0));
    if (at == 0)
      started = std::chrono::steady_clock::now();
    else
      bytes += static_cast<std::uint64_t>(got);
    at += static_cast<std::uint64_t>(got);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  if (bytes == 0) return fail(Code::kInvalidArgument, "recordings are too short to measure the disk with");
  return static_cast<double>(bytes) / 1e6 / took.count();
}

Result<Laboratory> put_up(const BenchOptions& options, const std::filesystem::path& scratch,
                          FileShape shape) {
  const std::uint64_t data_mib = shape.count * shape.bytes / kMiB;
  const std::string size = fmt::format("{}M", data_mib + data_mib / 25 + 256);
  fmt::print(stderr, "a disk of {} with {} recordings of {} MiB\n", size, shape.count, shape.bytes / kMiB);
  auto disk = SlowDisk::up(
      options.disk.script, scratch,
      {"--size", size, "--seek", "8.5ms", "--rotation", "4.2ms", "--bandwidth", "160MB", "--seed", "1"});
  if (!disk) return tl::unexpected(disk.error());
  if (auto set = disk->set_read_ahead(options.disk.read_ahead_kib); !set) return tl::unexpected(set.error());
  const std::filesystem::path recordings = disk->mounted_at() / "recordings";
  std::error_code error;
  if (!std::filesystem::create_directory(recordings, error))
    return fail_errno(error.value(), "cannot make " + recordings.string());
  auto files = FileSet::create(recordings, shape);
  if (!files) return tl::unexpected(files.error());
  if (auto cold = disk->forget(); !cold) return tl::unexpected(cold.error());
  const auto mb_per_s = sequential_mb_per_s(*files);
  if (!mb_per_s) return tl::unexpected(mb_per_s.error());
  fmt::print(stderr, "  one sequential reader: {:.1f} MB/s\n", *mb_per_s);
  return Laboratory{std::move(*disk), std::move(*files), *mb_per_s};
}

struct DiskLoad {
  std::string part;
  std::vector<DiskStream> streams = {};
  double seconds = 0;
  bool viewers = false;
  std::vector<FileRange> opens = {};
};

// Nothing: this system is left out, and a line has said why.
Result<std::optional<DiskRow>> run_one(const Contestant& contestant, const Laboratory& laboratory,
                                       const DiskLoad& load, const BenchOptions& options,
                                       const std::filesystem::path& scratch) {
  if (interrupted()) return fail(Code::kCancelled, "interrupted");
  if (auto cold = laboratory.disk.forget(); !cold) return tl::unexpected(cold.error());
  SystemSetup setup = {.files = laboratory.files,
                       .scratch = scratch,
                       .daemon = options.daemon,
                       .device_kind = "rotational",
                       .streams = load.streams.size() + 1};
  if (contestant.fifo) setup.daemon_options = {"--scheduling", "fifo"};
  auto system = contestant.make(setup);
  if (!system) {
    if (!contestant.fifo && contestant.make != make_nvr_io_uring_system)
      return tl::unexpected(system.error());
    fmt::print("{} is left out: {}\n", contestant.name, system.error().message);
    return std::nullopt;
  }
  Opener opener = {.stream = load.streams.size(), .ranges = load.opens};
  const auto result = run_disk_load(**system, laboratory.files, load.streams, load.seconds,
                                    load.opens.empty() ? nullptr : &opener);
  if (!result) return tl::unexpected(result.error());
  DiskRow row = {.part = load.part,
                 .system = contestant.name,
                 .streams = load.streams.size(),
                 .read_ahead_kib = options.disk.read_ahead_kib,
                 .disk_mb_per_s = laboratory.mb_per_s,
                 .mb_per_s = result->mb_per_s(),
                 .seconds = result->seconds,
                 .first_chunk_ms = opener.ms};
  if (load.viewers) {
    row.underruns = result->underruns();
    row.stalled_s = result->stalled_s();
  } else {
    row.jain = result->jain();
  }
  fmt::print(stderr, "  {:<12} {:>2} streams  {:<18} {:6.1f} MB/s  share {:.2f}  in {:.1f} s\n", row.part,
             row.streams, row.system, row.mb_per_s, row.share(), row.seconds);
  return row;
}

bool takes_part(const Contestant& contestant, const DiskLoad& load, const BenchOptions& options) {
  if (contestant.fifo && load.opens.empty()) return false;
  const bool is_nvr = contestant.make == make_nvr_mmap_system || contestant.make == make_nvr_io_uring_system;
  if (!load.opens.empty() && !is_nvr) return false;
  if (load.viewers && !is_nvr && contestant.make != make_seed_system) return false;
  const auto& chosen = options.disk.systems;
  const auto is_chosen = [&](std::string_view name) {
    return std::ranges::find(chosen, name) != chosen.end();
  };
  std::string_view name = contestant.name;
  if (contestant.fifo) name.remove_suffix(std::string_view("_fifo").size());
  return chosen.empty() || is_chosen(name);
}

Result<void> run_load(const DiskLoad& load, FileShape shape, const BenchOptions& options,
                      const std::filesystem::path& scratch, std::vector<DiskRow>& rows) {
  if (interrupted()) return fail(Code::kCancelled, "interrupted");
  const auto laboratory = put_up(options, scratch, shape);
  if (!laboratory) return tl::unexpected(laboratory.error());
  for (const Contestant& contestant : kContestants) {
    if (!takes_part(contestant, load, options)) continue;
    auto row = run_one(contestant, *laboratory, load, options, scratch);
    if (!row) return tl::unexpected(row.error());
    if (*row) rows.push_back(std::move(**row));
  }
  return {};
}

DiskStream whole(std::size_t file, FileShape shape) {
  return {.range = {.file = file, .begin = 0, .end = shape.bytes}, .circle = {}};
}

// As much as the disk can deliver in the time, shared by the streams: the fewer, the longer the recordings.
// The more streams, the longer the time, so that each has its turn a dozen times.
Result<void> run_throughput(std::size_t streams, const BenchOptions& options,
                            const std::filesystem::path& scratch, std::vector<DiskRow>& rows) {
  constexpr std::uint64_t kLeastBytes = 2048 * kMiB;
  constexpr double kStreamsOfOneTime = 16;
  const double seconds =
      options.disk.seconds * std::max(1.0, static_cast<double>(streams) / kStreamsOfOneTime);
  const auto bytes = static_cast<std::uint64_t>(seconds * kModelBytesPerS * 1.1);
  const FileShape shape = {.count = streams,
                           .bytes = (std::max(bytes, kLeastBytes) / streams + kMiB - 1) / kMiB * kMiB};
  DiskLoad load = {.part = "throughput", .seconds = seconds};
  for (std::size_t i = 0; i < streams; ++i) {
    load.streams.push_back(whole(i, shape));
    load.streams.back().circle = {.first = i, .last = i};  // for one that gets more than its share
  }
  return run_load(load, shape, options, scratch, rows);
}

Result<void> run_viewers(const BenchOptions& options, const std::filesystem::path& scratch,
                         std::vector<DiskRow>& rows) {
  constexpr std::size_t kViewers = 40;
  constexpr std::size_t kExported = 8;
  constexpr double kBytesPerS = 4e6 / 8;
  const FileShape shape = {.count = kViewers + kExported, .bytes = 128 * kMiB};
  DiskLoad load = {.part = "viewers", .seconds = options.disk.viewer_seconds, .viewers = true};
  for (std::size_t i = 0; i < kViewers; ++i) {
    load.streams.push_back(whole(i, shape));
    load.streams.back().bytes_per_s = kBytesPerS;
    load.streams.back().circle = {.first = i, .last = i};
  }
  load.streams.push_back(whole(kViewers, shape));
  load.streams.back().range.priority = Priority::kExport;
  load.streams.back().circle = {.first = kViewers, .last = kViewers + kExported - 1};
  return run_load(load, shape, options, scratch, rows);
}

// Sixteen streams go around in some recordings, and between these on the disk lie others, which nobody has
// read: each is opened once, at any place.
Result<void> run_first_chunk(const BenchOptions& options, const std::filesystem::path& scratch,
                             std::vector<DiskRow>& rows) {
  constexpr std::size_t kRunning = 16;
  constexpr std::size_t kRead = 5;  // of a stream
  constexpr std::size_t kOpened = 8;
  const FileShape shape = {.count = kRunning * (kRead + kOpened), .bytes = 24 * kMiB};
  DiskLoad load = {.part = "first-chunk", .seconds = options.disk.first_chunk_seconds};
  std::mt19937_64 random(1);
  for (std::size_t first = 0; first < shape.count; first += kRead + kOpened) {
    load.streams.push_back(whole(first, shape));
    load.streams.back().circle = {.first = first, .last = first + kRead - 1};
    for (std::size_t file = first + kRead; file < first + kRead + kOpened; ++file)
      load.opens.push_back({.file = file,
                            .begin = random() % (shape.bytes / kChunkBytes / 2) * kChunkBytes,
                            .end = shape.bytes});
  }
  std::ranges::shuffle(load.opens, random);
  return run_load(load, shape, options, scratch, rows);
}

}  // namespace

Result<Findings> run_disk(const BenchOptions& options) {
  const auto scratch = ScratchDirectory::create(options.directory);
  if (!scratch) return tl::unexpected(scratch.error());
  fmt::print(
      "disk: a modelled disk (8.5 ms seek, 4.2 ms rotation, 160 MB/s), ext4, nothing cached, {}\n"
      "      share: of what one sequential reader gets; a viewer takes 4 Mbit/s and holds 2 s;\n"
      "      the kernel reads ahead {} KiB\n",
      describe_machine(), options.disk.read_ahead_kib);
  std::fflush(stdout);
  const auto wanted = [&](std::string_view part) {
    const auto& parts = options.disk.parts;
    return std::ranges::find(parts, part) != parts.end();
  };
  Findings findings;
  Result<void> done;
  if (wanted("throughput"))
    for (const std::size_t streams : options.disk.streams)
      if (done) done = run_throughput(streams, options, scratch->path(), findings.disk);
  if (done && wanted("viewers")) done = run_viewers(options, scratch->path(), findings.disk);
  if (done && wanted("first-chunk")) done = run_first_chunk(options, scratch->path(), findings.disk);
  if (!done) return tl::unexpected(done.error());
  findings.targets = disk_targets(findings.disk);
  return findings;
}

}  // namespace nvr::bench
