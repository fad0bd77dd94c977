#include "tools/slowdisk/disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace nvr::slowdisk {

namespace {
// Apart from the generator of the mechanics: faults by chance do not change the disk's timing, nor the
// reverse.
constexpr std::uint64_t kFaultSeed = 0x9e3779b97f4a7c15;
}  // namespace

Disk::Disk(const DiskOptions& options)
    : options_(options),
      mechanics_(options.mechanics),
      faults_(options.mechanics.seed ^ kFaultSeed, options.short_granule_bytes) {}

bool Disk::takes_time(const Request& request) const {
  return request.length > 0 && (request.operation == Operation::kRead || options_.model_writes);
}

std::optional<Service> Disk::serve_at_once(const Request& request, Time now) {
  expire(now);
  const bool is_free = faults_.is_vanished() || (!takes_time(request) && !faults_.delays(request));
  if (!is_free) return std::nullopt;
  Service service = {.request = request, .begun = now, .finishes = now, .verdict = faults_.judge(request)};
  count(service);
  return service;
}

void Disk::submit(Request request) {
  waiting_.push_back(std::move(request));
}

const Service* Disk::begin(Time now) {
  expire(now);
  std::vector<const Request*> ready;
  for (const Request& request : waiting_) {
    if (const auto at = ready_at(request); at && *at <= now) ready.push_back(&request);
  }
  const auto choice = pick(ready, mechanics_.head(), now, options_.queue);
  if (!choice) return nullptr;
  const auto chosen = waiting_.begin() + (ready[*choice] - waiting_.data());

  Service service;
  const Time ready_since = *ready_at(*chosen);
  service.request = std::move(*chosen);
  waiting_.erase(chosen);
  service.verdict = faults_.judge(service.request);
  service.begun = std::max({free_at_, ready_since, not_before_});
  service.finishes = service.begun;
  if (takes_time(service.request) && !faults_.is_vanished())
    service.finishes = mechanics_.access(service.request.position, service.request.length, service.begun);
  service.finishes += service.verdict.delay;
  return &service_.emplace(std::move(service));
}

std::optional<Time> Disk::ready_at(const Request& request) const {
  if (faults_.is_vanished()) return request.arrived;
  if (faults_.stalls(request)) return std::nullopt;
  return request.arrived + faults_.latency_of(request);
}

std::optional<Time> Disk::next_change() const {
  std::optional<Time> next = faults_.next_expiry();
  for (const Request& request : waiting_) {
    if (const auto at = ready_at(request)) next = std::min(next.value_or(*at), *at);
  }
  return next;
}

Service Disk::finish() {
  Service service = std::move(*service_);
  service_.reset();
  free_at_ = service.finishes;
  count(service);
  return service;
}

void Disk::expire(Time now) {
  if (const auto ended = faults_.expire(now)) not_before_ = std::max(not_before_, *ended);
}

void Disk::count(const Service& service) {
  ++done_.requests;
  if (service.verdict.error != 0) {
    ++done_.failed;
  } else if (service.request.operation == Operation::kRead) {
    done_.bytes_read += service.verdict.length;
  }
}

Result<std::string> Disk::follow(const Order& order, Time now) {
  if (!order.target.file.empty() && !options_.knows_files)
    return fail(
        Code::kInvalidArgument,
        "an image has no names of files: say --mounted-at, so that the file's place in it can be found");
  if (order.verb == Verb::kShort && !options_.can_be_short)
    return fail(Code::kFailedPrecondition,
                "the page cache would take a short read for the end of the file: serve with --direct-io");
  expire(now);
  if (order.verb == Verb::kStatus) return status(now);
  const bool lifts = order.verb == Verb::kResume || order.verb == Verb::kClear;
  if (!lifts) return fmt::format("fault {}: {}\n", faults_.add(order, now), to_string(order));

  if (order.verb == Verb::kResume) {
    faults_.resume();
  } else if (!order.number) {
    faults_.clear();
  } else if (!faults_.clear(*order.number)) {
    return fail(Code::kNotFound, fmt::format("there is no fault {}", *order.number));
  }
  not_before_ = std::max(not_before_, now);
  if (service_ && service_->verdict.delay > Time(0) && !order.number)
    service_->finishes = std::max(service_->finishes - std::exchange(service_->verdict.delay, Time(0)), now);
  return std::string();
}

std::vector<Request> Disk::give_up() {
  std::vector<Request> all = std::exchange(waiting_, {});
  if (service_) all.push_back(std::move(service_->request));
  service_.reset();
  return all;
}

std::string Disk::status(Time now) const {
  std::size_t stalled = 0;
  std::set<std::string> stalled_files;  // a line for each, however many of its requests are stalled
  for (const Request& request : waiting_) {
    if (!faults_.stalls(request)) continue;
    ++stalled;
    if (!request.file.empty())
      stalled_files.insert(
          fmt::format("stalled: {} of file \"{}\"\n", name_of(request.operation), request.file));
  }
  std::string text =
      fmt::format("done: {} requests, {} bytes read, {} requests failed\nwaiting: {} requests",
                  done_.requests, done_.bytes_read, done_.failed, waiting_.size() + (service_ ? 1 : 0));
  if (stalled > 0) text += fmt::format(", {} of them stalled", stalled);
  std::optional<Time> oldest;
  if (!waiting_.empty()) oldest = waiting_.front().arrived;
  if (service_) oldest = std::min(oldest.value_or(service_->request.arrived), service_->request.arrived);
  if (oldest) text += fmt::format(", the oldest for {}", time_text(now - *oldest));
  text += '\n';
  for (const std::string& line : stalled_files) text += line;
  return text + faults_.describe(now);
}

}  // namespace nvr::slowdisk
