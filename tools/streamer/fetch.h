// From a request to its first bytes: finds the recording on one of the disks, learns what it is, decides what
// is to be sent, and opens the stream of it. Nothing is promised to the asker before the disk has delivered
// the first chunk: a disk that does not answer is a 503, never a response that begins and hangs.
//
// Event-loop thread. Never blocks: poll() says whether there is an outcome yet.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "nvr/client.h"
#include "tools/streamer/disk.h"
#include "tools/streamer/range.h"

namespace nvr::streamer {

struct FetchRequest {
  RecordingId recording;
  std::vector<Disk*> disks;  // where it may be; not empty
  Conditions conditions;
  bool wants_body = true;  // false: HEAD
};

struct FetchSettings {
  std::chrono::nanoseconds timeout{};  // for the first chunk, the wait for a stream included
  bool etags_for_replicas = false;
};

// Found, and what is to be sent has begun to arrive.
struct Found {
  Disk* disk = nullptr;
  Known known;
  std::string etag;
  Decision decision;
  std::unique_ptr<Loan> loan;  // of the stream; none: no bytes are to be sent
  std::optional<Chunk> first;  // the stream's first chunk, taken already
};

// Why there is nothing to send. `status` is HTTP's.
struct Refusal {
  unsigned status = 500;
  std::string text;    // for the viewer, who must not learn of paths here
  std::string detail;  // for the log
};

// Are both the same version of the same file?
[[nodiscard]] bool is_same(const RecordingInfo& a, const RecordingInfo& b);

// How the disk is, or `otherwise` when it is well.
[[nodiscard]] std::string text_for_viewer(const std::optional<Trouble>& trouble, std::string_view otherwise);
// What the disk said, as a response.
[[nodiscard]] Refusal refusal_of(const Disk& disk, const Error& error);

class Fetch {
 public:
  using Outcome = std::variant<Found, Refusal>;

  // `listener` hears when to poll(), besides right away and now and then.
  Fetch(FetchRequest request, const FetchSettings& settings, DiskListener& listener);

  // The outcome, once. Nothing: ask again.
  [[nodiscard]] std::optional<Outcome> poll();
  [[nodiscard]] const std::vector<Disk*>& disks() const { return request_.disks; }

 private:
  // A look at the recording's beginning on one disk.
  struct Probe {
    Disk* disk = nullptr;
    std::uint64_t end = kToEnd;
    std::unique_ptr<Loan> loan;
    std::optional<Error> error;  // the disk's last word
  };

  void begin();
  void start(Probe& probe);
  [[nodiscard]] std::unique_ptr<Loan> borrow(Disk& disk, std::uint64_t begin, std::uint64_t end);
  [[nodiscard]] std::optional<Outcome> poll_once();
  [[nodiscard]] std::optional<Outcome> poll_probes();
  [[nodiscard]] std::optional<Outcome> poll_probe(Probe& probe);
  [[nodiscard]] std::optional<Outcome> on_probe_failed(Probe& probe, Stream& stream, Error error);
  [[nodiscard]] Refusal refuse_all() const;
  [[nodiscard]] std::optional<Outcome> on_known(Probe& probe, const Known& known, std::optional<Chunk> first);
  void open_slice(Found found);
  [[nodiscard]] std::optional<Outcome> poll_slice();
  [[nodiscard]] std::optional<Outcome> begin_again();
  template <class Function>
  void for_each_loan(Function&& function) const;
  [[nodiscard]] std::optional<Refusal> give_up() const;
  [[nodiscard]] Found found_on(Disk& disk, const Known& known) const;

  const FetchRequest request_;
  const FetchSettings settings_;
  DiskListener& listener_;
  const Deadline started_ = Clock::now();
  int rounds_ = 0;
  std::vector<Probe> probes_;
  std::optional<Found> opening_;  // the slice, before its first chunk
};

}  // namespace nvr::streamer
