// Recordings whose content follows from their number and the place in them, so that every byte that anybody
// reads can be checked without a file to compare it with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace nvr::tools {

// splitmix64 of where the word lies. `offset`: a multiple of 8.
inline std::uint64_t word_of_recording(std::uint32_t recording, std::uint64_t offset) {
  std::uint64_t z = (std::uint64_t{recording} << 40) + offset + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Fills `bytes`, whose length and `offset` are multiples of 8.
inline void make_bytes(std::span<std::byte> bytes, std::uint32_t recording, std::uint64_t offset) {
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    const std::uint64_t word = word_of_recording(recording, offset + at);
    std::memcpy(bytes.data() + at, &word, 8);
  }
}

// Is this what the recording has from `offset` on? Any offset, any length.
inline bool are_right_bytes(std::span<const std::byte> bytes, std::uint32_t recording, std::uint64_t offset) {
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t skip = (offset + at) % 8;
    const std::size_t length = std::min(8 - skip, bytes.size() - at);
    const std::uint64_t word = word_of_recording(recording, offset + at - skip);
    if (std::memcmp(bytes.data() + at, reinterpret_cast<const std::byte*>(&word) + skip, length) != 0)
      return false;
    at += length;
  }
  return true;
}

}  // namespace nvr::tools
