#include "tools/slowdisk/faults.h"

#include <errno.h>
#include <fmt/format.h>

#include <algorithm>

#include "tools/slowdisk/chance.h"

namespace nvr::slowdisk {
namespace {

bool is_about(const Order& order, std::string_view file) {
  return order.target.file.empty() || order.target.file == file;
}

bool holds_up(const Order& order) {
  return order.verb == Verb::kStall || order.verb == Verb::kLatency || order.verb == Verb::kDelay;
}

std::uint64_t cut(std::uint64_t length, std::uint64_t offset, std::uint64_t size) {
  return offset >= size ? 0 : std::min(length, size - offset);
}

}  // namespace

std::uint64_t Faults::add(const Order& order, Time now) {
  Fault fault = {.number = ++last_number_, .order = order, .until = {}, .hits = 0};
  if (order.lasting) fault.until = now + *order.lasting;
  faults_.push_back(std::move(fault));
  return last_number_;
}

void Faults::resume() {
  std::erase_if(faults_, [](const Fault& fault) { return holds_up(fault.order); });
}

void Faults::clear() {
  faults_.clear();
}

bool Faults::clear(std::uint64_t number) {
  return std::erase_if(faults_, [&](const Fault& fault) { return fault.number == number; }) > 0;
}

std::optional<Time> Faults::expire(Time now) {
  std::optional<Time> last;
  for (const Fault& fault : faults_) {
    if (fault.until && *fault.until <= now) last = std::max(last.value_or(*fault.until), *fault.until);
  }
  if (last) std::erase_if(faults_, [&](const Fault& fault) { return fault.until && *fault.until <= now; });
  return last;
}

std::optional<Time> Faults::next_expiry() const {
  std::optional<Time> next;
  for (const Fault& fault : faults_) {
    if (fault.until) next = std::min(next.value_or(*fault.until), *fault.until);
  }
  return next;
}

bool Faults::is_vanished() const {
  return std::any_of(faults_.begin(), faults_.end(),
                     [](const Fault& fault) { return fault.order.verb == Verb::kVanish; });
}

bool Faults::stalls(const Request& request) const {
  return std::any_of(faults_.begin(), faults_.end(), [&](const Fault& fault) {
    return fault.order.verb == Verb::kStall && fault.order.target.matches(request);
  });
}

bool Faults::delays(const Request& request) const {
  return std::any_of(faults_.begin(), faults_.end(), [&](const Fault& fault) {
    return holds_up(fault.order) && fault.order.target.matches(request);
  });
}

Time Faults::latency_of(const Request& request) const {
  Time latency{0};
  for (const Fault& fault : faults_) {
    if (fault.order.verb == Verb::kLatency && fault.order.target.matches(request))
      latency += fault.order.delay;
  }
  return latency;
}

Verdict Faults::judge(const Request& request) {
  Verdict verdict = {.error = 0, .delay = Time(0), .length = request.length, .faults = {}};
  for (Fault& fault : faults_) {
    if (!strikes(fault, request)) continue;
    ++fault.hits;
    apply(fault, request, verdict);
    const std::string order = to_string(fault.order);
    verdict.faults += fmt::format("{}{}:{}", verdict.faults.empty() ? "" : ",", fault.number,
                                  order.substr(0, order.find(' ')));
  }
  std::erase_if(faults_, [](const Fault& fault) {
    return fault.order.frequency == Frequency::kOnce && fault.hits > 0;
  });
  return verdict;
}

bool Faults::strikes(const Fault& fault, const Request& request) {
  const Order& order = fault.order;
  switch (order.verb) {
    case Verb::kVanish:
      return true;
    case Verb::kTruncate:
      return request.operation == Operation::kRead && is_about(order, request.file) &&
             cut(request.length, request.offset, order.size) < request.length;
    case Verb::kShort:
      if (request.length <= granule_bytes_) return false;  // cannot be any shorter
      break;
    case Verb::kDelay:
    case Verb::kEio:
    case Verb::kFail:
      break;
    default:
      return false;
  }
  if (!order.target.matches(request)) return false;
  return order.frequency != Frequency::kChance || chance(random_) < order.probability;
}

void Faults::apply(const Fault& fault, const Request& request, Verdict& verdict) const {
  switch (fault.order.verb) {
    case Verb::kVanish:
      verdict.error = EIO;
      break;
    case Verb::kEio:
    case Verb::kFail:
      verdict.error = fault.order.error;
      break;
    case Verb::kDelay:
      verdict.delay += fault.order.delay;
      break;
    case Verb::kShort: {
      const std::uint64_t half = request.length / 2 / granule_bytes_ * granule_bytes_;
      verdict.length = std::min(verdict.length, std::max(half, granule_bytes_));
      break;
    }
    case Verb::kTruncate:
      verdict.length = std::min(verdict.length, cut(request.length, request.offset, fault.order.size));
      break;
    default:
      break;
  }
}

std::uint64_t Faults::size_of(std::string_view file, std::uint64_t real_size) const {
  for (const Fault& fault : faults_) {
    if (fault.order.verb == Verb::kTruncate && is_about(fault.order, file))
      real_size = std::min(real_size, fault.order.size);
  }
  return real_size;
}

std::string Faults::describe(Time now) const {
  std::string text;
  for (const Fault& fault : faults_) {
    text += fmt::format("fault {}: {}", fault.number, to_string(fault.order));
    if (fault.order.verb != Verb::kStall && fault.order.verb != Verb::kLatency)
      text += fmt::format(", struck {} times", fault.hits);
    if (fault.until) text += fmt::format(", {} left", time_text(std::max(*fault.until - now, Time(0))));
    text += '\n';
  }
  return text;
}

}  // namespace nvr::slowdisk
