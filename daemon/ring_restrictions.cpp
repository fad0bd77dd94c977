#include "daemon/ring_restrictions.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>

namespace nvr::daemon {
namespace {

constexpr std::array<std::uint8_t, 7> kOperations = {IORING_OP_READ,    IORING_OP_READV, IORING_OP_READ_FIXED,
                                                     IORING_OP_OPENAT2, IORING_OP_CLOSE, IORING_OP_POLL_ADD,
                                                     IORING_OP_FADVISE};
// Windows of direct reads.
constexpr std::array<std::uint8_t, 2> kRegistrations = {IORING_REGISTER_BUFFERS2,
                                                        IORING_REGISTER_BUFFERS_UPDATE};

// liburing 2.3 declares helpers for these, and does not export them.
int do_register(const io_uring& ring, unsigned what, const void* argument, unsigned count) {
  return syscall(SYS_io_uring_register, ring.ring_fd, what, argument, count) < 0 ? -errno : 0;
}

}  // namespace

int restrict_and_enable(io_uring& ring) {
  std::array<io_uring_restriction, kOperations.size() + kRegistrations.size() + 2> allowed = {};
  unsigned count = 0;
  for (const std::uint8_t operation : kOperations) {
    allowed[count].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[count++].sqe_op = operation;
  }
  if ((ring.features & IORING_FEAT_EXT_ARG) == 0) {  // then waiting with a time limit is a submission, too
    allowed[count].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[count++].sqe_op = IORING_OP_TIMEOUT;
  }
  for (const std::uint8_t registration : kRegistrations) {
    allowed[count].opcode = IORING_RESTRICTION_REGISTER_OP;
    allowed[count++].register_op = registration;
  }
  allowed[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  allowed[count++].sqe_flags = IOSQE_ASYNC;
  const int restricted = do_register(ring, IORING_REGISTER_RESTRICTIONS, allowed.data(), count);
  if (restricted < 0 && restricted != -EINVAL) return restricted;
  const int enabled = do_register(ring, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
  return enabled < 0 ? enabled : restricted == 0 ? 1 : 0;
}

}  // namespace nvr::daemon
