// A mapped region of a memfd or a file, unmapped when its owner goes. The one place where Boost.Interprocess
// is used.
#pragma once

#include <boost/interprocess/mapped_region.hpp>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "nvr/error.h"

namespace nvr::shm {

enum class Access { kReadOnly, kReadWrite };

class Mapping {
 public:
  Mapping() = default;

  // Maps [offset, offset + bytes) of `fd`, shared. `offset` need not be aligned to pages; `bytes` > 0. The
  // descriptor may be closed afterwards. Does not check the range against the file's size: touching what lies
  // beyond it is SIGBUS, so callers check first. `what` names it in errors.
  [[nodiscard]] static Result<Mapping> create(int fd, std::uint64_t offset, std::size_t bytes, Access access,
                                              std::string_view what);

  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(region_.get_address()); }
  [[nodiscard]] std::size_t size() const { return region_.get_size(); }

 private:
  explicit Mapping(boost::interprocess::mapped_region region) : region_(std::move(region)) {}

  boost::interprocess::mapped_region region_;
};

}  // namespace nvr::shm
