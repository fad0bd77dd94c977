#include "shm/mapping.h"

#include <boost/interprocess/exceptions.hpp>
#include <utility>

namespace nvr::shm {
namespace {

namespace bip = boost::interprocess;

// What mapped_region asks of a memory-mappable object.
struct Mappable {
  int fd;
  bip::mode_t mode;
  [[nodiscard]] bip::mapping_handle_t get_mapping_handle() const { return {.handle = fd, .is_xsi = false}; }
  [[nodiscard]] bip::mode_t get_mode() const { return mode; }
};

}  // namespace

Result<Mapping> Mapping::create(int fd, std::uint64_t offset, std::size_t bytes, Access access,
                                std::string_view what) {
  const bip::mode_t mode = access == Access::kReadOnly ? bip::read_only : bip::read_write;
  try {
    return Mapping(bip::mapped_region(Mappable{fd, mode}, mode, static_cast<bip::offset_t>(offset), bytes));
  } catch (const bip::interprocess_exception& e) {
    return fail_errno(e.get_native_error(), "cannot map " + std::string(what));
  }
}

}  // namespace nvr::shm
