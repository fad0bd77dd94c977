// A disk's streams in the hand of the test: the order in which they are lent.
#include "tools/streamer/disk.h"

#include <boost/asio/executor_work_guard.hpp>
#include <catch2/catch.hpp>

#include "tests/support/daemon_process.h"

namespace nvr::test {
namespace {

using streamer::Disk;
using streamer::Loan;

// A request for a stream, as long as it wants one.
class Borrower final : public streamer::DiskListener {
 public:
  Borrower(Disk& disk, Deadline since) : loan_(std::make_unique<Loan>(disk, OpenRequest{}, since, *this)) {
    on_news();
  }
  void on_news() override {
    const auto lent = loan_->poll();
    has_stream_ = lent && *lent != nullptr;
  }
  void leave() {
    loan_.reset();
    has_stream_ = false;
  }
  [[nodiscard]] bool has_stream() const { return has_stream_; }

 private:
  std::unique_ptr<Loan> loan_;
  bool has_stream_ = false;
};

TEST_CASE("streams are lent in the order in which the requests came") {
  const Site site;
  const DaemonProcess daemon = site.start();
  boost::asio::io_context loop(1);
  const auto work = boost::asio::make_work_guard(loop);
  Disk disk(loop, "a", site.socket(), {.streams = 2, .slots_per_stream = 2});
  const Deadline begin = Clock::now();
  const auto at = [&](int place) { return begin + std::chrono::seconds(place); };
  std::vector<std::unique_ptr<Borrower>> borrowers;
  const auto have_streams = [&] {
    while (loop.poll() > 0) {
    }
    std::string text;
    for (const auto& borrower : borrowers) text += borrower->has_stream() ? '1' : '-';
    return text;
  };
  REQUIRE(wait_until([&] {
    loop.poll();
    return !disk.trouble();
  }));
  for (int place = 0; place < 6; ++place) borrowers.push_back(std::make_unique<Borrower>(disk, at(place)));
  CHECK(have_streams() == "11----");
  CHECK(disk.queue_length() == 4);
  borrowers[0]->leave();
  CHECK_FALSE(borrowers[2]->has_stream());  // not from within the end of another
  Borrower latecomer(disk, at(6));          // nor is it taken away in between
  CHECK(have_streams() == "-11---");
  CHECK_FALSE(latecomer.has_stream());
  borrowers[3]->leave();  // without having been served
  borrowers[1]->leave();
  CHECK(have_streams() == "--1-1-");
  // A request that needs another stream was there before those that wait.
  borrowers[2]->leave();
  Borrower again(disk, at(2));
  CHECK(again.has_stream());
  CHECK(have_streams() == "----1-");
  again.leave();
  borrowers[4]->leave();
  CHECK(have_streams() == "-----1");
  CHECK(latecomer.has_stream());
  CHECK(disk.queue_length() == 0);
}

}  // namespace
}  // namespace nvr::test
