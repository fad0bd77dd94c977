#include "tests/proof/explorer.h"

#include <algorithm>
#include <memory>
#include <stdexcept>

namespace nvr::proof {
namespace {

constexpr std::size_t kMaxDepth = 5'000;

// A set of 64-bit numbers, open addressing.
class Seen {
 public:
  // False: it was there.
  bool insert(std::uint64_t key) {
    if (size_ * 2 >= table_.size()) grow();
    if (!put(key)) return false;
    ++size_;
    return true;
  }

 private:
  bool put(std::uint64_t key) {
    std::size_t at = key & (table_.size() - 1);
    for (; table_[at] != 0; at = (at + 1) & (table_.size() - 1)) {
      if (table_[at] == key) return false;
    }
    table_[at] = key;
    return true;
  }
  void grow() {
    std::vector<std::uint64_t> old(table_.size() * 2);
    old.swap(table_);
    for (const std::uint64_t key : old) {
      if (key != 0) put(key);
    }
  }
  std::vector<std::uint64_t> table_ = std::vector<std::uint64_t>(1 << 16);
  std::size_t size_ = 0;
};

class Hash {
 public:
  void add(const void* bytes, std::size_t size) {
    const auto* at = static_cast<const std::byte*>(bytes);
    for (; size >= 8; size -= 8, at += 8) mix(at, 8);
    if (size > 0) mix(at, size);
  }
  [[nodiscard]] std::uint64_t value() const {
    std::uint64_t x = state_ ^ (state_ >> 32);
    x *= 0xd6e8feb86659fd93;
    return std::max<std::uint64_t>(x ^ (x >> 32), 1);
  }

 private:
  void mix(const std::byte* bytes, std::size_t size) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes, size);
    state_ = (state_ ^ word) * 0x9e3779b97f4a7c15;
    state_ ^= state_ >> 29;
  }
  std::uint64_t state_ = 0x243f6a8885a308d3;
};

std::uint64_t hash(const World& world, const State& state) {
  Hash hash;
  for (std::size_t i = 0; i < world.threads.size(); ++i) {
    const Thread& thread = state.threads[i];
    const std::uint64_t newest = thread.pending.is_seq_cst ? 0 : thread.pending.newest;
    const std::uint64_t life = thread.is_done ? 1 : 2 + thread.log_size + (newest << 32);
    hash.add(&life, sizeof(life));
    if (thread.is_done) continue;
    hash.add(&thread.view, sizeof(View));
    hash.add(thread.log.data(), thread.log_size);
    hash.add(thread.locals.data(), world.threads[i].size);
  }
  hash.add(state.begin.data(), state.begin.size());
  hash.add(state.messages.data(), state.begin.back() * sizeof(Message));
  hash.add(&state.sc, sizeof(View));
  hash.add(state.objects.data(), sizeof(state.objects));
  hash.add(&state.flags, sizeof(state.flags));
  hash.add(state.queued.data(), sizeof(state.queued));
  if (!world.cells.empty())
    hash.add(state.payload.data(), world.cells.back().offset + std::size_t{world.cells.back().size});
  return hash.value();
}

struct Frame {
  State state;
  std::uint64_t hash = 0;
  std::size_t last = 0;    // the thread that led here goes on first, which makes schedules short
  std::size_t turn = 0;    // how many threads have had theirs
  std::size_t choice = 0;  // of the thread whose turn it is
  [[nodiscard]] std::size_t thread() const { return (last + turn) % kMaxThreads; }
};

class Explorer {
 public:
  Explorer(World& world, const Rules& rules) : world_(world), rules_(rules) {}

  Exploration run() {
    open(world_.initial(), 0);
    if (world_.failure()) found(*world_.failure());
    while (depth_ > 0 && !result_.finding) {
      Frame& frame = *frames_[depth_ - 1];
      if (frame.turn > kMaxThreads) {
        --depth_;
      } else if (frame.turn == kMaxThreads) {  // the last possibility: a death
        ++frame.turn;
        const bool can_die = rules_.victim && !frame.state.threads[*rules_.victim].is_done;
        if (can_die) go_on(frame, kDeath, 0);
      } else if (frame.choice >= world_.choices(frame.state, frame.thread())) {
        ++frame.turn;
        frame.choice = 0;
      } else {
        go_on(frame, frame.thread(), frame.choice++);
      }
    }
    return std::move(result_);
  }

 private:
  static constexpr std::size_t kDeath = kMaxThreads;

  void take(State& state, std::size_t thread, std::size_t choice, std::vector<std::string>* trace) {
    if (thread != kDeath) return world_.step(state, thread, choice, trace);
    world_.kill(state, *rules_.victim, rules_.death_object, rules_.death_flag);
    if (trace != nullptr) trace->push_back("(" + world_.threads[*rules_.victim].name + " is killed)");
  }

  void go_on(Frame& frame, std::size_t thread, std::size_t choice) {
    State& next = place_of_next();
    next = frame.state;
    path_.resize(depth_ - 1);
    path_.push_back({thread, choice});
    take(next, thread, choice, nullptr);
    ++result_.steps;
    if (world_.failure()) return found(*world_.failure());
    open(next, thread == kDeath ? 0 : thread);
  }

  State& place_of_next() {
    if (depth_ == frames_.size()) frames_.push_back(std::make_unique<Frame>());
    return frames_[depth_]->state;
  }

  void open(const State& state, std::size_t last) {
    if (depth_ == 0) place_of_next() = state;
    Frame& frame = *frames_[depth_];
    frame.hash = hash(world_, frame.state);
    frame.last = last;
    frame.turn = frame.choice = 0;
    if (!seen_.insert(frame.hash)) {
      for (std::size_t i = 0; i < depth_; ++i) {
        if (frames_[i]->hash == frame.hash) return found("threads run in circles");
      }
      return;
    }
    if (++result_.states > rules_.max_states) throw std::runtime_error("more states than there should be");
    if (depth_ == kMaxDepth) return found("threads go on for ever");
    check_rest(frame.state);
    ++depth_;
  }

  void check_rest(State& state) {
    ThreadMask able = 0;
    for (std::size_t i = 0; i < world_.threads.size(); ++i) {
      if (world_.choices(state, i) > 0) able |= ThreadMask{1} << i;
    }
    if (able == 0) ++result_.ends;
    if ((able & ~rules_.may_stall) != 0) return;
    if (const char* const wrong = rules_.wrong_at_rest(state, able)) found(wrong);
  }

  // Takes the path again, and writes it down.
  void found(const std::string& what) {
    result_.finding = Finding{.what = what, .schedule = {}};
    State state = world_.initial();
    for (const auto& [thread, choice] : path_) take(state, thread, choice, &result_.finding->schedule);
  }

  struct Step {
    std::size_t thread;
    std::size_t choice;
  };
  World& world_;
  const Rules& rules_;
  std::vector<std::unique_ptr<Frame>> frames_;
  std::size_t depth_ = 0;
  std::vector<Step> path_;
  Seen seen_;
  Exploration result_;
};

}  // namespace

Exploration explore(World& world, const Rules& rules) {
  for (;;) {
    try {
      return Explorer(world, rules).run();
    } catch (const World::WeakLoad&) {  // once more, with what has been learnt
    }
  }
}

}  // namespace nvr::proof
