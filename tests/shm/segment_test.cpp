// Segments: what the seals forbid, who can map what, and the lease that tells whether the memory is still
// held.
#include "shm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "tests/support/proc.h"

namespace nvr::shm {
namespace {

constexpr std::uint64_t kBytes = 1 << 20;

TEST_CASE("segment: the client reads what the daemon writes into R, and cannot write to it in any way") {
  auto owned = OwnedSegment::create(SegmentKind::kRead, kBytes);
  REQUIRE(owned.has_value());
  owned->mapping().data()[12345] = std::byte{42};
  auto fd = owned->descriptor_for_client();
  REQUIRE(fd.has_value());
  auto mapping = attach_segment(SegmentKind::kRead, fd->get(), kBytes);
  REQUIRE(mapping.has_value());
  CHECK(mapping->data()[12345] == std::byte{42});

  const auto writable_map_fails = [](int descriptor) {
    void* const map = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (map != MAP_FAILED) munmap(map, 4096);
    return map == MAP_FAILED;
  };
  CHECK(writable_map_fails(fd->get()));
  CHECK(mprotect(mapping->data(), 4096, PROT_READ | PROT_WRITE) != 0);
  const std::string path = "/proc/self/fd/" + std::to_string(fd->get());
  const UniqueFd reopened(open(path.c_str(), O_RDWR | O_CLOEXEC));  // root may; the seal holds all the same
  if (reopened) {
    CHECK(writable_map_fails(reopened.get()));
    CHECK(write(reopened.get(), "x", 1) == -1);
    CHECK(errno == EPERM);
    CHECK(fallocate(reopened.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0);
  }
  CHECK(ftruncate(fd->get(), 0) != 0);
  CHECK(fcntl(fd->get(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
}

TEST_CASE("segment: W is shared both ways and cannot be truncated under the daemon") {
  auto owned = OwnedSegment::create(SegmentKind::kWrite, kBytes);
  REQUIRE(owned.has_value());
  auto fd = owned->descriptor_for_client();
  REQUIRE(fd.has_value());
  auto mapping = attach_segment(SegmentKind::kWrite, fd->get(), kBytes);
  REQUIRE(mapping.has_value());
  mapping->data()[99] = std::byte{7};
  CHECK(owned->mapping().data()[99] == std::byte{7});
  CHECK(ftruncate(fd->get(), 0) != 0);
  CHECK(ftruncate(fd->get(), 2 * kBytes) != 0);
}

TEST_CASE("segment: seals and close-on-exec of what clients get") {
  constexpr int kBoth = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  for (const auto& [kind, seals] :
       {std::pair(SegmentKind::kRead, kBoth | F_SEAL_FUTURE_WRITE), std::pair(SegmentKind::kWrite, kBoth)}) {
    const auto owned = OwnedSegment::create(kind, kBytes);
    REQUIRE(owned.has_value());
    const auto fd = owned->descriptor_for_client();
    REQUIRE(fd.has_value());
    CHECK(fcntl(fd->get(), F_GET_SEALS) == seals);
    CHECK(fcntl(fd->get(), F_GETFD) == FD_CLOEXEC);
  }
}

std::string permissions_at(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const test::MapEntry& map : test::mappings_of(getpid()))
    if (map.begin <= at && at < map.end) return map.permissions;
  return "none";
}

TEST_CASE("segment: each region has one writer") {
  for (const auto kind : {SegmentKind::kRead, SegmentKind::kWrite}) {
    const auto owned = OwnedSegment::create(kind, kBytes);
    REQUIRE(owned.has_value());
    const auto fd = owned->descriptor_for_client();
    REQUIRE(fd.has_value());
    const auto attached = attach_segment(kind, fd->get(), kBytes);
    REQUIRE(attached.has_value());
    const bool is_r = kind == SegmentKind::kRead;
    CHECK(permissions_at(owned->mapping().data()) == (is_r ? "rw-s" : "r--s"));
    CHECK(permissions_at(attached->data()) == (is_r ? "r--s" : "rw-s"));
  }
}

TEST_CASE("segment: the client refuses memory of another size or without all seals") {
  auto owned = OwnedSegment::create(SegmentKind::kRead, kBytes);
  REQUIRE(owned.has_value());
  auto fd = owned->descriptor_for_client();
  REQUIRE(fd.has_value());
  for (const std::uint64_t wrong : {kBytes - 4096, kBytes + 4096}) {
    const auto wrong_size = attach_segment(SegmentKind::kRead, fd->get(), wrong);
    REQUIRE_FALSE(wrong_size.has_value());
    CHECK(wrong_size.error().code == Code::kFailedPrecondition);
  }
  constexpr int kSeals[] = {F_SEAL_FUTURE_WRITE, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL};
  for (const int missing : kSeals) {
    CAPTURE(missing);
    const UniqueFd memory(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(ftruncate(memory.get(), kBytes) == 0);
    for (const int seal : kSeals) {
      if (seal != missing) REQUIRE(fcntl(memory.get(), F_ADD_SEALS, seal) == 0);
    }
    CHECK_FALSE(attach_segment(SegmentKind::kRead, memory.get(), kBytes).has_value());
  }
}

TEST_CASE("segment: held_elsewhere is exact about descriptors and mappings of others") {
  for (const auto kind : {SegmentKind::kRead, SegmentKind::kWrite}) {
    auto owned = OwnedSegment::create(kind, kBytes);
    REQUIRE(owned.has_value());
    CHECK_FALSE(owned->held_elsewhere());
    std::optional<Mapping> mapping;
    {
      auto fd = owned->descriptor_for_client();
      REQUIRE(fd.has_value());
      CHECK(owned->held_elsewhere());
      auto mapped = attach_segment(kind, fd->get(), kBytes);
      REQUIRE(mapped.has_value());
      mapping = std::move(*mapped);
    }
    CHECK(owned->held_elsewhere());  // the descriptor is closed, the map remains
    owned->unmap();
    CHECK(owned->held_elsewhere());
    mapping.reset();
    CHECK_FALSE(owned->held_elsewhere());
  }
}

}  // namespace
}  // namespace nvr::shm
