// The language of orders: what is understood, what is refused, and that it survives being printed.
#include "tools/slowdisk/orders.h"

#include <errno.h>

#include <catch2/catch.hpp>

namespace nvr::slowdisk {
namespace {

using namespace std::chrono_literals;

Order parsed(const std::string& line) {
  const auto order = parse_order(line);
  INFO(line);
  REQUIRE(order.has_value());
  return *order;
}
std::string refusal(const std::string& line) {
  const auto order = parse_order(line);
  INFO(line);
  REQUIRE_FALSE(order.has_value());
  CHECK(order.error().code != Code::kOk);
  return order.error().message;
}
Request request(Operation operation, std::uint64_t offset, std::uint64_t length, std::string file = {}) {
  Request result;
  result.operation = operation;
  result.offset = offset;
  result.length = length;
  result.file = std::move(file);
  return result;
}

TEST_CASE("orders say what they say") {
  CHECK(parsed("stall").target.ranges.empty());
  CHECK(parsed("stall all for 20s").lasting == 20s);
  CHECK(parsed("  eio\t4096-8192  once ").frequency == Frequency::kOnce);
  CHECK(parsed("eio 4K-8K").target.ranges == std::vector<Range>{{4096, 8192}});
  CHECK(parsed("eio 0-1,1G-2G always").target.ranges ==
        std::vector<Range>{{0, 1}, {std::uint64_t{1} << 30, std::uint64_t{1} << 31}});
  CHECK(parsed("eio 0.5%").probability == Approx(0.005));
  CHECK(parsed("eio").error == EIO);
  CHECK(parsed("fail EREMOTEIO opens").error == EREMOTEIO);
  CHECK(parsed("delay 8.5ms file a/b 0-1M 30% for 2min").delay == 8500us);
  CHECK(parsed("delay 1s").target.matches(request(Operation::kOpen, 0, 0)));
  CHECK(parsed("short file \"two words\"").target.file == "two words");
  CHECK(parsed("truncate file x 10MB").size == 10'000'000);
  CHECK(parsed("truncate 4096").target.file.empty());
  CHECK(parsed("vanish for 1s").verb == Verb::kVanish);
  CHECK(parsed("clear 7").number == 7);
  CHECK_FALSE(parsed("clear").number.has_value());
  CHECK(parsed("stall file all").target.file == "all");
  CHECK(parsed("stall file with-dash 0-5").target.file == "with-dash");
}

TEST_CASE("what is not understood is refused by name") {
  CHECK(refusal("") == "an order is missing");
  CHECK(refusal("explode") == "'explode' is no order");
  CHECK(refusal("stall 5-4").find("empty") != std::string::npos);
  CHECK(refusal("stall 5-5").find("empty") != std::string::npos);
  CHECK(refusal("eio 1-").find("no size") != std::string::npos);
  CHECK(refusal("eio -1-5").find("no size") != std::string::npos);
  CHECK(refusal("eio 0-99999999999T").find("2^63") != std::string::npos);
  CHECK(refusal("eio 101%").find("chance") != std::string::npos);
  CHECK(refusal("eio nan%").find("chance") != std::string::npos);
  CHECK(refusal("delay").find("no time") != std::string::npos);
  CHECK(refusal("delay 5").find("no time") != std::string::npos);
  CHECK(refusal("delay -5s").find("no time") != std::string::npos);
  CHECK(refusal("delay 1e9s").find("no time") != std::string::npos);
  CHECK(refusal("delay 9999999min").find("too long") != std::string::npos);
  CHECK(refusal("latency 5ms once") == "latency: what is 'once'?");
  CHECK(refusal("stall once") == "stall: what is 'once'?");
  CHECK(refusal("stall file").find("name is missing") != std::string::npos);
  CHECK(refusal("stall \"file").find("quote") != std::string::npos);
  CHECK(refusal("fail").find("no errno") != std::string::npos);
  CHECK(refusal("fail opens").find("no errno") != std::string::npos);
  CHECK(refusal("resume now") == "resume: what is 'now'?");
  CHECK(refusal("clear all").find("number") != std::string::npos);
  CHECK(refusal("truncate").find("no size") != std::string::npos);
}

TEST_CASE("an order that was printed is the same order") {
  const char* const line = GENERATE(
      "stall", "stall file \"a b\" 0-64K,1M-2M for 20s", "delay 1.5ms reads,opens 4097-8192 30%",
      "latency 5ms reads file x for 1s", "eio writes 1-2 once", "eio reads,writes,opens", "fail ENODATA",
      "fail ESTALE opens file x once", "short 0-4K for 150us", "truncate file x 10000000", "truncate 0",
      "vanish for 2min", "resume", "clear", "clear 18446744073709551615", "status");
  const Order order = parsed(line);
  CHECK(parsed(to_string(order)) == order);
}

TEST_CASE("a target takes in what touches it, and nothing else") {
  const Target bytes = parsed("eio 4096-8192").target;
  CHECK(bytes.matches(request(Operation::kRead, 4095, 2)));
  CHECK(bytes.matches(request(Operation::kRead, 8191, 1)));
  CHECK(bytes.matches(request(Operation::kRead, 0, 1 << 20, "any")));
  CHECK_FALSE(bytes.matches(request(Operation::kRead, 0, 4096)));
  CHECK_FALSE(bytes.matches(request(Operation::kRead, 8192, 4096)));
  CHECK_FALSE(bytes.matches(request(Operation::kWrite, 4096, 4096)));
  const Target file = parsed("stall file x 0-10").target;
  CHECK(file.matches(request(Operation::kRead, 5, 1, "x")));
  CHECK_FALSE(file.matches(request(Operation::kRead, 5, 1, "y")));
  CHECK_FALSE(file.matches(request(Operation::kOpen, 0, 0, "x")));
  CHECK(parsed("stall file x").target.matches(request(Operation::kOpen, 0, 0, "x")));
  CHECK_FALSE(parsed("stall reads file x").target.matches(request(Operation::kOpen, 0, 0, "x")));
}

}  // namespace
}  // namespace nvr::slowdisk
