// Names of recordings, and the errno mapper.
#include "nvr/recording.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <initializer_list>

namespace nvr {
namespace {

TEST_CASE("recording id: file name, decimal form and back") {
  const RecordingId id{3, 1842086};
  CHECK(id.composite() == 0x00000003001c1ba6);
  CHECK(file_name_of(id) == "00000003001c1ba6");
  CHECK(to_string(id) == "3/1842086");
  CHECK(RecordingId::from_composite(id.composite()) == id);
  CHECK(RecordingId::parse("3/1842086").value() == id);
  CHECK(RecordingId::parse("00000003001c1ba6").value() == id);
  CHECK(RecordingId::parse("4294967295/4294967295").value().composite() == 0xffffffffffffffff);
}

TEST_CASE("recording id: nothing else is a name") {
  for (const char* const text : {"", "/", "3/", "/3", "3", "-1/2", "3/4294967296", "3/1842086 ", " 3/1",
                                 "+3/1", "0x3/1", "00000003001C1BA6", "00000003001c1ba", "00000003001c1ba67",
                                 "../../etc/passwd", "00000003001c1bag", "3/1/2"}) {
    CAPTURE(text);
    const auto id = RecordingId::parse(text);
    REQUIRE_FALSE(id.has_value());
    CHECK(id.error().code == Code::kInvalidArgument);
    CHECK(id.error().message.find(text) != std::string::npos);
  }
}

TEST_CASE("errno: maps to the canonical code, and keeps its text") {
  const auto all_are = [](std::initializer_list<int> numbers, Code code) {
    for (const int number : numbers) {
      CAPTURE(number);
      CHECK(code_from_errno(number) == code);
    }
  };
  all_are({0}, Code::kOk);
  all_are({ENOENT}, Code::kNotFound);
  all_are({EACCES, EPERM}, Code::kPermissionDenied);
  all_are({ELOOP, ENOTDIR, EISDIR, ENXIO, ENODEV, EXDEV}, Code::kFailedPrecondition);
  all_are({EIO, EUCLEAN, EBADMSG}, Code::kDataLoss);
  all_are({ENOMEM, ENFILE, EMFILE, EFBIG, ENOSPC, EDQUOT, ENOBUFS, ETOOMANYREFS}, Code::kResourceExhausted);
  all_are({ECONNREFUSED, ECONNRESET, ECONNABORTED, EPIPE, ENOTCONN, EAGAIN, ESHUTDOWN}, Code::kUnavailable);
  all_are({ETIMEDOUT}, Code::kDeadlineExceeded);
  all_are({EINVAL}, Code::kInvalidArgument);
  all_are({EEXIST, EADDRINUSE}, Code::kAlreadyExists);
  all_are({ENOSYS, EOPNOTSUPP}, Code::kUnimplemented);
  all_are({ECANCELED}, Code::kCancelled);
  all_are({12345, EBADF}, Code::kInternal);
  const Error error = fail_errno(ENOENT, "cannot open x").value();
  CHECK(error.sys_errno == ENOENT);
  CHECK(error.message.find("cannot open x: No such file") == 0);
  CHECK(to_string(Code::kAborted) == "Aborted");
  CHECK(to_string(Code::kOutOfRange) == "OutOfRange");
  CHECK(to_string(Code::kDataLoss) == "DataLoss");
  CHECK(to_string(static_cast<Code>(99)) == "Unknown");
}

}  // namespace
}  // namespace nvr
