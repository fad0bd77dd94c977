// Names of recordings, and the errno mapper.
#include "nvr/recording.h"

#include <catch2/catch.hpp>
#include <cerrno>

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
  CHECK(code_from_errno(ENOENT) == Code::kNotFound);
  CHECK(code_from_errno(EACCES) == Code::kPermissionDenied);
  CHECK(code_from_errno(EIO) == Code::kDataLoss);
  CHECK(code_from_errno(ELOOP) == Code::kFailedPrecondition);
  CHECK(code_from_errno(EMFILE) == Code::kResourceExhausted);
  CHECK(code_from_errno(EPIPE) == Code::kUnavailable);
  CHECK(code_from_errno(12345) == Code::kInternal);
  const Error error = fail_errno(ENOENT, "cannot open x").value();
  CHECK(error.sys_errno == ENOENT);
  CHECK(error.message.find("cannot open x: No such file") == 0);
  CHECK(to_string(Code::kDataLoss) == "DataLoss");
  CHECK(to_string(static_cast<Code>(99)) == "Unknown");
}

}  // namespace
}  // namespace nvr
