// Ranges, conditions and targets, as RFC 9110 has them.
#include "tools/streamer/range.h"

#include <catch2/catch.hpp>

#include "tools/streamer/target.h"

namespace nvr::streamer {
namespace {

using Kind = Decision::Kind;

std::optional<Slice> slice_of(std::string_view header, std::uint64_t size) {
  const auto range = parse_range(header);
  return range ? resolve(*range, size) : std::nullopt;
}

TEST_CASE("a range is what there is of what was asked for") {
  CHECK(slice_of("bytes=0-0", 10) == Slice{0, 1});
  CHECK(slice_of("bytes=0-", 10) == Slice{0, 10});
  CHECK(slice_of("bytes=3-7", 10) == Slice{3, 8});
  CHECK(slice_of("Bytes = 9-9", 10) == Slice{9, 10});
  CHECK(slice_of("bytes=9-100", 10) == Slice{9, 10});
  CHECK(slice_of("bytes=5-99999999999999999999999", 10) == Slice{5, 10});
  CHECK(slice_of("bytes=-3", 10) == Slice{7, 10});
  CHECK(slice_of("bytes=-100", 10) == Slice{0, 10});
  for (const char* const none : {"bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"}) {
    CAPTURE(none);
    REQUIRE(parse_range(none));
    CHECK_FALSE(slice_of(none, 10));
  }
  CHECK_FALSE(slice_of("bytes=0-", 0));
  CHECK_FALSE(slice_of("bytes=-5", 0));
}

TEST_CASE("a Range that is malformed, in another unit or several is ignored") {
  for (const char* const header :
       {"", "bytes", "bytes=", "bytes=-", "bytes=5", "bytes=a-b", "bytes=5-3", "bytes=--5", "bytes=1-2,4-5",
        "bytes=-1,-2", "bytes=+1-2", "bytes=0x1-2", "bytes= 1 - 2", "seconds=1-2", "bytes=1-2-3", "=1-2"}) {
    CAPTURE(header);
    CHECK_FALSE(parse_range(header));
  }
}

TEST_CASE("an ETag changes with everything that can change, and for replicas with size and mtime only") {
  const RecordingInfo info{.device = 1, .inode = 2, .size = 3, .mtime_ns = 4, .birth_ns = 5};
  for (const RecordingInfo& other :
       {RecordingInfo{2, 2, 3, 4, 5}, RecordingInfo{1, 3, 3, 4, 5}, RecordingInfo{1, 2, 4, 4, 5},
        RecordingInfo{1, 2, 3, 5, 5}, RecordingInfo{1, 2, 3, 4, 6}}) {
    CHECK(etag_of(other, false) != etag_of(info, false));
    CHECK((etag_of(other, true) == etag_of(info, true)) == (other.size == 3 && other.mtime_ns == 4));
  }
  CHECK(etag_of(info, false) == "\"1-2-3-4-5\"");
}

TEST_CASE(
    "a recording has settled when it was left alone for long enough, by a clock that is not ahead of ours") {
  const std::chrono::system_clock::time_point now{std::chrono::hours(1000)};
  const auto settled = [&](std::chrono::nanoseconds mtime) {
    return has_settled({.device = 1, .inode = 2, .size = 3, .mtime_ns = mtime.count()}, now,
                       std::chrono::minutes(1));
  };
  CHECK(settled(now.time_since_epoch() - std::chrono::minutes(1)));
  CHECK_FALSE(settled(now.time_since_epoch() - std::chrono::minutes(1) + std::chrono::nanoseconds(1)));
  CHECK_FALSE(settled(now.time_since_epoch()));
  CHECK_FALSE(settled(std::chrono::nanoseconds::max()));
  CHECK(settled(std::chrono::nanoseconds::min()));
  CHECK(settled(std::chrono::nanoseconds(0)));
}

TEST_CASE("If-None-Match compares weakly, and If-Match strongly, with every ETag of the list") {
  for (const auto comparison : {Comparison::kWeak, Comparison::kStrong}) {
    CHECK(is_listed("\"a\"", "\"a\"", comparison));
    CHECK(is_listed("\"b\" , \"a\"", "\"a\"", comparison));
    CHECK(is_listed(" * ", "\"a\"", comparison));
    CHECK_FALSE(is_listed("\"b\"", "\"a\"", comparison));
    CHECK_FALSE(is_listed("a", "\"a\"", comparison));
    CHECK_FALSE(is_listed(",,", "\"a\"", comparison));
  }
  CHECK(is_listed("W/\"a\"", "\"a\"", Comparison::kWeak));
  CHECK_FALSE(is_listed("W/\"a\"", "\"a\"", Comparison::kStrong));
}

TEST_CASE("conditions decide: nothing new, a part, or the whole") {
  const auto range = parse_range("bytes=2-3");
  CHECK(decide({}, 10, "\"a\"").kind == Kind::kWhole);
  CHECK(decide({}, 10, "\"a\"").slice == Slice{0, 10});
  CHECK(decide({.range = range, .if_range = {}, .if_none_match = {}, .if_match = {}}, 10, "\"a\"").slice ==
        Slice{2, 4});
  CHECK(decide({.range = range, .if_range = {}, .if_none_match = {}, .if_match = {}}, 2, "\"a\"").kind ==
        Kind::kNotSatisfiable);
  CHECK(
      decide({.range = range, .if_range = "\"a\"", .if_none_match = {}, .if_match = {}}, 10, "\"a\"").kind ==
      Kind::kPart);
  for (const char* const other : {"\"b\"", "W/\"a\"", "Sat, 28 Nov 2026 05:04:07 GMT"})
    CHECK(decide({.range = range, .if_range = other, .if_none_match = {}, .if_match = {}}, 2, "\"a\"").kind ==
          Kind::kWhole);
  CHECK(decide({.range = range, .if_range = {}, .if_none_match = "\"a\"", .if_match = {}}, 2, "\"a\"").kind ==
        Kind::kNotModified);
  CHECK(
      decide({.range = range, .if_range = {}, .if_none_match = "\"b\"", .if_match = {}}, 10, "\"a\"").kind ==
      Kind::kPart);
  const auto with_match = [&](const char* if_match, const char* if_none_match) {
    return decide({.range = range, .if_range = {}, .if_none_match = if_none_match, .if_match = if_match}, 10,
                  "\"a\"")
        .kind;
  };
  CHECK(with_match("\"a\"", "") == Kind::kPart);
  CHECK(with_match("\"b\"", "") == Kind::kOtherVersion);
  CHECK(with_match("\"b\"", "\"a\"") == Kind::kOtherVersion);
  CHECK(with_match("*", "\"a\"") == Kind::kNotModified);
  // Nothing of an empty recording can be asked for, and so any of it is all of it.
  const Conditions slice{
      .range = parse_range("bytes=0-524287"), .if_range = {}, .if_none_match = {}, .if_match = {}};
  CHECK(decide(slice, 0, "\"a\"").kind == Kind::kWhole);
}

TEST_CASE("a target names a recording, a disk's recording, or a page, and nothing else") {
  using Page = Target::Page;
  const RecordingId id{3, 1842086};
  for (const auto& [text, disk] :
       std::vector<std::pair<std::string, std::string>>{{"/00000003001c1ba6", ""},
                                                        {"/3/1842086", ""},
                                                        {"/3/1842086?t=5", ""},
                                                        {"/disk1/00000003001c1ba6", "disk1"},
                                                        {"/d.i-s_k/3/1842086", "d.i-s_k"},
                                                        {"/disk%31/%33/1842086?x=%zz", "disk1"},
                                                        {"http://host:80/3/1842086", ""},
                                                        {"HTTPS://[::1]/disk1/3%2f1842086?y", "disk1"}}) {
    CAPTURE(text);
    const auto target = parse_target(text);
    REQUIRE(target);
    CHECK((target->page == Page::kRecording && target->disk == disk && target->recording == id));
  }
  CHECK(parse_target("/abcdefabcdefabcd")->recording == RecordingId::from_composite(0xabcdefabcdefabcd));
  CHECK(parse_target("/healthz")->page == Page::kHealth);
  CHECK(parse_target("/healthz/disk1")->disk == "disk1");
  CHECK(parse_target("/metrics")->page == Page::kMetrics);
  for (const char* const wrong : {"",
                                  "/",
                                  "*",
                                  "3/1",
                                  "http://here",
                                  "ftp://here/3/1",
                                  "/%3/1",
                                  "/3/1%",
                                  "/3/1%0",
                                  "/3/1%0g",
                                  "/3/1%00",
                                  "//3/1",
                                  "/3/1/",
                                  "/3",
                                  "/a/b/3/1",
                                  "/00000003001c1ba",
                                  "/metrics/x",
                                  "/healthz/",
                                  "/disk1",
                                  "/disk1/",
                                  "/../../etc/passwd",
                                  "/%2e%2e/3/1",
                                  "/d sk/3/1",
                                  "/3/-1",
                                  "/3/4294967296"}) {
    CAPTURE(wrong);
    CHECK_FALSE(parse_target(wrong));
  }
  for (const char* const wrong : {"", "1", "1disk", "healthz", "metrics", "a/b", "a b", "-a"})
    CHECK_FALSE(is_disk_name(wrong));
}

}  // namespace
}  // namespace nvr::streamer
