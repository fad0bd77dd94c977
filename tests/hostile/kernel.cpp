// What a client can do through the kernel with the descriptors and the memory that it was given: flags,
// signals, leases, futexes, eventfds, maps that it keeps.
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "tests/hostile/scene.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

long futex(const shm::Word& word, int operation, std::uint32_t value, std::uintptr_t value2,
           const shm::Word& other) {
  return syscall(SYS_futex, &word, operation, value, value2, &other, value);
}

std::string proc_path(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

// Streams [0, 20 chunks) once, so that the daemon has something to do with this client.
void stream_once(RawClient& client, RecordingId id) {
  client.open(0, id, 0, 20 * kChunkBytes);
  for (;;) {
    const shm::Descriptor descriptor = client.take(0);
    if (shm::is_terminal(descriptor.kind)) return;
    if (descriptor.kind == shm::DescriptorKind::kChunk) client.give_back(0, descriptor.slot);
  }
}

TEST_CASE("a client goes on beside a storm on another's doorbell") {
  Scene scene;
  CHECK(scene.held_up_by([client = std::shared_ptr<RawClient>(), &scene]() mutable {
    if (!client) client = std::make_shared<RawClient>(scene.socket());
    for (int i = 0; i < 1000; ++i) client->ring();
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a doorbell that is full, and made to block its writers, holds up nobody") {
  Scene scene;
  CHECK(scene.attack([&](const Reporter&) {
    RawClient client(scene.socket());
    client.starve(1, scene.file().id);
    Reporter::require(fcntl(client.doorbell(), F_SETFL, 0) == 0, "F_SETFL is refused");  // no O_NONBLOCK
    std::uint64_t count = 0;
    static_cast<void>(!read(client.doorbell(), &count, sizeof(count)));
    const std::uint64_t most = UINT64_MAX - 1;
    Reporter::require(write(client.doorbell(), &most, sizeof(most)) == sizeof(most), "not filled");
    Reporter::require(scene.bystander().goes_on(), "the bystander is stuck");
    static_cast<void>(!read(client.doorbell(), &count, sizeof(count)));
    stream_once(client, scene.file().id);
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("flags, owners and signals set on every shared descriptor harm nobody") {
  Scene scene;
  const pid_t daemon = scene.daemon().pid();
  CHECK(scene.attack([&](const Reporter&) {
    const std::string daemons = std::to_string(daemon);
    for (const int flags : {0, O_NONBLOCK, O_APPEND, O_ASYNC, O_ASYNC | O_NONBLOCK | O_APPEND}) {
      for (const int deadly : {0, SIGKILL, SIGSEGV, SIGTERM}) {
        RawClient client(scene.socket());
        for (const int fd : {client.socket(), client.r_fd(), client.w_fd(), client.doorbell()}) {
          fcntl(fd, F_SETOWN, daemon);
          fcntl(fd, F_SETSIG, deadly);
          fcntl(fd, F_SETFL, flags);
          fcntl(fd, F_SETLEASE, F_RDLCK);
          fcntl(fd, F_NOTIFY, DN_ACCESS | DN_MODIFY);
        }
        fcntl(client.socket(), F_SETFL, flags | O_NONBLOCK);  // this process's own calls should not block
        client.w().write_header().want_byte = 1;
        stream_once(client, scene.file().id);
      }
    }
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a client that wakes and moves waiters of every word that it can see harms nobody") {
  Scene scene;
  CHECK(scene.held_up_by([client = std::shared_ptr<RawClient>(), &scene]() mutable {
    if (!client) client = std::make_shared<RawClient>(scene.socket());
    stream_once(*client, scene.file().id);
    const shm::Word& head = client->r().publication(0).head;
    const shm::Word& need = client->r().read_header().need_doorbell;
    const shm::Word& tail = client->w().write_header().command_tail;
    for (const shm::Word* const from : {&head, &need, &tail}) {
      for (const shm::Word* const to : {&head, &need, &tail}) {
        futex(*from, FUTEX_REQUEUE, 0, INT32_MAX, *to);
        futex(*from, FUTEX_CMP_REQUEUE, 0, INT32_MAX, *to);
        futex(*from, FUTEX_WAKE, INT32_MAX, 0, *to);
      }
    }
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a doorbell that is the completion eventfd of the client's own io_uring still rings") {
  constexpr char kMissing[] = "no io_uring for this user";
  Scene scene;
  const std::string problem = scene.attack([&](const Reporter&) {
    io_uring ring = {};
    Reporter::require(io_uring_queue_init(64, &ring, 0) == 0, kMissing);
    RawClient client(scene.socket());
    Reporter::require(io_uring_register_eventfd(&ring, client.doorbell()) == 0,
                      "cannot register the doorbell");
    // Completions ring it from within the kernel, in bursts, while the client streams, idles, and streams.
    for (int round = 0; round < 200; ++round) {
      for (int i = 0; i < 32; ++i) io_uring_prep_nop(io_uring_get_sqe(&ring));
      io_uring_submit(&ring);
      io_uring_cqe* cqe = nullptr;
      while (io_uring_peek_cqe(&ring, &cqe) == 0) io_uring_cqe_seen(&ring, cqe);
      if (round % 10 == 0) stream_once(client, scene.file().id);
      if (round % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    stream_once(client, scene.file().id);
    io_uring_queue_exit(&ring);
  });
  if (problem.find(kMissing) != std::string::npos) return skip_or_fail(kMissing);
  CHECK(problem == "");
  CHECK(scene.problem_after() == "");
}

// The daemon asks by a lease whether memory of a connection that ended is still held. A descriptor opened
// with O_PATH does not stand in that lease's way, and can be opened while the daemon has it: the kernel then
// sends the lease's holder a signal.
TEST_CASE("a client that opens its memory at the moment of the daemon's lease does not end the daemon") {
  Scene scene;
  CHECK(scene.attack([&](const Reporter&) {
    auto client = std::make_optional<RawClient>(scene.socket());
    const shm::UniqueFd path(open(proc_path(client->r_fd()).c_str(), O_PATH | O_CLOEXEC));
    const shm::UniqueFd w(fcntl(client->w_fd(), F_DUPFD_CLOEXEC, 0));  // keeps the memory on the list
    Reporter::require(path && w, "cannot keep the memory");
    client.reset();
    const std::string reopen = proc_path(path.get());
    std::atomic<bool> ended = false;
    std::thread opener([&] {
      while (!ended) shm::UniqueFd(::open(reopen.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    });
    // Each new client makes the daemon look.
    std::string problem;
    try {
      for (int i = 0; i < scaled(1000, 200); ++i) RawClient(scene.socket(), {.streams = 1, .slots = 2});
    } catch (const std::exception& error) {
      problem = error.what();
    }
    ended = true;
    opener.join();
    Reporter::require(problem.empty(), problem);
  }) == "");
  CHECK(scene.problem_after() == "");
}

}  // namespace
}  // namespace nvr::test
