// Which request the head turns to next.
#include "tools/slowdisk/queue.h"

#include <catch2/catch.hpp>
#include <vector>

namespace nvr::slowdisk {
namespace {

using namespace std::chrono_literals;

// The positions in the order in which they are served; the head goes where it is sent.
std::vector<std::uint64_t> served(std::vector<std::uint64_t> positions, std::uint64_t head,
                                  const QueueOptions& options) {
  std::vector<Request> requests;
  for (const std::uint64_t position : positions) {
    requests.emplace_back();
    requests.back().position = position;
  }
  std::vector<const Request*> waiting;
  for (const Request& request : requests) waiting.push_back(&request);
  std::vector<std::uint64_t> order;
  while (const auto choice = pick(waiting, head, 0ms, options)) {
    head = waiting[*choice]->position;
    order.push_back(head);
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(*choice));
  }
  return order;
}

TEST_CASE("the elevator goes up from the head, then up again from the lowest") {
  CHECK(served({10, 90, 50, 70, 20, 50}, 50, {.policy = Policy::kElevator}) ==
        std::vector<std::uint64_t>{50, 50, 70, 90, 10, 20});
}

TEST_CASE("nearest goes the shortest way, to either side") {
  CHECK(served({10, 90, 55, 44, 20}, 50, {.policy = Policy::kNearest}) ==
        std::vector<std::uint64_t>{55, 44, 20, 10, 90});
}

TEST_CASE("fifo serves as they came") {
  CHECK(served({3, 1, 2}, 2, {.policy = Policy::kFifo}) == std::vector<std::uint64_t>{3, 1, 2});
}

TEST_CASE("the drive chooses among the oldest only, as many as it has room for") {
  CHECK(served({9, 8, 1, 7}, 0, {.policy = Policy::kElevator, .depth = 2}) ==
        std::vector<std::uint64_t>{8, 9, 1, 7});
}

TEST_CASE("whoever has waited too long is next") {
  std::vector<Request> requests(2);
  requests[0].position = 1'000'000;
  requests[0].arrived = 0ms;
  requests[1].position = 1;
  requests[1].arrived = 999ms;
  const std::vector<const Request*> waiting = {&requests[0], &requests[1]};
  const QueueOptions options = {.policy = Policy::kNearest, .longest_wait = 1s};
  CHECK(pick(waiting, 0, 1000ms, options) == 1);
  CHECK(pick(waiting, 0, 1001ms, options) == 0);
}

TEST_CASE("an empty queue offers nothing") {
  CHECK_FALSE(pick({}, 0, 0ms, {}).has_value());
}

}  // namespace
}  // namespace nvr::slowdisk
