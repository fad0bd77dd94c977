#include "tools/cat/options.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include "tools/common/command_line.h"

namespace nvr::tools {
namespace {

constexpr std::uint64_t kLastOffset = std::numeric_limits<std::int64_t>::max();  // of any file
constexpr double kLongestTimeoutS = 1e8;  // three years; keeps the sum with now() in range

const std::map<std::string, Priority> kPriorities = {{"live", Priority::kLive},
                                                     {"playback", Priority::kPlayback},
                                                     {"export", Priority::kExport},
                                                     {"scrub", Priority::kScrub}};

const std::map<std::string, CachePolicy> kCachePolicies = {
    {"normal", CachePolicy::kNormal}, {"drop", CachePolicy::kDrop}, {"direct", CachePolicy::kDirect}};

Result<std::uint64_t> parse_offset(std::string_view text) {
  std::uint64_t value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  if (end != last || error == std::errc::invalid_argument)
    return fail(Code::kInvalidArgument,
                "--range wants START-END in bytes, END exclusive, or START-: 0-65536, 65536-");
  if (error == std::errc::result_out_of_range || value > kLastOffset)
    return fail(Code::kOutOfRange,
                fmt::format("--range: {} is beyond the end of any file (2^63 - 1 bytes)", text));
  return value;
}

// Prints the one line and gives the exit code. A malformed argument is a usage error, whatever it is about.
tl::unexpected<int> refuse(const Error& error) {
  fmt::print(stderr, "nvr-cat: {}\n", error.message);
  return tl::unexpected(error.code == Code::kInvalidArgument ? kExitUsage : exit_code_of(error.code));
}

}  // namespace

Result<ByteRange> parse_range(std::string_view text) {
  const auto dash = text.find('-');
  // Without a dash the whole text goes to parse_offset as a number and an empty one, which it refuses.
  const auto begin = parse_offset(text.substr(0, dash));
  if (!begin && begin.error().code == Code::kInvalidArgument) return tl::unexpected(begin.error());
  if (begin && dash + 1 == text.size()) return ByteRange{.begin = *begin, .end = kToEnd};
  const auto end = parse_offset(dash == std::string_view::npos ? "" : text.substr(dash + 1));
  if (!end) return tl::unexpected(end.error());
  if (!begin) return tl::unexpected(begin.error());
  return ByteRange{.begin = *begin, .end = *end};
}

tl::expected<CatOptions, int> parse_cat_options(int argc, char** argv) {
  CatOptions options;
  std::string id;
  std::string range;
  std::string priority = "playback";
  std::string cache = "normal";
  double timeout_s = 0;
  double resume_s = 0;
  double follow_s = 0;

  CLI::App app("Streams a recording, or a range of it, from nvr-readerd to standard output.", "nvr-cat");
  app.footer(
      "Exit codes: 0 done, 1 other, 2 usage, 3 NotFound, 4 OutOfRange, 5 DataLoss, 6 Unavailable,\n"
      "7 DeadlineExceeded, 8 PermissionDenied, 9 ResourceExhausted.");
  app.add_option("ID", id, "16 hex digits, as the file is named, or STREAM/RECORDING in decimal")->required();
  app.add_option("--socket", options.socket, "Socket of the daemon that owns the disk")
      ->envname("NVR_SOCKET")
      ->required()
      ->option_text("PATH");
  auto* const range_option =
      app.add_option("--range", range,
                     "Bytes to read, END exclusive, or to the end (default: the whole recording)")
          ->option_text("START-[END]");
  auto* const timeout =
      app.add_option("--timeout", timeout_s, "How long to wait for each chunk (default: as long as it takes)")
          ->option_text("SECONDS");
  auto* const resume =
      app.add_option("--resume", resume_s,
                     "Go on where it was when the daemon is restarted; give up after so long without one")
          ->option_text("SECONDS");
  auto* const follow =
      app.add_option("--follow", follow_s,
                     "The recording is still being written: print it as it grows, and end once it has not\n"
                     "grown for so long")
          ->option_text("SECONDS");
  app.add_option("--priority", priority, "How urgent the reads are (default: playback)")
      ->check(CLI::IsMember(kPriorities))
      ->option_text("live|playback|export|scrub");
  app.add_option(
         "--cache", cache,
         "What reading leaves in the daemon's page cache: normal, drop (what was there before, for exports)\n"
         "or direct (nothing, it goes past it; needs --engine io_uring)")
      ->check(CLI::IsMember(kCachePolicies))
      ->option_text("normal|drop|direct");
  if (const auto code = parse_command_line(app, argc, argv)) return tl::unexpected(*code);

  const auto recording = RecordingId::parse(id);
  if (!recording) return refuse(recording.error());
  options.request.recording = *recording;
  options.request.cache = kCachePolicies.at(cache);
  options.request.priority = kPriorities.at(priority);
  if (range_option->count() > 0) {
    const auto bytes = parse_range(range);
    if (!bytes) return refuse(bytes.error());
    options.request.begin = bytes->begin;
    options.request.end = bytes->end;
  }
  if (timeout->count() > 0) {
    if (!(timeout_s > 0))
      return refuse(
          {.code = Code::kInvalidArgument, .message = "--timeout wants a number of seconds above 0"});
    options.timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(std::min(timeout_s, kLongestTimeoutS)));
  }
  if (resume->count() > 0) {
    if (!(resume_s > 0))
      return refuse(
          {.code = Code::kInvalidArgument, .message = "--resume wants a number of seconds above 0"});
    options.resume = std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::duration<double>(std::min(resume_s, kLongestTimeoutS)));
  }
  if (follow->count() > 0) {
    if (!(follow_s > 0))
      return refuse(
          {.code = Code::kInvalidArgument, .message = "--follow wants a number of seconds above 0"});
    options.request.follow = std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::duration<double>(std::min(follow_s, kLongestTimeoutS)));
  }
  return options;
}

}  // namespace nvr::tools
