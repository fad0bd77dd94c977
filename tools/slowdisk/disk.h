// The modelled disk: a queue of requests, one head that serves them, and faults. Pure: no threads, no I/O,
// the time is an argument. Whoever drives it says when time has passed:
//
//   submit(request)            as requests come
//   begin(now) -> Service      when no request is being served: which one is next, and how long it takes
//   finish(now)                once now >= service().finishes
//
// Time is continuous for the disk even if its driver is late: a request that was waiting begins when the one
// before it was due to be finished. So a late driver makes single answers late, never the disk slower.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/slowdisk/faults.h"
#include "tools/slowdisk/mechanics.h"
#include "tools/slowdisk/queue.h"

namespace nvr::slowdisk {

struct DiskOptions {
  MechanicsOptions mechanics;
  QueueOptions queue;
  bool model_writes = false;              // otherwise they take no time, and do not move the head
  std::uint64_t short_granule_bytes = 1;  // short reads end at its multiples
  bool knows_files = false;               // whether requests carry the names of files
  bool can_be_short = true;               // whether a short read is understood as one
};

// One request being served.
struct Service {
  Request request;
  Time begun{0};
  Time finishes{0};
  Verdict verdict;
};

class Disk {
 public:
  explicit Disk(const DiskOptions& options);

  // Requests that take no time and that nothing holds up need not queue: their service, already finished.
  [[nodiscard]] std::optional<Service> serve_at_once(const Request& request, Time now);
  void submit(Request request);

  // What to serve next. Nothing when nothing waits, or all that waits is stalled.
  const Service* begin(Time now);
  [[nodiscard]] const std::optional<Service>& service() const { return service_; }
  Service finish();

  // When begin() may find something though nothing was submitted or ordered.
  [[nodiscard]] std::optional<Time> next_change() const;

  // Does as told; what there is to say about it. It holds for what is not being served yet, except that a
  // delay in progress ends when its order does.
  Result<std::string> follow(const Order& order, Time now);

  // Everything that waits or is being served, so that it can be refused.
  [[nodiscard]] std::vector<Request> give_up();

  [[nodiscard]] std::uint64_t size_of(std::string_view file, std::uint64_t real_size) const {
    return faults_.size_of(file, real_size);
  }
  [[nodiscard]] bool is_vanished() const { return faults_.is_vanished(); }

 private:
  // When the disk may begin it; nothing while it is stalled.
  [[nodiscard]] std::optional<Time> ready_at(const Request& request) const;
  [[nodiscard]] bool takes_time(const Request& request) const;
  [[nodiscard]] std::string status(Time now) const;
  void expire(Time now);
  void count(const Service& service);

  DiskOptions options_;
  Mechanics mechanics_;
  Faults faults_;
  std::vector<Request> waiting_;  // oldest first
  std::optional<Service> service_;
  Time free_at_{0};     // when the head was done, in the disk's own time
  Time not_before_{0};  // what was held up until then cannot have begun earlier
  struct {
    std::uint64_t requests = 0;
    std::uint64_t bytes_read = 0;
    std::uint64_t failed = 0;
  } done_;
};

}  // namespace nvr::slowdisk
