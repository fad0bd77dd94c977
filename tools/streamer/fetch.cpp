#include "tools/streamer/fetch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace nvr::streamer {
namespace {

using Kind = Decision::Kind;

// What a probe reads of a recording whose beginning nobody asked for: enough to see what it is.
constexpr std::uint64_t kProbeBytes = 4096;
// A disk that is in trouble may still have it in memory, or, with io_uring, stand still at one place only.
constexpr auto kGrace = std::chrono::seconds(1);
// How often a recording may turn out to be another file than it was a moment ago.
constexpr int kMostRounds = 5;

bool is_not_yet(const Stream::NextResult& next) {
  return next && !*next && next->error().code == Code::kDeadlineExceeded;
}

bool looks_like_mp4(std::span<const std::byte> bytes) {
  return bytes.size() >= 8 && std::memcmp(bytes.data() + 4, "ftyp", 4) == 0;
}

}  // namespace

bool is_same(const RecordingInfo& a, const RecordingInfo& b) {
  const bool births_known = a.birth_ns != 0 && b.birth_ns != 0;
  return a.device == b.device && a.inode == b.inode && a.size == b.size && a.mtime_ns == b.mtime_ns &&
         (!births_known || a.birth_ns == b.birth_ns);
}

std::string text_for_viewer(const std::optional<Trouble>& trouble, std::string_view otherwise) {
  if (!trouble) return std::string(otherwise);
  const bool is_disk =
      trouble->kind == Trouble::Kind::kStuck || trouble->kind == Trouble::Kind::kOperationStuck;
  return is_disk ? trouble->text : "its daemon does not answer";
}

Refusal refusal_of(const Disk& disk, const Error& error) {
  const auto refusal = [&](unsigned status, std::string_view text) {
    return Refusal{
        .status = status, .text = fmt::format("disk {}: {}", disk.name(), text), .detail = error.message};
  };
  switch (error.code) {
    case Code::kNotFound:
      return refusal(404, "there is no such recording");
    case Code::kFailedPrecondition:
      return refusal(404, "that is not a regular file");
    case Code::kPermissionDenied:
      return refusal(403, "that may not be read");
    case Code::kResourceExhausted:
      return refusal(503, "there is no place for one more at the moment");
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
      return refusal(503, text_for_viewer(disk.trouble(), "it is not available"));
    default:
      return refusal(500, "the recording cannot be read");
  }
}

template <class Function>
void Fetch::for_each_loan(Function&& function) const {
  if (opening_) function(*opening_->loan);
  for (const Probe& probe : probes_) {
    if (probe.loan) function(*probe.loan);
  }
}

Fetch::Fetch(FetchRequest request, const FetchSettings& settings, DiskListener& listener)
    : request_(std::move(request)), settings_(settings), listener_(listener) {
  begin();
}

// What is known already saves the look at the beginning, where a range is all that is asked for: whether it
// is still so is seen at the open. Other conditions, and sizes, are told from nothing but a fresh look.
void Fetch::begin() {
  ++rounds_;
  probes_.clear();
  opening_.reset();
  const auto holder = std::ranges::find_if(
      request_.disks, [&](const Disk* disk) { return disk->find_known(request_.recording) != nullptr; });
  if (holder != request_.disks.end() && request_.wants_body && request_.conditions.if_none_match.empty() &&
      request_.conditions.if_match.empty()) {
    Found found = found_on(**holder, *(*holder)->find_known(request_.recording));
    if (found.decision.kind == Kind::kPart) return open_slice(std::move(found));
  }
  // Whoever wants the beginning anyway gets it from the probe's own stream.
  const auto& range = request_.conditions.range;
  const bool wants_beginning = request_.wants_body && (!range || (!range->is_suffix && range->first == 0));
  for (Disk* const disk : request_.disks) {
    probes_.push_back({.disk = disk,
                       .end = wants_beginning ? kToEnd : kProbeBytes,
                       .loan = nullptr,
                       .error = std::nullopt});
    start(probes_.back());
  }
}

std::optional<Fetch::Outcome> Fetch::poll() {
  if (auto outcome = poll_once()) return outcome;
  if (auto refusal = give_up()) return Outcome(std::move(*refusal));
  for_each_loan([&](const Loan& loan) {
    if (!loan.is_queued()) loan.disk().listen(listener_);
  });
  return std::nullopt;
}

std::optional<Fetch::Outcome> Fetch::poll_once() {
  return opening_ ? poll_slice() : poll_probes();
}

// ---- Finding it
// ------------------------------------------------------------------------------------------------------

// The request keeps its place in the queue, however many streams it needs, one after another.
std::unique_ptr<Loan> Fetch::borrow(Disk& disk, std::uint64_t begin, std::uint64_t end) {
  const OpenRequest request{.recording = request_.recording, .begin = begin, .end = end};
  return std::make_unique<Loan>(disk, request, started_, listener_);
}

void Fetch::start(Probe& probe) {
  probe.loan = borrow(*probe.disk, 0, probe.end);
}

std::optional<Fetch::Outcome> Fetch::poll_probes() {
  bool is_waiting = false;
  for (Probe& probe : probes_) {
    if (!probe.loan) continue;
    if (auto outcome = poll_probe(probe)) return outcome;
    if (opening_) return poll_slice();
    is_waiting = is_waiting || probe.loan;
  }
  if (is_waiting) return std::nullopt;
  return Outcome(refuse_all());
}

std::optional<Fetch::Outcome> Fetch::poll_probe(Probe& probe) {
  const auto lent = probe.loan->poll();
  if (!lent) {
    probe.loan.reset();
    probe.error = lent.error();
    return std::nullopt;
  }
  if (*lent == nullptr) return std::nullopt;
  Stream& stream = **lent;
  auto next = stream.try_next();
  if (is_not_yet(next)) return std::nullopt;
  if (next && !*next) return on_probe_failed(probe, stream, std::move(next->error()));
  const auto info = stream.info(Clock::now());  // there by now: the file is open
  if (!info) return on_probe_failed(probe, stream, info.error());
  const Known known{.info = *info, .is_mp4 = next && looks_like_mp4((*next)->bytes())};
  probe.disk->learn(request_.recording, known);
  std::optional<Chunk> first;
  if (next) first.emplace(std::move(**next));
  return on_known(probe, known, std::move(first));
}

std::optional<Fetch::Outcome> Fetch::on_probe_failed(Probe& probe, Stream& stream, Error error) {
  const auto info = stream.info(Clock::now());
  // Its first bytes cannot be read: who wants others may have them all the same.
  if (info && request_.wants_body && probe.end == kProbeBytes)
    return on_known(probe, {.info = *info, .is_mp4 = false}, std::nullopt);
  probe.loan.reset();
  probe.disk->unlearn(request_.recording);
  if (error.code == Code::kOutOfRange && probe.end == kProbeBytes) {  // it is a small one
    probe.end = kToEnd;
    start(probe);
    return poll_probe(probe);
  }
  probe.error = std::move(error);
  return std::nullopt;
}

// A disk that may have it and cannot say so matters more than those that have it not.
Refusal Fetch::refuse_all() const {
  const auto worst = std::ranges::find_if(
      probes_, [](const Probe& probe) { return probe.error && probe.error->code != Code::kNotFound; });
  if (worst != probes_.end()) return refusal_of(*worst->disk, *worst->error);
  if (probes_.size() == 1) return refusal_of(*probes_.front().disk, *probes_.front().error);
  return {.status = 404,
          .text = fmt::format("there is no recording {} on any of the {} disks",
                              to_string(request_.recording), probes_.size()),
          .detail = {}};
}

// ---- What to send of it
// -----------------------------------------------------------------------------------------------

Found Fetch::found_on(Disk& disk, const Known& known) const {
  Conditions conditions = request_.conditions;
  if (!request_.wants_body) conditions.range.reset();  // ranges are for GET only
  std::string etag = etag_of(known.info, settings_.etags_for_replicas);
  const Decision decision = decide(conditions, known.info.size, etag);
  return {.disk = &disk,
          .known = known,
          .etag = std::move(etag),
          .decision = decision,
          .loan = nullptr,
          .first = std::nullopt};
}

// `first`: what the probe has delivered.
std::optional<Fetch::Outcome> Fetch::on_known(Probe& probe, const Known& known, std::optional<Chunk> first) {
  Found found = found_on(*probe.disk, known);
  const Slice slice = found.decision.slice;
  if (!request_.wants_body || slice.begin == slice.end) return Outcome(std::move(found));
  if (first && slice.begin == 0 && probe.end == kToEnd) {
    found.loan = std::move(probe.loan);
    found.first = std::move(first);
    return Outcome(std::move(found));
  }
  open_slice(std::move(found));
  return std::nullopt;
}

void Fetch::open_slice(Found found) {
  for (Probe& probe : probes_) probe.loan.reset();
  opening_.emplace(std::move(found));
  const Slice slice = opening_->decision.slice;
  opening_->loan = borrow(*opening_->disk, slice.begin, slice.end);
}

std::optional<Fetch::Outcome> Fetch::poll_slice() {
  const auto lent = opening_->loan->poll();
  if (!lent) return Outcome(refusal_of(*opening_->disk, lent.error()));
  if (*lent == nullptr) return std::nullopt;
  Stream& stream = **lent;
  auto next = stream.try_next();
  if (is_not_yet(next)) return std::nullopt;
  if (next && !*next) {
    const Code code = next->error().code;
    const bool has_changed =
        code == Code::kOutOfRange || code == Code::kNotFound || code == Code::kFailedPrecondition;
    if (has_changed) return begin_again();
    return Outcome(refusal_of(*opening_->disk, next->error()));
  }
  const auto info = stream.info(Clock::now());  // there by now
  if (!next || !info || !is_same(*info, opening_->known.info)) return begin_again();
  opening_->first.emplace(std::move(**next));
  return Outcome(std::move(*opening_));
}

// It is not, or no longer, what it was when it was last looked at.
std::optional<Fetch::Outcome> Fetch::begin_again() {
  opening_->disk->unlearn(request_.recording);
  if (rounds_ < kMostRounds) {
    begin();
    return poll_once();
  }
  return Outcome(
      Refusal{.status = 503,
              .text = fmt::format("recording {} changes all the time", to_string(request_.recording)),
              .detail = {}});
}

// ---- Waiting
// -------------------------------------------------------------------------------------------------------------

std::optional<Refusal> Fetch::give_up() const {
  const auto waited = Clock::now() - started_;
  if (waited < std::min<std::chrono::nanoseconds>(kGrace, settings_.timeout)) return std::nullopt;
  bool all_are_silent = true;
  for_each_loan([&](const Loan& loan) {
    const auto trouble = loan.disk().trouble();
    all_are_silent = all_are_silent && trouble && trouble->silence() >= settings_.timeout;
  });
  if (waited < settings_.timeout && !all_are_silent) return std::nullopt;
  Refusal refusal{.status = 503, .text = {}, .detail = {}};
  for_each_loan([&](const Loan& loan) {
    const auto trouble = loan.disk().trouble();
    const char* const otherwise =
        loan.is_queued() ? "all its streams are in use (--streams)" : "nothing arrived in time";
    refusal.text += fmt::format("{}disk {}: {}", refusal.text.empty() ? "" : "; ", loan.disk().name(),
                                text_for_viewer(trouble, otherwise));
    if (trouble) refusal.detail += (refusal.detail.empty() ? "" : "; ") + trouble->text;
  });
  return refusal;
}

}  // namespace nvr::streamer
