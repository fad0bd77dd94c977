#include "tools/lab/recording_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "shm/unique_fd.h"
#include "tools/lab/failure.h"

namespace nvr::lab {
namespace {

constexpr std::size_t kPiece = 1 << 20;

// splitmix64
std::uint64_t word_at(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

shm::UniqueFd create(const std::string& path) {
  shm::UniqueFd fd(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644));
  if (!fd) throw Failure("cannot create " + path + ": " + strerror(errno));
  return fd;
}

void write_all(int fd, std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written <= 0) throw Failure(std::string("cannot write a recording: ") + strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
}

void write_content(int fd, std::uint64_t seed, std::uint64_t begin, std::uint64_t end) {
  std::vector<std::byte> piece(std::min<std::uint64_t>(kPiece, end - begin));
  for (std::uint64_t offset = begin; offset < end; offset += piece.size()) {
    piece.resize(std::min<std::uint64_t>(kPiece, end - offset));
    fill_content(seed, offset, piece);
    write_all(fd, offset, piece);
  }
}

}  // namespace

void fill_content(std::uint64_t seed, std::uint64_t offset, std::span<std::byte> target) {
  std::size_t i = 0;
  while (i < target.size()) {
    const std::uint64_t word = word_at(seed, (offset + i) / 8);
    const std::size_t skip = (offset + i) % 8;
    const std::size_t count = std::min(8 - skip, target.size() - i);
    memcpy(target.data() + i, reinterpret_cast<const std::byte*>(&word) + skip, count);
    i += count;
  }
}

std::vector<std::byte> RecordingFile::bytes(std::uint64_t begin, std::uint64_t end) const {
  std::vector<std::byte> content(end - begin);
  fill_content(seed, begin, content);
  return content;
}

std::string RecordingFile::difference(std::uint64_t offset, std::span<const std::byte> found) const {
  thread_local std::vector<std::byte> expected;
  expected.resize(found.size());
  fill_content(seed, offset, expected);
  if (found.empty() || memcmp(expected.data(), found.data(), found.size()) == 0) return "";
  const auto where = std::ranges::mismatch(expected, found);
  return to_string(id) + " has a wrong byte at offset " +
         std::to_string(offset + static_cast<std::uint64_t>(where.in1 - expected.begin()));
}

RecordingFile make_recording(const std::string& directory, RecordingId id, std::uint64_t size,
                             std::uint64_t seed) {
  RecordingFile file{.id = id, .path = directory + "/" + file_name_of(id), .size = size, .seed = seed};
  const shm::UniqueFd fd = create(file.path);
  if (size > 0) write_content(fd.get(), seed, 0, size);
  return file;
}

RecordingFile make_sparse_recording(const std::string& directory, RecordingId id, std::uint64_t size,
                                    std::uint64_t seed, std::span<const std::uint64_t> places,
                                    std::uint64_t radius) {
  RecordingFile file{.id = id, .path = directory + "/" + file_name_of(id), .size = size, .seed = seed};
  const shm::UniqueFd fd = create(file.path);
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    throw Failure("cannot make a sparse file of " + std::to_string(size) + " bytes: " + strerror(errno));
  for (const std::uint64_t place : places)
    write_content(fd.get(), seed, place - std::min(place, radius), std::min(size, place + radius));
  return file;
}

void write_file(const std::string& path, std::string_view bytes) {
  const shm::UniqueFd fd = create(path);
  write_all(fd.get(), 0, std::as_bytes(std::span(bytes)));
}

void evict(const std::string& path) {
  const shm::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || fdatasync(fd.get()) != 0 || posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED) != 0)
    throw Failure("cannot evict " + path);
}

}  // namespace nvr::lab
