// The faults in force: given by orders, lifted by orders or by time. Pure: the time is an argument, chance
// comes from a seed.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tools/slowdisk/orders.h"

namespace nvr::slowdisk {

// What the faults do to one request.
struct Verdict {
  int error = 0;             // errno
  Time delay{0};             // on top of what the request takes
  std::uint64_t length = 0;  // that can be had, at most what was asked for
  std::string faults;        // their numbers and names, for the log: "3:eio"; empty when all is well
};

class Faults {
 public:
  // Short reads end at multiples of `granule_bytes`, which a block device needs.
  Faults(std::uint64_t seed, std::uint64_t granule_bytes) : random_(seed), granule_bytes_(granule_bytes) {}

  // An order that is a fault: stall, latency, delay, eio, fail, short, truncate, vanish. Returns its number.
  std::uint64_t add(const Order& order, Time now);
  // Lifts stalls, latencies and delays.
  void resume();
  void clear();
  // False when there is none of that number.
  [[nodiscard]] bool clear(std::uint64_t number);
  // Drops what has lasted long enough. Returns when the last of those ended; nothing when none did.
  std::optional<Time> expire(Time now);
  // When the next one has lasted long enough.
  [[nodiscard]] std::optional<Time> next_expiry() const;

  [[nodiscard]] bool is_vanished() const;
  [[nodiscard]] bool stalls(const Request& request) const;
  // How long the request waits before the disk may begin it.
  [[nodiscard]] Time latency_of(const Request& request) const;
  // Whether the request would be held up by anything at all.
  [[nodiscard]] bool delays(const Request& request) const;
  // Once for each request, as it is served: "once" and chance are used up by it.
  [[nodiscard]] Verdict judge(const Request& request);
  // Where the file or image ends.
  [[nodiscard]] std::uint64_t size_of(std::string_view file, std::uint64_t real_size) const;

  // One line each: number, order, how often it struck, how long it stays.
  [[nodiscard]] std::string describe(Time now) const;

 private:
  struct Fault {
    std::uint64_t number = 0;
    Order order;
    std::optional<Time> until;
    std::uint64_t hits = 0;
  };
  [[nodiscard]] bool strikes(const Fault& fault, const Request& request);
  void apply(const Fault& fault, const Request& request, Verdict& verdict) const;

  std::vector<Fault> faults_;  // in the order they were given
  std::uint64_t last_number_ = 0;
  std::mt19937_64 random_;
  std::uint64_t granule_bytes_;
};

}  // namespace nvr::slowdisk
