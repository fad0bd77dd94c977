// An engine without a disk: every delay, order, short read and error comes from a seed. What it finds wrong
// with the way it is used (a slot in two reads, a file closed under a read, ...) is its problem(). One
// thread.
#pragma once

#include <errno.h>

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "daemon/engine.h"
#include "tests/support/environment.h"

namespace nvr::test {

[[nodiscard]] inline bool happens(Random& random, double probability) {
  return std::uniform_real_distribution<>(0, 1)(random) < probability;
}
[[nodiscard]] inline std::uint64_t upto(Random& random, std::uint64_t most) {
  return std::uniform_int_distribution<std::uint64_t>(0, most)(random);
}

struct SimulatedFile {
  std::uint64_t size = 0;
  std::uint64_t bad_at = UINT64_MAX;  // from there on nothing can be read ...
  int error = EIO;                    // ... but this
  int open_error = 0;                 // nor can it be opened
  std::uint32_t block = 0;            // past the page cache a bad one fails all of a read; divides `bad_at`
  int fd = -1;                        // of a file as long: whoever follows it looks there
};

// How often what goes wrong.
struct Faults {
  double short_read = 0;
  double interrupted = 0;           // EINTR
  double again = 0;                 // EAGAIN ...
  int most_again = 8;               // ... which an operation gets no more often; the daemon puts up with 16
  double shown_early = 0.5;         // a part of a read, before its completion
  double never = 0;                 // stuck until release_all()
  double open_fails = 0;            // with EACCES
  double not_in_memory = 0.5;       // of what is looked for there
  std::uint32_t longest_delay = 4;  // in calls of reap(), while others go past
};

// Content without the cost of content: eight bytes at every multiple of 512 tell recording and offset; what
// lies between is left as it was.
void stamp(std::uint64_t recording, std::uint64_t offset, std::span<std::byte> target);
[[nodiscard]] bool is_stamped(std::uint64_t recording, std::uint64_t offset,
                              std::span<const std::byte> bytes);

class SimulatedEngine final : public daemon::Engine {
 public:
  SimulatedEngine(Random& random, std::uint32_t depth, Faults faults,
                  std::map<std::uint64_t, SimulatedFile>& files)
      : random_(random), depth_(depth), faults_(faults), files_(files) {}

  [[nodiscard]] std::string_view name() const override { return "simulation"; }
  [[nodiscard]] std::uint32_t depth() const override { return depth_; }
  [[nodiscard]] std::uint32_t read_slots() const override { return 4; }
  void submit(daemon::Operation& operation) override;
  std::size_t reap(std::span<daemon::Completion> completions) override;
  void close(std::unique_ptr<daemon::SampleFile> file) override;
  [[nodiscard]] int wait(int) override { return 0; }

  // What never completes does now, and nothing is stuck any more.
  void release_all();

  [[nodiscard]] std::size_t in_flight() const { return in_flight_.size(); }
  [[nodiscard]] std::size_t open_files() const { return open_.size(); }
  [[nodiscard]] std::uint64_t opens() const { return opens_; }
  [[nodiscard]] std::uint64_t reads() const { return reads_; }
  [[nodiscard]] std::uint64_t failed_reads() const { return failed_reads_; }
  [[nodiscard]] std::uint32_t last_length() const { return last_length_; }  // of the reads
  // Is any operation in flight that writes to [begin, end)?
  [[nodiscard]] bool writes_to(const std::byte* begin, const std::byte* end) const;
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  struct InFlight {
    daemon::Operation* operation = nullptr;
    std::uint64_t due = 0;
    bool is_stuck = false;
  };

  [[nodiscard]] std::int64_t perform(daemon::Operation& operation);
  [[nodiscard]] std::int64_t open(daemon::Operation& operation);
  [[nodiscard]] std::int64_t read(daemon::Operation& operation);
  void object(std::string what);

  Random& random_;
  std::uint32_t depth_;
  Faults faults_;
  std::map<std::uint64_t, SimulatedFile>& files_;  // by composite id
  std::uint64_t now_ = 0;
  std::vector<InFlight> in_flight_;
  std::map<const daemon::Operation*, int> retries_;  // of EAGAIN, of operations in flight
  std::set<const std::byte*> slots_;                 // of reads in flight
  std::map<const daemon::SampleFile*, std::uint64_t> open_;
  std::uint64_t opens_ = 0;
  std::uint64_t reads_ = 0;
  std::uint64_t failed_reads_ = 0;
  std::uint32_t last_length_ = 0;
  std::string problem_;
};

}  // namespace nvr::test
