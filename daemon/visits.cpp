#include "daemon/visits.h"

#include <algorithm>

namespace nvr::daemon {
namespace {

// What a visit costs its class: the inverse of live 8, playback 4, export 2, scrub 1.
constexpr std::array<std::uint64_t, kPriorities> kCost = {1, 2, 4, 8};

}  // namespace

void Visits::want(Visitor& visitor, const Wish& wish) {
  remove(visitor);
  visitor.priority_ = wish.priority;
  visitor.position_ = wish.position;
  visitor.deadline_ns_ = wish.deadline_ns;
  visitor.bytes_left_ = wish.bytes;
  auto& joined = classes_[static_cast<std::size_t>(wish.priority)];
  // Who wanted nothing for a while has not saved up turns.
  if (joined.empty()) joined.time = std::max(joined.time, time_);
  joined.waiting.push_back(visitor);
}

Visitor* Visits::next(std::uint64_t now_ns, std::uint64_t visit_ns) {
  if (!current_.empty()) return &current_.front();
  Visitor* const chosen = choose(now_ns, visit_ns);
  if (chosen == nullptr) return nullptr;
  const auto priority = static_cast<std::size_t>(chosen->priority_);
  time_ = classes_[priority].time;
  classes_[priority].time += kCost[priority];
  remove(*chosen);
  current_.push_back(*chosen);
  ++count_;
  return chosen;
}

void Visits::advance(Visitor& visitor, std::uint64_t bytes, bool has_more) {
  visitor.bytes_left_ -= std::min(bytes, visitor.bytes_left_);
  if (visitor.bytes_left_ == 0 || !has_more) remove(visitor);
}

Visitor* Visits::choose(std::uint64_t now_ns, std::uint64_t visit_ns) {
  if (Visitor* const urgent = most_urgent(now_ns, visit_ns)) return urgent;
  Class* const turn = class_in_turn();
  if (turn == nullptr) return nullptr;
  if (turn->batch.empty()) {
    turn->batch.swap(turn->waiting);
    if (order_ == Order::kSweep)
      turn->batch.sort([](const Visitor& a, const Visitor& b) { return a.position_ < b.position_; });
  }
  return &turn->batch.front();
}

// The one with the earliest deadline, if that would come before the batch is through.
Visitor* Visits::most_urgent(std::uint64_t now_ns, std::uint64_t visit_ns) {
  if (order_ == Order::kFifo) return nullptr;
  Visitor* first = nullptr;
  std::uint64_t visits = 2;  // the one under way, and its own
  for (Class& each : classes_) {
    for (Queue* const queue : {&each.batch, &each.waiting}) {
      for (Visitor& visitor : *queue) {
        ++visits;
        if (first == nullptr || visitor.deadline_ns_ < first->deadline_ns_) first = &visitor;
      }
    }
  }
  return first != nullptr && first->deadline_ns_ != UINT64_MAX &&
                 first->deadline_ns_ <= now_ns + visits * visit_ns
             ? first
             : nullptr;
}

Visits::Class* Visits::class_in_turn() {
  Class* turn = nullptr;
  for (Class& each : classes_)
    if (!each.empty() && (turn == nullptr || each.time < turn->time)) turn = &each;
  return turn;
}

bool Visits::empty() const {
  return current_.empty() && std::ranges::all_of(classes_, [](const Class& each) { return each.empty(); });
}

}  // namespace nvr::daemon
