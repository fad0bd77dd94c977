// What a ring of the daemon's can still do: no filter of system calls sees what is submitted to it.
#include <liburing.h>
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "daemon/ring_restrictions.h"
#include "tests/sandbox/inside.h"

namespace nvr::test {
namespace {

class Ring {
 public:
  explicit Ring(bool restricted) {
    io_uring_params params = {};
    params.flags = restricted ? IORING_SETUP_R_DISABLED : 0;
    const int result = io_uring_queue_init_params(8, &ring_, &params);
    Reporter::require(result == 0, "no ring");
    if (restricted) Reporter::require(daemon::restrict_and_enable(ring_) == 1, "not restricted");
  }
  template <class Prepare>
  int run(const Prepare& prepare) {
    prepare(io_uring_get_sqe(&ring_));
    io_uring_cqe* cqe = nullptr;
    Reporter::require(io_uring_submit_and_wait(&ring_, 1) >= 0, "cannot submit");
    Reporter::require(io_uring_wait_cqe(&ring_, &cqe) == 0, "no completion");
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    return result;
  }
  int open(int directory, const std::string& path, std::uint64_t flags) {
    open_how how = {};
    how.flags = flags;
    how.mode = (flags & O_CREAT) != 0 ? 0600 : 0;
    return run([&](io_uring_sqe* sqe) { io_uring_prep_openat2(sqe, directory, path.c_str(), &how); });
  }
  io_uring& raw() { return ring_; }

 private:
  io_uring ring_ = {};
};

void expect(int result, int expected, const std::string& what) {
  Reporter::require(result == expected, what + " gives " + std::to_string(result));
}

// By their opcodes, with the arguments that make the most of them; `target` is a descriptor to do it with.
void check_operations(Ring& ring, int target) {
  for (int opcode = 0; opcode < 64; ++opcode) {
    bool is_needed = false;
    for (const int needed : {IORING_OP_READ, IORING_OP_READV, IORING_OP_READ_FIXED, IORING_OP_OPENAT2,
                             IORING_OP_CLOSE, IORING_OP_POLL_ADD, IORING_OP_FADVISE})
      is_needed |= opcode == needed;
    if (is_needed) continue;
    const int result =
        ring.run([&](io_uring_sqe* sqe) { io_uring_prep_rw(opcode, sqe, target, nullptr, 0, 0); });
    // One that this kernel does not know is EINVAL.
    Reporter::require(result == -EACCES || (result == -EINVAL && opcode > IORING_OP_SEND_ZC),
                      "operation " + std::to_string(opcode) + " gives " + std::to_string(result));
  }
}

TEST_CASE("the ring reads recordings and does nothing else", "[io_uring][plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100'000);
  const std::string outside = site.root() / "outside";
  write_file(outside, "secret");
  ClientProcess child = ClientProcess::start([&](const Reporter&) {
    const Inside inside(site);
    const int directory = inside.directory.get();
    Ring free(false);
    expect(free.run([](io_uring_sqe* sqe) { io_uring_prep_nop(sqe); }), 0, "an operation of a free ring");
    allowed(free.open(AT_FDCWD, outside, O_RDWR), "opening a file by a free ring");
    const shm::UniqueFd spare(socket(AF_UNIX, SOCK_STREAM, 0));
    Ring ring(true);
    inside.enter(site, Role::kDiskThread);

    // Landlock, for what the ring is allowed: the free one no less.
    for (Ring* const each : {&ring, &free}) {
      const int fd = each->open(directory, file_name_of(file.id), O_RDONLY);
      Reporter::require(fd >= 0, "opening a recording gives " + std::to_string(fd));
      char byte = 0;
      expect(each->run([&](io_uring_sqe* sqe) { io_uring_prep_read(sqe, fd, &byte, 1, 0); }), 1, "reading");
      expect(each->open(AT_FDCWD, outside, O_RDONLY), -EACCES, "opening a file outside");
      expect(each->open(directory, "../outside", O_RDONLY), -EACCES, "opening the file beside DIR");
      expect(each->open(directory, file_name_of(file.id), O_RDWR), -EACCES, "opening a recording to write");
      expect(each->open(directory, "new", O_WRONLY | O_CREAT), -EACCES, "creating a recording");
    }
    // The ring's own restrictions.
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    expect(ring.run([&](io_uring_sqe* sqe) {
      io_uring_prep_connect(sqe, spare.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
    }),
           -EACCES, "connect");
    expect(ring.run([](io_uring_sqe* sqe) { io_uring_prep_socket(sqe, AF_INET, SOCK_STREAM, 0, 0); }),
           -EACCES, "socket");
    check_operations(ring, directory);
    expect(ring.run([&](io_uring_sqe* sqe) {
      io_uring_prep_poll_add(sqe, directory, 0);
      sqe->flags |= IOSQE_IO_LINK;
    }),
           -EACCES, "a link");
    expect(io_uring_register_eventfd(&ring.raw(), 0), -EACCES, "registering an eventfd");
    expect(io_uring_register_personality(&ring.raw()), -EACCES, "registering a personality");
    expect(io_uring_register_files(&ring.raw(), &directory, 1), -EACCES, "registering files");
  });
  CHECK(child.failure() == "");
}

}  // namespace
}  // namespace nvr::test
