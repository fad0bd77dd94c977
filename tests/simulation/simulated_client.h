// A client without threads: the client's half of the protocol over the real segments, one random step at a
// time. It keeps to the rules, and checks that the daemon does: problem(). One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/connection.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/wake.h"
#include "tests/simulation/simulated_engine.h"

namespace nvr::test {

// What the clients of a run are like. Probabilities are per step of a stream.
struct Habits {
  double open = 0.3;
  double close = 0.02;
  double take = 0.5;       // a descriptor, if there is one
  double give_back = 0.4;  // a held chunk, any of them
  double odd_open = 0.1;   // of opens: a missing recording, a range beyond the end, only its size asked
  double drop = 0.2;       // of opens: past the page cache
  std::uint32_t longest_chunks = 12;
};

class SimulatedClient {
 public:
  // `connection` is attached to the service by the caller; `files` is what there is to read.
  SimulatedClient(Random& random, daemon::Connection& connection,
                  std::map<std::uint64_t, SimulatedFile>& files, Habits habits);

  // One step of one stream.
  void step();
  // From now on nothing is opened, and everything is taken and given back.
  void finish() { finishing_ = true; }
  // Every stream has had its terminal, and every slot is back.
  [[nodiscard]] bool is_idle() const;

  // For directed tests. Precondition of open_range(): the stream is idle.
  void open_range(std::uint32_t stream, std::uint64_t recording, std::uint64_t begin, std::uint64_t end);
  void open(const shm::Command& command);  // with its next generation
  void close(std::uint32_t stream);
  void finish(std::uint32_t stream);  // what it follows is complete
  void take_all(std::uint32_t stream);
  void give_back_all(std::uint32_t stream);
  [[nodiscard]] bool is_open(std::uint32_t stream) const { return streams_[stream]->is_open; }
  [[nodiscard]] std::uint64_t bytes(std::uint32_t stream) const { return streams_[stream]->delivered; }
  [[nodiscard]] std::optional<shm::Descriptor> last_terminal(std::uint32_t stream) const {
    return streams_[stream]->terminal;
  }
  [[nodiscard]] std::size_t held(std::uint32_t stream) const { return streams_[stream]->held.size(); }
  // As a thread that is about to wait for the stream's next descriptor.
  void fall_asleep(std::uint32_t stream) { shm::Sleeper(w_.credit(stream).waiting).announce(); }
  // Against the rules: returns any number.
  void return_slot(std::uint32_t stream, std::uint32_t number) { streams_[stream]->returns.put(number); }

  [[nodiscard]] std::uint64_t chunks() const { return chunks_; }
  [[nodiscard]] std::uint64_t terminals() const { return terminals_; }
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  struct HeldChunk {
    std::uint16_t slot = 0;
    std::uint64_t recording = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
  };
  struct Stream {
    Stream(const shm::ReadableView& r, const shm::WritableView& w, std::uint32_t index);

    shm::DescriptorConsumer descriptors;
    shm::ReturnProducer returns;
    std::uint32_t generation = shm::kFirstIndex;
    bool is_open = false;
    bool close_posted = false;
    bool is_opened = false;  // OPENED was taken
    shm::Command command;
    std::uint64_t end = 0;        // of the range; known from OPENED on
    std::uint64_t next = 0;       // offset of the next chunk
    std::uint64_t delivered = 0;  // bytes, of this generation
    std::vector<HeldChunk> held;  // of any generation
    std::optional<shm::Descriptor> terminal;
  };

  void open_any(Stream& stream, std::uint32_t index);
  void post_open(Stream& stream, const shm::Command& command);
  void take_one(Stream& stream, std::uint32_t index);
  void take_opened(Stream& stream, const shm::Descriptor& descriptor);
  void take_chunk(Stream& stream, std::uint32_t index, const shm::Descriptor& descriptor);
  void take_terminal(Stream& stream, const shm::Descriptor& descriptor);
  void give_back(Stream& stream, std::uint32_t index, std::size_t which);
  void object(std::string what);

  Random& random_;
  std::map<std::uint64_t, SimulatedFile>& files_;
  Habits habits_;
  shm::Mapping r_map_;
  shm::Mapping w_map_;
  shm::ReadableView r_;
  shm::WritableView w_;
  shm::CommandProducer commands_;
  std::vector<std::unique_ptr<Stream>> streams_;
  bool finishing_ = false;
  std::uint64_t chunks_ = 0;
  std::uint64_t terminals_ = 0;
  std::string problem_;
};

}  // namespace nvr::test
