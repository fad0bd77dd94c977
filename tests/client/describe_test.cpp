// An error descriptor becomes an Error with its code, errno, offset and sentence.
#include "client/src/describe.h"

#include <errno.h>

#include <catch2/catch.hpp>

namespace nvr::internal {
namespace {

constexpr auto number(Code code) {
  return static_cast<std::uint16_t>(code);
}

TEST_CASE("describe: where the bytes stop being good, and only there, is an offset") {
  shm::Descriptor descriptor{.kind = shm::DescriptorKind::kError,
                             .code = number(Code::kDataLoss),
                             .sys_errno = 5,
                             .offset = 65536,
                             .file_size = 100};
  const OpenRequest request{.recording = {1, 2}, .begin = 10};
  const auto described = [&](shm::Detail detail) {
    descriptor.detail = detail;
    return describe(descriptor, request, "/video");
  };
  for (const auto detail : {shm::Detail::kReadFailed, shm::Detail::kTruncated}) {
    const Error error = described(detail);
    CHECK(error.code == Code::kDataLoss);
    CHECK(error.sys_errno == 5);
    CHECK(error.offset == 65536);
    CHECK_THAT(error.message, Catch::Contains("1/2") && Catch::Contains("65536") &&
                                  Catch::Contains("/video/0000000100000002"));
  }
  for (const auto detail :
       {shm::Detail::kNone, shm::Detail::kOpenFailed, shm::Detail::kNotRegular, shm::Detail::kRangeBeyondEnd,
        shm::Detail::kMapFailed, static_cast<shm::Detail>(99)})
    CHECK(described(detail).offset == kNoOffset);
}

TEST_CASE("describe: of too many open files the bound is named, and what raises it") {
  const auto described = [](int sys_errno, std::uint64_t bound) {
    return describe({.kind = shm::DescriptorKind::kError,
                     .code = number(Code::kResourceExhausted),
                     .detail = shm::Detail::kTooManyOpen,
                     .sys_errno = sys_errno,
                     .file_size = bound},
                    {.recording = {1, 2}}, "/video");
  };
  using Catch::Contains;
  CHECK_THAT(described(0, 366).message, Contains("1/2") && Contains("one user may have (366)") &&
                                            Contains("LimitNOFILE=") && Contains("end other streams"));
  CHECK_THAT(described(EMFILE, 700).message, Contains("as it may have (700)") && Contains("ulimit -n"));
  CHECK_THAT(described(EMFILE, 0).message, Contains("as it may have: "));
  CHECK_THAT(described(ENFILE, 0).message, Contains("fs.file-max"));
  CHECK(described(0, 366).code == Code::kResourceExhausted);
  CHECK(described(0, 366).offset == kNoOffset);
}

TEST_CASE("describe: every code of the daemon is itself, unless callers would go on after it") {
  for (std::uint32_t code = 0; code < 20; ++code) {
    const bool can_be = code >= 1 && code <= 15 && code != number(Code::kDeadlineExceeded);
    CHECK(checked_code(code) == (can_be ? static_cast<Code>(code) : Code::kUnknown));
  }
}

TEST_CASE("describe: a stall is told with its age, unless it began after the look") {
  const shm::OldestOperation read{
      .operation = shm::DiskOperation::kRead, .since_ns = 1'000'000'000, .recording = 7, .offset = 65536};
  CHECK(describe_stall(read, 4'200'000'000) ==
        "; the disk has been stuck for 3.2 s on a read from 0/7 at offset 65536");
  CHECK(describe_stall(read, 999'999'999).empty());
  CHECK(describe_stall(std::nullopt, 4'200'000'000).empty());
  shm::OldestOperation counted = read;
  counted.stuck_ns = counted.silent_ns = 5'100'000'000;
  for (const std::uint64_t now_ns : {std::uint64_t{1}, std::uint64_t{1} << 60})  // whatever clock that is
    CHECK_THAT(describe_stall(counted, now_ns), Catch::Contains("stuck for 5.1 s"));
  counted.silent_ns = 1'000'000'000;
  CHECK_THAT(describe_stall(counted, 0), Catch::Contains("the disk has been stuck for 5.1 s"));
  counted.silent_ns = 999'999'999;
  CHECK_THAT(describe_stall(counted, 0), Catch::Contains("one operation has been stuck for 5.1 s"));
  shm::OldestOperation open = read;
  open.operation = shm::DiskOperation::kOpen;
  CHECK_THAT(describe_stall(open, 4'200'000'000), Catch::Contains("3.2 s on opening 0/7"));
}

}  // namespace
}  // namespace nvr::internal
