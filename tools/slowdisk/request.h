// What a disk is asked for. A plain value.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tools/slowdisk/units.h"

namespace nvr::slowdisk {

enum class Operation : std::uint8_t { kRead = 1, kWrite = 2, kOpen = 4 };  // bits: orders choose among them

struct Request {
  std::uint64_t id = 0;  // the caller's
  Operation operation = Operation::kRead;
  std::string file;            // relative to the directory served; empty for an image
  std::uint64_t offset = 0;    // in the file or image
  std::uint64_t length = 0;    // 0 for what has no place: opens, flushes
  std::uint64_t position = 0;  // on the medium: the offset in an image, a file's place plus the offset
  Time arrived{0};
};

[[nodiscard]] constexpr const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::kRead:
      return "read";
    case Operation::kWrite:
      return "write";
    case Operation::kOpen:
      return "open";
  }
  return "?";
}

}  // namespace nvr::slowdisk
