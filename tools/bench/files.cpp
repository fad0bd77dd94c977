#include "tools/bench/files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

namespace nvr::bench {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr auto kDropTimeout = std::chrono::seconds(30);

// Two seconds of a camera at 4 Mbit/s and 30 frames a second, written frame by frame as recorders do: a key
// frame and 59 others. It matters: the kernel keeps what came in small writes in small folios.
constexpr std::size_t kGroupBytes = 1U << 20;
constexpr std::size_t kKeyFrameBytes = 150'000;
constexpr std::size_t kFrameBytes = (kGroupBytes - kKeyFrameBytes + 58) / 59;

// splitmix64: fast, and incompressible for any file system.
std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

Result<void> write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno(errno, "cannot write " + path);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> write_frames(int fd, std::span<const std::byte> group, const std::string& path) {
  for (std::size_t frame = kKeyFrameBytes; !group.empty(); frame = kFrameBytes) {
    const auto bytes = group.first(std::min(frame, group.size()));
    if (auto written = write_all(fd, bytes, path); !written) return written;
    group = group.subspan(bytes.size());
  }
  return {};
}

// True when nothing of the file is left in the page cache.
Result<bool> drop(int fd, std::uint64_t bytes) {
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  void* const map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return fail_errno(errno, "cannot map a recording");
  std::vector<unsigned char> pages((bytes + 4095) / 4096);
  const bool looked = mincore(map, bytes, pages.data()) == 0;
  munmap(map, bytes);
  if (!looked) return fail_errno(errno, "cannot look at what is in memory of a recording");
  return std::none_of(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
}

}  // namespace

std::uint64_t sum_of_lines(std::span<const std::byte> bytes) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at + sizeof(sum) <= bytes.size(); at += kLineBytes) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    sum += word;
  }
  return sum;
}

FileSet::FileSet(std::filesystem::path directory, FileShape shape)
    : directory_(std::move(directory)), shape_(shape), sums_(shape.count, {0}) {}

Result<FileSet> FileSet::create(const std::filesystem::path& directory, FileShape shape) {
  FileSet files(directory, shape);
  for (std::size_t file = 0; file < shape.count; ++file)
    if (auto written = files.write_file(file); !written) return tl::unexpected(written.error());
  return files;
}

Result<void> FileSet::drop_from_cache() const {
  const auto give_up = std::chrono::steady_clock::now() + kDropTimeout;
  for (std::size_t file = 0; file < shape_.count;) {
    const auto fd = open(file);
    if (!fd) return tl::unexpected(fd.error());
    const auto dropped = drop(fd->get(), shape_.bytes);
    if (!dropped) return tl::unexpected(dropped.error());
    if (*dropped) {
      ++file;
      continue;
    }
    if (std::chrono::steady_clock::now() > give_up)
      return fail(Code::kUnavailable, "somebody keeps " + path(file) + " in memory");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return {};
}

Result<void> FileSet::read_into_cache(std::size_t count) const {
  std::vector<std::byte> buffer(kChunkBytes);
  for (std::size_t file = 0; file < std::min(count, shape_.count); ++file) {
    const auto fd = open(file);
    if (!fd) return tl::unexpected(fd.error());
    ssize_t got = 0;
    do got = read(fd->get(), buffer.data(), buffer.size());
    while (got > 0 || (got < 0 && errno == EINTR));
    if (got < 0) return fail_errno(errno, "cannot read " + path(file));
  }
  return {};
}

RecordingId FileSet::id(std::size_t file) const {
  return {.stream = 1, .recording = static_cast<std::uint32_t>(file)};
}

std::string FileSet::path(std::size_t file) const {
  return (directory_ / file_name_of(id(file))).string();
}

Result<shm::UniqueFd> FileSet::open(std::size_t file) const {
  shm::UniqueFd fd(::open(path(file).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open " + path(file));
  return fd;
}

std::uint64_t FileSet::expected_sum(std::size_t file, std::uint64_t begin, std::uint64_t end) const {
  return sums_[file][end / kPageBytes] - sums_[file][begin / kPageBytes];
}

Result<void> FileSet::write_file(std::size_t file) {
  const std::string name = path(file);
  const shm::UniqueFd fd(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "cannot create " + name);
  std::uint64_t state = file + 1;
  std::vector<std::uint64_t> group(kGroupBytes / sizeof(std::uint64_t));
  for (std::uint64_t at = 0; at < shape_.bytes; at += kGroupBytes) {
    for (std::uint64_t& word : group) word = next_random(state);
    const auto bytes =
        std::as_bytes(std::span(group)).first(std::min<std::uint64_t>(kGroupBytes, shape_.bytes - at));
    for (std::size_t page = 0; page < bytes.size(); page += kPageBytes)
      sums_[file].push_back(sums_[file].back() + sum_of_lines(bytes.subspan(page, kPageBytes)));
    if (auto written = write_frames(fd.get(), bytes, name); !written) return written;
  }
  if (shape_.owner && fchown(fd.get(), *shape_.owner, static_cast<gid_t>(-1)) != 0)
    return fail_errno(errno, "cannot give " + name + " to another user");
  if (fdatasync(fd.get()) != 0) return fail_errno(errno, "cannot write " + name + " to disk");
  return {};
}

}  // namespace nvr::bench
