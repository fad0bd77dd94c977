#include "daemon/read_ahead.h"

#include <algorithm>
#include <utility>

#include "shm/clock.h"

namespace nvr::daemon {
namespace {

// A camera of 8 Mbit/s; and what a stream has had after its first visits (kFirstVisitBytes and four times
// that), before its reader's pace can be told.
constexpr std::uint64_t kPresumedBytesPerS = 1'000'000;
constexpr std::uint64_t kPresumedBytes = 4 << 20;

}  // namespace

void ReadAhead::start(std::uint64_t begin, std::uint64_t end, std::uint64_t now_ns) {
  needed_ = failed_ = false;
  end_ = end;
  asked_until_ = until_ = paced_from_ = began_at_ = begin;
  paced_from_ns_ = began_ns_ = now_ns;
  waited_ns_ = waits_since_ns_ = 0;
}

void ReadAhead::miss(std::uint64_t at) {
  needed_ = true;
  asked_until_ = until_ = at;
}

void ReadAhead::prepare(Operation& operation, std::uint64_t bytes) {
  operation.kind = Operation::Kind::kPrefetch;
  operation.offset = asked_until_;
  operation.length = static_cast<std::uint32_t>(std::min(bytes, end_ - asked_until_));
  asked_until_ += operation.length;
  segments_.push_back(operation);
}

void ReadAhead::on_finished(Operation& operation, OperationPool& operations) {
  operation.finished = true;
  while (!segments_.empty() && segments_.front().finished) {
    Operation& first = segments_.front();
    if (!failed_) until_ = first.position();
    failed_ |= first.done < first.length;
    segments_.pop_front();
    operations.give_back(first);
  }
}

void ReadAhead::set_reader_waits(bool waits, std::uint64_t now_ns) {
  if (waits == (waits_since_ns_ != 0)) return;
  if (!waits) waited_ns_ += now_ns - waits_since_ns_;
  waits_since_ns_ = waits ? now_ns : 0;
}

std::uint64_t ReadAhead::deadline_ns(std::uint64_t position, std::uint64_t in_hand, std::uint64_t now_ns) {
  const bool waits = waits_since_ns_ != 0;
  set_reader_waits(false, now_ns);
  const std::uint64_t passed_ns = now_ns - std::exchange(paced_from_ns_, now_ns);
  const std::uint64_t waited_ns = std::exchange(waited_ns_, 0);
  const std::uint64_t used = position - std::exchange(paced_from_, position);
  set_reader_waits(waits, now_ns);
  if (used == 0 || waited_ns < passed_ns / 2) return UINT64_MAX;
  return now_ns + static_cast<std::uint64_t>(static_cast<double>(in_hand) / static_cast<double>(used) *
                                             static_cast<double>(passed_ns));
}

std::uint64_t ReadAhead::presumed_deadline_ns(std::uint64_t position) const {
  const std::uint64_t had = std::max(position, asked_until_) - began_at_;
  return had < kPresumedBytes ? began_ns_ + had * shm::kSecond / kPresumedBytesPerS : UINT64_MAX;
}

}  // namespace nvr::daemon
