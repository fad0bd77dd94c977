// Recordings whose bytes can be computed again: the byte at an offset depends on the seed and the offset
// only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nvr/recording.h"

namespace nvr::lab {

// Writes the content of [offset, offset + target.size()) to `target`.
void fill_content(std::uint64_t seed, std::uint64_t offset, std::span<std::byte> target);

struct RecordingFile {
  RecordingId id;
  std::string path;
  std::uint64_t size = 0;
  std::uint64_t seed = 0;

  [[nodiscard]] std::vector<std::byte> bytes(std::uint64_t begin, std::uint64_t end) const;
  // Does `found` equal the content from `offset` on? Where it does not: what differs. Empty if all is well.
  [[nodiscard]] std::string difference(std::uint64_t offset, std::span<const std::byte> found) const;
};

// Creates DIR/<name of id>, with `size` bytes of content.
[[nodiscard]] RecordingFile make_recording(const std::string& directory, RecordingId id, std::uint64_t size,
                                           std::uint64_t seed);

// As make_recording(), but with content only within `radius` bytes of each of `places`; the rest is a hole.
// Ask for bytes near those places only.
[[nodiscard]] RecordingFile make_sparse_recording(const std::string& directory, RecordingId id,
                                                  std::uint64_t size, std::uint64_t seed,
                                                  std::span<const std::uint64_t> places,
                                                  std::uint64_t radius);

// A file of exactly these bytes.
void write_file(const std::string& path, std::string_view bytes);

// Drops the file's pages from the page cache, so that the next read goes to the disk.
void evict(const std::string& path);

}  // namespace nvr::lab
