// R and W as memory: created and sealed by the daemon, checked and mapped by the client.
//
// The daemon creates both. Each end holds its own open file description (the client's is made by reopening
// through /proc/self/fd), which has two effects: the client's descriptor of R is read-only from the start,
// and the daemon can ask the kernel at any time whether anybody still holds the memory (held_elsewhere).
#pragma once

#include <cstdint>
#include <string_view>

#include "nvr/error.h"
#include "shm/mapping.h"
#include "shm/protocol.h"
#include "shm/unique_fd.h"

namespace nvr::shm {

enum class SegmentKind {
  kRead,   // R: the daemon writes, the client reads
  kWrite,  // W: the client writes, the daemon reads
};

// The daemon's end. Move-only; unmaps and closes when it goes, which frees the memory unless the client still
// holds it.
class OwnedSegment {
 public:
  // Zero-filled, sealed. Touches no page yet.
  [[nodiscard]] static Result<OwnedSegment> create(SegmentKind kind, std::uint64_t bytes);

  // A descriptor for the client: read-only for R, read-write for W.
  [[nodiscard]] Result<UniqueFd> descriptor_for_client() const;

  [[nodiscard]] const Mapping& mapping() const { return mapping_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  // Gives the mapping up and keeps only what held_elsewhere() needs.
  void unmap() { mapping_ = Mapping(); }
  // Does any other open file description or mapping of this memory exist, in whatever process? Asked by
  // trying to take a write lease, which the kernel grants only to the sole opener. Never blocks.
  // Precondition: unmap() was called, or the answer is about others than the mapping of this object, which
  // does not count either way.
  [[nodiscard]] bool held_elsewhere() const;

 private:
  OwnedSegment(SegmentKind kind, std::uint64_t bytes, UniqueFd fd, Mapping mapping)
      : kind_(kind), bytes_(bytes), fd_(std::move(fd)), mapping_(std::move(mapping)) {}

  SegmentKind kind_;
  std::uint64_t bytes_;
  UniqueFd fd_;
  Mapping mapping_;
};

// The client's end: checks seals and size, then maps. FailedPrecondition names what does not hold.
[[nodiscard]] Result<Mapping> attach_segment(SegmentKind kind, int fd, std::uint64_t bytes);

// Where things lie in a mapped R or W of a given geometry. Just arithmetic; the mapping must be as long as
// the geometry says. `Base` is std::byte* at the end that writes, const std::byte* at the end that reads.
template <class Base>
class View {
  template <class T>
  using At = std::conditional_t<std::is_const_v<std::remove_pointer_t<Base>>, const T, T>;

 public:
  View(Base base, Geometry geometry) : base_(base), geometry_(geometry) {}

  [[nodiscard]] const Geometry& geometry() const { return geometry_; }

  // R
  [[nodiscard]] At<ReadHeader>& read_header() const { return at<ReadHeader>(0); }
  [[nodiscard]] At<PublicationHeader>& publication(std::uint32_t stream) const {
    return at<PublicationHeader>(geometry_.publication_offset(stream));
  }
  [[nodiscard]] At<Descriptor>* descriptors(std::uint32_t stream) const {
    return &at<Descriptor>(geometry_.publication_offset(stream) + sizeof(PublicationHeader));
  }
  [[nodiscard]] Base slot(std::uint32_t stream, std::uint32_t slot) const {
    return base_ + geometry_.slot_offset(stream, slot);
  }

  // W
  [[nodiscard]] At<WriteHeader>& write_header() const { return at<WriteHeader>(0); }
  [[nodiscard]] At<CommandCell>* commands() const { return &at<CommandCell>(geometry_.command_offset()); }
  [[nodiscard]] At<CreditHeader>& credit(std::uint32_t stream) const {
    return at<CreditHeader>(geometry_.credit_offset(stream));
  }
  [[nodiscard]] At<Word>* returns(std::uint32_t stream) const {
    return &at<Word>(geometry_.credit_offset(stream) + sizeof(CreditHeader));
  }

 private:
  template <class T>
  [[nodiscard]] At<T>& at(std::uint64_t offset) const {
    return *reinterpret_cast<At<T>*>(base_ + offset);
  }

  Base base_;
  Geometry geometry_;
};

using WritableView = View<std::byte*>;
using ReadableView = View<const std::byte*>;

}  // namespace nvr::shm
