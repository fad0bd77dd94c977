// What a viewer asks of a recording: the request's target, Range, If-Range and If-None-Match, one a line,
// after two bytes that tell how long the recording is.
#include "tools/streamer/range.h"

#include "tests/fuzz/target.h"
#include "tools/streamer/target.h"

namespace nvr::test {
namespace {

using namespace streamer;

constexpr std::string_view kEtag = "\"1-2-3-4\"";

std::string written(const Target& target) {
  const std::string disk = target.disk.empty() ? "" : "/" + target.disk;
  switch (target.page) {
    case Target::Page::kHealth:
      return "/healthz" + disk;
    case Target::Page::kMetrics:
      return "/metrics";
    case Target::Page::kRecording:
      break;
  }
  return disk + "/" + to_string(target.recording);
}

void check_target(std::string_view text, Judgement& judgement) {
  const auto target = parse_target(text);
  if (!target) return judgement.reach("target refused");
  constexpr const char* kNames[] = {"recording", "health", "metrics"};
  judgement.reach(std::string(kNames[static_cast<int>(target->page)]) +
                  (target->disk.empty() ? "" : " of a disk"));
  judgement.require(target->disk.empty() || is_disk_name(target->disk), "a disk that cannot be called that");
  const auto again = parse_target(written(*target));
  judgement.require(again && again->page == target->page && again->disk == target->disk &&
                        again->recording == target->recording,
                    "a target is read back as another");
}

std::string written(const RangeHeader& range) {
  if (range.is_suffix) return "bytes=-" + std::to_string(range.first);
  return "bytes=" + std::to_string(range.first) + "-" + (range.last ? std::to_string(*range.last) : "");
}

void check_range(std::string_view text, std::uint64_t size, Judgement& judgement) {
  const auto range = parse_range(text);
  if (!range) return judgement.reach("range ignored");
  judgement.require(parse_range(written(*range)) == range, "a range is read back as another");
  judgement.reach(range->is_suffix ? "suffix" : range->last ? "range" : "range to the end");
  const auto slice = resolve(*range, size);
  if (!slice) {
    const bool is_empty = range->is_suffix ? range->first == 0 || size == 0 : range->first >= size;
    return judgement.require(is_empty, "bytes that there are were refused");
  }
  judgement.require(slice->begin < slice->end && slice->end <= size, "a slice beyond the recording");
  if (range->is_suffix)
    judgement.require(slice->end == size && slice->end - slice->begin <= range->first, "not the last bytes");
  else
    judgement.require(slice->begin == range->first && slice->end - 1 <= range->last.value_or(UINT64_MAX),
                      "bytes that were not asked for");
}

void check_decision(const Conditions& conditions, std::uint64_t size, Judgement& judgement) {
  using Kind = Decision::Kind;
  constexpr const char* kNames[] = {"whole", "part", "not modified", "not satisfiable", "other version"};
  const Decision decision = decide(conditions, size, kEtag);
  judgement.reach(kNames[static_cast<int>(decision.kind)]);
  const Slice slice = decision.slice;
  if (decision.kind == Kind::kWhole) judgement.require(slice == Slice{0, size}, "not the whole");
  if (decision.kind == Kind::kPart)
    judgement.require(conditions.range && slice.begin < slice.end && slice.end <= size, "not a part");
  judgement.require(decision.kind != Kind::kOtherVersion || !conditions.if_match.empty(),
                    "another than which?");
  const bool is_conditional = !conditions.if_none_match.empty();
  judgement.require(decision.kind != Kind::kNotModified || is_conditional, "not modified since when?");
}

void run(std::span<const std::byte> input, Judgement& judgement) {
  Program program(input);
  const std::uint64_t factor = program.take<std::uint8_t>();
  const std::uint64_t size = factor << program.upto(55);
  std::string_view lines = text_of(program.take_bytes(input.size()));
  check_target(take_line(lines), judgement);
  const std::string_view range = take_line(lines);
  check_range(range, size, judgement);
  Conditions conditions{.range = parse_range(range), .if_range = {}, .if_none_match = {}, .if_match = {}};
  conditions.if_range = take_line(lines);
  conditions.if_none_match = take_line(lines);
  conditions.if_match = take_line(lines);
  check_decision(conditions, size, judgement);
}

}  // namespace

const FuzzTarget range_target = {
    "range",
    run,
    {"target refused", "recording", "recording of a disk", "health", "health of a disk", "metrics",
     "range ignored", "suffix", "range", "range to the end", "whole", "part", "not modified",
     "not satisfiable", "other version"}};

}  // namespace nvr::test
