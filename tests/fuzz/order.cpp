// Orders to nvr-slowdisk: a few requests, and orders between them, one a line.
#include <cmath>

#include "tests/fuzz/target.h"
#include "tools/slowdisk/disk.h"

namespace nvr::test {
namespace {

using namespace slowdisk;

constexpr std::uint64_t kLength = 65'536;

void check_order(const Order& order, Judgement& judgement) {
  for (const Range& range : order.target.ranges)
    judgement.require(range.begin < range.end && range.end <= INT64_MAX, "a range without bytes");
  judgement.require(order.delay >= Time(0) && order.lasting.value_or(Time(0)) >= Time(0), "a negative time");
  judgement.require(order.probability >= 0 && order.probability <= 1, "a chance that is none");
  const auto again = parse_order(to_string(order));
  if (!again)
    judgement.object("'" + to_string(order) + "' is not read back: " + again.error().message);
  else if (!(*again == order))
    judgement.object("'" + to_string(order) + "' is read back as '" + to_string(*again) + "'");
}

void serve(Disk& disk, Time& now, std::uint64_t number, Judgement& judgement) {
  const Request request = {.id = number,
                           .operation = number % 3 == 2 ? Operation::kOpen : Operation::kRead,
                           .file = number % 2 == 0 ? "a" : "b",
                           .offset = number * kLength,
                           .length = number % 3 == 2 ? 0 : kLength,
                           .position = number * kLength,
                           .arrived = now};
  if (const auto served = disk.serve_at_once(request, now)) {
    judgement.require(served->verdict.length <= request.length, "more than was asked for");
    return;
  }
  disk.submit(request);
  while (const Service* const service = disk.begin(now)) {
    judgement.require(service->finishes >= service->begun, "finished before it was begun");
    judgement.require(service->verdict.length <= service->request.length, "more than was asked for");
    now = std::max(now, service->finishes);
    static_cast<void>(disk.finish());
  }
}

void run(std::span<const std::byte> input, Judgement& judgement) {
  std::string_view text = text_of(input);
  DiskOptions options;
  options.knows_files = true;
  Disk disk(options);
  Time now(0);
  for (std::uint64_t number = 0; !text.empty() && number < 32; ++number) {
    const auto order = parse_order(take_line(text));
    if (!order) {
      judgement.require(!order.error().message.empty(), "refused without a word");
      judgement.reach("refused");
      continue;
    }
    check_order(*order, judgement);
    const std::string printed = to_string(*order);
    const bool followed = disk.follow(*order, now).has_value();
    judgement.reach(printed.substr(0, printed.find(' ')) + (followed ? "" : " without effect"));
    serve(disk, now, number, judgement);
  }
}

}  // namespace

const FuzzTarget order_target = {"order",
                                 run,
                                 {"stall", "delay", "eio", "short", "truncate", "vanish", "resume", "clear",
                                  "clear without effect", "status", "refused"}};

}  // namespace nvr::test
