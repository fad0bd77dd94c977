// What a proof is about: words and cells with names, and threads that run real code on them, one scheduling
// point at a time.
//
// A thread is a trivially copyable object with a function round(), which is called again and again until it
// says false. Between two rounds the object is all there is of the thread. In the middle of one, it is the
// object as it was when the round began, and a log of what the thread has observed since: to go on, the round
// is run again from its beginning, fed from the log, up to the first operation that is not in it. That is
// executed, and what follows up to the next scheduling point.
//
// No scheduling points are: cells (if nobody races for them, when they are accessed makes no difference),
// words that one thread uses, and stores that are not seq_cst to a word with one writer (whoever may read
// such a store may also still read what was there before).
#pragma once

#include <csetjmp>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/proof/machine.h"

namespace nvr::proof {

using ThreadMask = std::uint32_t;
inline constexpr std::uint32_t kAcquire = 1;
inline constexpr std::uint32_t kRelease = 2;
inline constexpr std::uint32_t kSeqCst = 4;

class World {
 public:
  struct WordInfo {
    std::string name;
    ThreadMask users = 0;
    ThreadMask writers = 0;
    std::uint32_t initial = 0;
    bool has_weak_loads = false;                                    // not seq_cst; found out by explore()
    std::uint32_t weakened_stores = kSeqCst | kAcquire | kRelease;  // a mutant: what is left of their order
    std::uint32_t weakened_loads = kSeqCst | kAcquire | kRelease;
    std::uint32_t stored_bits = ~std::uint32_t{0};  // a mutant: what is left of the values stored
  };
  struct CellInfo {
    std::string name;
    std::uint16_t offset = 0;
    std::uint16_t size = 0;
    bool is_read_once = false;  // what was read is gone
  };
  // An epoch word, its sleeper, and the Waker's word for it. Of the numbers in them it matters only which are
  // equal and which are odd, so they are kept small: or the same situation would be explored again after each
  // sleep.
  struct EpochInfo {
    std::uint8_t epoch_word = 0;
    std::uint8_t rung_for_word = 0;
    std::size_t sleeper = 0;       // the thread
    std::size_t value_offset = 0;  // of the Sleeper's value in the thread's object
  };
  struct ThreadInfo {
    std::string name;
    std::size_t size = 0;
    bool (*round)(void*) = nullptr;
    std::function<void(void*)> construct;
  };

  // The world that words are created in and threads run in.
  static World* current;
  World() { current = this; }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() { current = nullptr; }

  // A word turned out to have weak loads; messages that only those can read may have been forgotten.
  struct WeakLoad {};

  // ---- Setting up
  // Words that are created until the next call have this name, and these threads use and write them.
  void name(std::string prefix, ThreadMask users, ThreadMask writers);
  [[nodiscard]] std::uint8_t add_word(std::uint32_t initial);
  [[nodiscard]] std::uint8_t add_cell(std::size_t size, const void* initial, bool is_read_once);
  template <class T>
  void add_thread(std::string name, const T& thread) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMaxLocals);
    threads.push_back({.name = std::move(name),
                       .size = sizeof(T),
                       .round = [](void* object) { return static_cast<T*>(object)->round(); },
                       .construct = [thread](void* at) { std::memcpy(at, &thread, sizeof(T)); }});
  }
  [[nodiscard]] std::uint8_t word(const std::string& name) const;

  // ---- Running
  [[nodiscard]] State initial();
  // How many ways the thread can take its next step; 0: none, it is blocked or has ended.
  [[nodiscard]] std::size_t choices(State& state, std::size_t thread) const;
  // Takes the step. `trace`: what happens, in words.
  void step(State& state, std::size_t thread, std::size_t choice, std::vector<std::string>* trace);
  // Ends the thread where it is; what it has stored is there for who asks `object`.
  void kill(State& state, std::size_t thread, std::size_t object, std::uint32_t flag);
  [[nodiscard]] const std::optional<std::string>& failure() const { return failure_; }

  // ---- Operations of the thread that runs (before: of whoever sets up)
  std::uint32_t load(std::uint8_t word, std::uint32_t order);
  void store(std::uint8_t word, std::uint32_t value, std::uint32_t order);
  std::uint32_t add(std::uint8_t word, std::uint32_t value, std::uint32_t order);
  void access_cell(std::uint8_t cell, void* read, const void* written);
  // A call of the kernel: waits for one of the flags (0: for nothing), then `effect(state, thread)`, in one
  // step. The lock or file that it is about hands on what its users have seen of words.
  template <class Effect>
  std::uint32_t call(const char* what, std::size_t object, std::uint32_t waits, Effect&& effect) {
    if (is_replaying()) return replay();
    schedule({.kind = Pending::Kind::kCall, .waits = waits});
    join_object(object);
    const std::uint32_t result = effect(*state_, thread_);
    leave_object(object);
    say(std::string(what) + (result != 0 ? " [" + std::to_string(result) + "]" : ""));
    return log(result);
  }
  // FUTEX_WAIT's compare: queues the thread if the word still has this value. False: it has not.
  bool compare_and_queue(std::uint8_t word, std::uint32_t value, std::size_t object);
  // The kernel's barrier.
  void fence();
  // One of the values below `count`, each of which is explored.
  std::uint32_t choose(const char* what, std::uint8_t count);
  [[noreturn]] void fail(const std::string& what);

  std::uint32_t flags = 0;  // that are up in the beginning
  std::vector<EpochInfo> epochs;
  std::vector<WordInfo> words;
  std::vector<CellInfo> cells;
  std::vector<ThreadInfo> threads;

 private:
  void resume(State& state, std::size_t thread);
  void run_rounds();
  void tidy(State& state) const;
  void lower_epoch(State& state, std::uint8_t epoch) const;
  [[nodiscard]] bool is_replaying() const { return cursor_ < state_->threads[thread_].log_size; }
  std::uint32_t replay();
  void log_bytes(const void* bytes, std::size_t size);
  std::uint32_t log(std::uint32_t value) {
    log_bytes(&value, sizeof(value));
    return value;
  }
  void schedule(const Pending& pending);
  [[nodiscard]] std::size_t chosen() const;
  void say(const std::string& what);
  void join_object(std::size_t object);
  void leave_object(std::size_t object);
  void put(std::uint8_t word, std::size_t at, std::uint32_t value, std::uint32_t order,
           const View* inherited);
  [[nodiscard]] bool is_private(std::uint8_t word) const;
  void check_user(std::uint8_t word);

  std::string prefix_;
  ThreadMask users_ = 0;
  ThreadMask writers_ = 0;
  std::size_t payload_ = 0;
  std::vector<std::byte> initial_payload_;

  State* state_ = nullptr;
  std::size_t thread_ = 0;
  std::size_t choice_ = 0;
  std::size_t cursor_ = 0;
  bool is_armed_ = false;  // the next scheduling point is the one to execute
  std::vector<std::string>* trace_ = nullptr;
  std::optional<std::string> failure_;
  std::jmp_buf stop_;
  alignas(16) std::array<std::byte, kMaxLocals> scratch_ = {};
};

}  // namespace nvr::proof
