// What has been brought into the page cache ahead of one stream's reads, and how fast its reader uses it up:
// so that a visit of the disk may be longer than the stream's window. Offsets are the file's. Disk thread
// only.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "daemon/operation.h"

namespace nvr::daemon {

class ReadAhead {
 public:
  // Nothing is known of [begin, end) yet: perhaps all of it is in memory.
  void start(std::uint64_t begin, std::uint64_t end, std::uint64_t now_ns);

  // Memory lacks the byte at `at`, which the stream reads next: from now on all is brought in first.
  void miss(std::uint64_t at);
  [[nodiscard]] bool is_needed() const { return needed_; }

  // Makes `operation` the next segment, of up to `bytes`. Precondition: has_more().
  void prepare(Operation& operation, std::uint64_t bytes);
  // The segment is no longer the engine's. What has come is there up to until().
  void on_finished(Operation& operation, OperationPool& operations);

  [[nodiscard]] bool has_more() const { return !failed_ && asked_until_ < end_; }
  [[nodiscard]] std::uint64_t asked_until() const { return asked_until_; }
  [[nodiscard]] std::uint64_t until() const { return until_; }
  // Something could not be brought in: the stream's own read will tell what is wrong.
  [[nodiscard]] bool has_failed() const { return failed_; }

  // ---- The reader's pace
  // Its window has become full of what it has not used yet, or not any more.
  void set_reader_waits(bool waits, std::uint64_t now_ns);
  // When the reader runs dry, if nothing more comes, given that it will have used up `in_hand` bytes then;
  // from how it did since the last call. UINT64_MAX for one that takes all it can get: it waits for the disk
  // in any case.
  [[nodiscard]] std::uint64_t deadline_ns(std::uint64_t position, std::uint64_t in_hand,
                                          std::uint64_t now_ns);
  // The same for one of which nothing is known yet, if it shows what it gets from its start on: forty viewers
  // that come at once must not sweep past the first of them until he runs dry. UINT64_MAX once it has had
  // enough to tell.
  [[nodiscard]] std::uint64_t presumed_deadline_ns(std::uint64_t position) const;

 private:
  bool needed_ = false;
  bool failed_ = false;
  std::uint64_t end_ = 0;
  std::uint64_t asked_until_ = 0;
  std::uint64_t until_ = 0;
  boost::intrusive::list<Operation, boost::intrusive::constant_time_size<false>> segments_;  // in file order

  std::uint64_t began_at_ = 0;
  std::uint64_t began_ns_ = 0;
  std::uint64_t paced_from_ = 0;  // position and time of the last look at the pace
  std::uint64_t paced_from_ns_ = 0;
  std::uint64_t waited_ns_ = 0;       // since then: with a full window
  std::uint64_t waits_since_ns_ = 0;  // 0: its window is not full
};

}  // namespace nvr::daemon
