// The recordings that every system reads: random bytes, written to disk and left in the page cache, with the
// sum that a consumer of each chunk must come to.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nvr/client.h"
#include "shm/unique_fd.h"

namespace nvr::bench {

// What a consumer does with bytes: one addition for each cache line, so that each is read, and a result that
// can be checked, so that no compiler leaves it out. Starts of spans must be multiples of 64 in the file for
// sums to add up.
[[nodiscard]] std::uint64_t sum_of_lines(std::span<const std::byte> bytes);

inline constexpr std::size_t kPageBytes = 4096;

struct FileShape {
  std::size_t count = 16;
  std::uint64_t bytes = 64U << 20;  // a multiple of kChunkBytes
  std::optional<uid_t> owner = {};  // none: whoever writes them
};

struct FileRange {
  std::size_t file = 0;
  std::uint64_t begin = 0;  // bytes; multiples of kPageBytes
  std::uint64_t end = 0;
  Priority priority = Priority::kPlayback;  // for systems that know any
};

class FileSet {
 public:
  // Writes the files to `directory`, which exists, and waits until they are on disk: writing back later would
  // disturb what is measured.
  [[nodiscard]] static Result<FileSet> create(const std::filesystem::path& directory, FileShape shape);

  // Drops every page of the files from the page cache. Waits for those that others have mapped or locked, for
  // some seconds; then it is an error.
  [[nodiscard]] Result<void> drop_from_cache() const;
  // Reads the first `count` files (all, if there are less) into the page cache.
  [[nodiscard]] Result<void> read_into_cache(std::size_t count) const;

  [[nodiscard]] std::size_t count() const { return shape_.count; }
  [[nodiscard]] std::uint64_t file_bytes() const { return shape_.bytes; }
  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
  [[nodiscard]] RecordingId id(std::size_t file) const;
  [[nodiscard]] std::string path(std::size_t file) const;
  // To read it.
  [[nodiscard]] Result<shm::UniqueFd> open(std::size_t file) const;
  [[nodiscard]] FileRange whole(std::size_t file) const {
    return {.file = file % count(), .begin = 0, .end = file_bytes()};
  }
  // Its chunk of that number, as often around as it takes.
  [[nodiscard]] FileRange chunk_at(std::size_t file, std::uint64_t number) const {
    const std::uint64_t begin = number % (file_bytes() / kChunkBytes) * kChunkBytes;
    return {.file = file, .begin = begin, .end = begin + kChunkBytes};
  }
  // What sum_of_lines() gives for [begin, end) of a file; multiples of kPageBytes.
  [[nodiscard]] std::uint64_t expected_sum(std::size_t file, std::uint64_t begin, std::uint64_t end) const;

 private:
  FileSet(std::filesystem::path directory, FileShape shape);
  [[nodiscard]] Result<void> write_file(std::size_t file);

  std::filesystem::path directory_;
  FileShape shape_;
  std::vector<std::vector<std::uint64_t>> sums_;  // [file][page]: of all before it
};

}  // namespace nvr::bench
