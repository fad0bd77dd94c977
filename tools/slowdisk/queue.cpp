#include "tools/slowdisk/queue.h"

#include <algorithm>

namespace nvr::slowdisk {
namespace {

// Smaller is better.
std::uint64_t way(const Request& request, std::uint64_t head, Policy policy) {
  switch (policy) {
    case Policy::kElevator:
      return request.position - head;  // wraps around for what lies behind the head: last, lowest first
    case Policy::kNearest:
      return std::max(request.position, head) - std::min(request.position, head);
    case Policy::kFifo:
      return 0;
  }
  return 0;
}

}  // namespace

std::optional<std::size_t> pick(std::span<const Request* const> waiting, std::uint64_t head, Time now,
                                const QueueOptions& options) {
  if (waiting.empty()) return std::nullopt;
  if (now - waiting.front()->arrived > options.longest_wait) return 0;
  const auto known =
      waiting.first(std::min<std::size_t>(waiting.size(), std::max<std::uint64_t>(options.depth, 1)));
  // The first of equals: the oldest.
  const auto best =
      std::min_element(known.begin(), known.end(), [&](const Request* one, const Request* other) {
        return way(*one, head, options.policy) < way(*other, head, options.policy);
      });
  return static_cast<std::size_t>(best - known.begin());
}

}  // namespace nvr::slowdisk
