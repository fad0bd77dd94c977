// The head in real time: never faster than the model, in the model's order, and answering what is left at its
// end.
#include "tools/slowdisk/head.h"

#include <errno.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>
#include <vector>

#include "shm/clock.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

namespace nvr::slowdisk {
namespace {

using namespace std::chrono_literals;
using test::wait_until;

constexpr std::uint64_t kPiece = 65'536;

struct Answers {
  std::mutex mutex;
  std::vector<std::pair<int, int>> given;  // number of the job, error

  std::size_t count() {
    const std::scoped_lock lock(mutex);
    return given.size();
  }
};

class TestJob final : public Job {
 public:
  TestJob(int number, Answers& answers) : number_(number), answers_(answers) {}
  void prepare(const Verdict&) override { prepared_ = true; }
  void answer(const Verdict& verdict) override {
    const std::scoped_lock lock(answers_.mutex);
    answers_.given.emplace_back(number_, prepared_ ? verdict.error : -verdict.error);
  }

 private:
  int number_;
  Answers& answers_;
  bool prepared_ = false;
};

class Drive {
 public:
  explicit Drive(const std::string& log = {}) : journal_(Journal::create(log, Time(shm::now_ns())).value()) {
    DiskOptions options;
    options.mechanics.capacity_bytes = std::uint64_t{1} << 40;
    head_.emplace(options, *journal_);
  }
  void read(int number, std::uint64_t position) {
    Request request;
    request.offset = request.position = position;
    request.length = kPiece;
    head_->submit(request, std::make_unique<TestJob>(number, answers));
  }
  void order(const std::string& line) { REQUIRE(head_->follow(parse_order(line).value()).has_value()); }
  void switch_off() { head_.reset(); }

  Answers answers;

 private:
  std::unique_ptr<Journal> journal_;
  std::optional<Head> head_;
};

TEST_CASE("what waited during a stall is served in the order of the elevator, and no faster than a disk") {
  Drive drive;
  drive.order("stall");
  for (const int number : {3, 1, 2, 0}) drive.read(number, static_cast<std::uint64_t>(number) << 38);
  std::this_thread::sleep_for(20ms);
  CHECK(drive.answers.count() == 0);
  const auto begin = std::chrono::steady_clock::now();
  drive.order("resume");
  REQUIRE(wait_until([&] { return drive.answers.count() == 4; }));
  // Three quarters of a disk in three seeks.
  CHECK(std::chrono::steady_clock::now() - begin > 3 * 8ms);
  CHECK(drive.answers.given == std::vector<std::pair<int, int>>{{0, 0}, {1, 0}, {2, 0}, {3, 0}});
}

TEST_CASE("a stall and a long delay end when their order says so, not when somebody looks") {
  Drive drive;
  const std::string line = GENERATE("stall for 50ms", "delay 1min once", "vanish for 50ms");
  drive.order(line);
  drive.read(0, 0);
  if (line.starts_with("delay")) {
    std::this_thread::sleep_for(20ms);
    drive.order("resume");
  }
  CHECK(wait_until([&] { return drive.answers.count() == 1; }));
}

TEST_CASE("a request that fails is not worked on, and what still hangs at the end fails") {
  Drive drive;
  drive.order("eio 0-64K");
  drive.order("stall 1M-2M");
  drive.read(0, 1 << 20);
  drive.read(1, 0);
  REQUIRE(wait_until([&] { return drive.answers.count() == 1; }));
  drive.switch_off();
  CHECK(drive.answers.given == std::vector<std::pair<int, int>>{{1, -EIO}, {0, -EIO}});
}

TEST_CASE("the log has a line for each request and each order") {
  const test::TempDir directory;
  Drive drive(directory / "log");
  drive.order("eio 64K-65K once");
  drive.read(0, kPiece);
  drive.read(1, kPiece);
  REQUIRE(wait_until([&] { return drive.answers.count() == 2; }));
  drive.switch_off();
  std::ifstream file(directory / "log");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  REQUIRE(lines.size() == 4);
  CHECK(lines[1].ends_with(" order: eio 64K-65K once"));
  CHECK(lines[2].ends_with(" EIO 1:eio -"));
  CHECK(lines[3].ends_with(" ok - -"));
  std::istringstream words(lines[3]);
  double arrived_s = 0;
  double wait_ms = 0;
  double service_ms = 0;
  double late_ms = -1;
  std::string operation;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  REQUIRE(words >> arrived_s >> operation >> offset >> length >> wait_ms >> service_ms >> late_ms);
  CHECK(operation == "read");
  CHECK(offset == kPiece);
  CHECK(length == kPiece);
  CHECK(service_ms > 0.4);
  CHECK(late_ms >= 0);
}

}  // namespace
}  // namespace nvr::slowdisk
