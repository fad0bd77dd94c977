// The disk thread itself, with one connection whose client is the test.
#include "daemon/disk_thread.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <memory>

#include "shm/ring.h"
#include "shm/segment.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

namespace nvr::daemon {
namespace {

using test::wait_until;

class Bench {
 public:
  explicit Bench(std::uint64_t slow_operation_ns)
      : wakeup_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), connection_(make_connection()) {
    r_map_ = map(connection_->read_segment(), shm::SegmentKind::kRead);
    w_map_ = map(connection_->write_segment(), shm::SegmentKind::kWrite);
    const shm::ReadableView r(r_map_.data(), kGeometry);
    const shm::WritableView w(w_map_.data(), kGeometry);
    commands_.emplace(w.write_header(), w.commands(), kGeometry.command_capacity(), shm::kFirstIndex);
    returns_.emplace(w.credit(0), w.returns(0), kGeometry.slots, shm::kFirstIndex);
    descriptors_.emplace(r.publication(0), r.descriptors(0), kGeometry.descriptor_capacity(),
                         shm::kFirstIndex);
    auto disk = DiskThread::create({.directory = directory_.path(),
                                    .engine = "mmap",
                                    .sandbox = false,
                                    .slow_operation_ns = slow_operation_ns,
                                    .max_connections = kMaxConnections},
                                   wakeup_.get());
    REQUIRE(disk);
    disk_ = std::move(*disk);
    REQUIRE(disk_->start());
    disk_->post(Attach{connection_.get()});
  }

  DiskThread& disk() { return *disk_; }
  void ring() const {
    const std::uint64_t one = 1;
    REQUIRE(write(connection_->doorbell(), &one, sizeof(one)) == sizeof(one));
  }
  // Opens a recording that is not there, and takes the error.
  void open_missing() {
    commands_->put({.opcode = shm::Opcode::kOpen, .generation = ++generation_, .recording = 1, .end = 1});
    ring();
    REQUIRE(wait_until([&] { return descriptors_->look() == shm::DescriptorConsumer::Look::kReady; }));
    CHECK(descriptors_->take().kind == shm::DescriptorKind::kError);
  }
  // Ends the connection. Returns how many reports came before the disk thread had let go of it.
  int detach() {
    disk_->post(Detach{connection_.get()});
    int reports = 0;
    bool detached = false;
    CHECK(wait_until([&] {
      while (const auto message = disk_->take_message()) {
        reports += std::holds_alternative<OperationReport>(*message) ? 1 : 0;
        detached |= std::holds_alternative<Detached>(*message);
      }
      return detached;
    }));
    return reports;
  }
  [[nodiscard]] std::uint64_t sleeps() const { return disk_->statistics().sleeps.value(); }

  static constexpr std::uint32_t kMaxConnections = 4;

 private:
  static constexpr shm::Geometry kGeometry{.streams = 1, .slots = 2};

  static std::unique_ptr<Connection> make_connection() {
    auto connection = Connection::create(1, {}, kGeometry, 1, -1);
    REQUIRE(connection);
    return std::move(*connection);
  }
  static shm::Mapping map(const shm::OwnedSegment& segment, shm::SegmentKind kind) {
    const auto fd = segment.descriptor_for_client();
    REQUIRE(fd);
    auto mapping = shm::attach_segment(kind, fd->get(), segment.bytes());
    REQUIRE(mapping);
    return std::move(*mapping);
  }

  test::TempDir directory_;
  shm::UniqueFd wakeup_;
  std::unique_ptr<Connection> connection_;
  shm::Mapping r_map_;
  shm::Mapping w_map_;
  std::optional<shm::CommandProducer> commands_;
  std::optional<shm::ReturnProducer> returns_;
  std::optional<shm::DescriptorConsumer> descriptors_;
  std::uint32_t generation_ = shm::kFirstIndex;
  std::unique_ptr<DiskThread> disk_;  // ends before what it serves
};

TEST_CASE("disk thread: reports that nobody takes are lost, and no other message with them") {
  Bench bench(0);  // every operation is slow
  for (int i = 0; i < 300; ++i) bench.open_missing();
  const std::uint64_t lost = bench.disk().statistics().reports_lost.value();
  CHECK(lost > 0);
  const int reports = bench.detach();
  CHECK(reports > 0);
  CHECK(static_cast<std::uint64_t>(reports) + lost == 300);
}

TEST_CASE(
    "disk thread: a doorbell that rang for nothing a thousand times is heard again, and then all sleep") {
  Bench bench(UINT64_MAX);
  bench.open_missing();
  for (int i = 0; i < 1500; ++i) {  // each ends a sleep
    const std::uint64_t sleeps = bench.sleeps();
    bench.ring();
    REQUIRE(wait_until([&] { return bench.sleeps() != sleeps; }));
  }
  const auto rests = [&] {  // for ten times as long as muted doorbells are looked after
    const std::uint64_t sleeps = bench.sleeps();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return bench.sleeps() == sleeps;
  };
  CHECK(wait_until(rests));
  bench.open_missing();
  CHECK(wait_until(rests));
  bench.open_missing();
  bench.detach();
  CHECK(wait_until(rests));
}

}  // namespace
}  // namespace nvr::daemon
