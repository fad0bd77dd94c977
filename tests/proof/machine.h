// A machine whose memory does all that the C++ memory model allows, as a value: a State is copied, compared
// by its hash, and gone on with.
//
// Words (atomics) are lists of messages in modification order. Each thread has a view: the oldest message of
// each word that it may still read. A load reads any message from there on; acquire joins the view that a
// release store has put into its message. A store goes anywhere behind the thread's view, an update right
// behind what it has read. A seq_cst access of a word comes behind all seq_cst accesses of it that were
// executed before it: the order of execution is the total order S. A seq_cst fence, which the kernel's futex
// calls have, makes a thread's view and that order one. This is RC11 without promises: a load never sees a
// store that its own thread has still to make.
//
// Cells are plain memory (slots, descriptors, commands, returned numbers). Any two accesses to a cell by
// different threads must be ordered by happens-before; else it is a data race, and the proof fails.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nvr::proof {

inline constexpr std::size_t kMaxThreads = 4;
inline constexpr std::size_t kMaxWords = 24;
inline constexpr std::size_t kMaxMessages = 48;
inline constexpr std::size_t kMaxCells = 192;
inline constexpr std::size_t kMaxPayload = 2560;  // bytes in all cells
inline constexpr std::size_t kMaxLocals = 384;    // bytes of a thread between two rounds
inline constexpr std::size_t kMaxLog = 512;       // bytes that a thread observes in a round
inline constexpr std::size_t kMaxLoggedEpochs = 16;
inline constexpr std::size_t kMaxObjects = 6;
// From this one on the objects are locks inside a process, which order cells as well. What the kernel does
// for two processes is not relied on for that.
inline constexpr std::size_t kFirstLock = 3;

struct View {
  std::array<std::uint8_t, kMaxWords> at = {};           // the oldest message that may be read
  std::array<std::uint64_t, kMaxCells / 64> knows = {};  // cells whose last access happens before
  void join_words(const View& other);
  void join(const View& other);
};

struct Message {
  std::uint32_t value = 0;
  std::uint32_t is_update = 0;  // of the message before it
  View view;                    // what an acquire load of it learns
};

// What a thread does next.
struct Pending {
  enum class Kind : std::uint8_t { kNone, kLoad, kStore, kUpdate, kCompare, kCall, kChoice };
  Kind kind = Kind::kNone;
  std::uint8_t word = 0;
  bool is_seq_cst = false;
  std::uint8_t choices = 1;
  std::uint8_t newest = 0;  // message of the word when this became next
  std::uint32_t waits = 0;  // kCall: blocked until one of these flags is up; 0: not blocked
};

struct Thread {
  View view;
  Pending pending;
  bool is_done = false;
  std::uint16_t log_size = 0;
  std::array<std::byte, kMaxLog> log = {};  // what it observed since its round began
  alignas(16) std::array<std::byte, kMaxLocals> locals = {};
  // Where in the log the values of epoch words are, and of which epoch.
  struct LoggedEpoch {
    std::uint16_t offset = 0;
    std::uint8_t epoch = 0;
    bool is_rung_for = false;
  };
  std::uint8_t logged_epochs = 0;
  std::array<LoggedEpoch, kMaxLoggedEpochs> logged = {};
};

struct State {
  std::array<Thread, kMaxThreads> threads;
  std::array<std::uint8_t, kMaxWords + 1> begin = {};  // of each word's messages
  std::array<Message, kMaxMessages> messages;
  View sc;                                // S: per word the last message that is in it
  std::array<View, kMaxObjects> objects;  // what the kernel's locks and files hand on
  std::uint32_t flags = 0;                // the kernel's and the test's
  std::array<std::uint32_t, kMaxThreads> queued =
      {};  // the words, by bit, in whose futex queues the thread is
  std::array<std::byte, kMaxPayload> payload = {};

  [[nodiscard]] std::size_t count(std::size_t word) const {
    return begin[word + 1] - std::size_t{begin[word]};
  }
  [[nodiscard]] Message& message(std::size_t word, std::size_t at) { return messages[begin[word] + at]; }
  [[nodiscard]] std::uint32_t latest(std::size_t word) const { return messages[begin[word + 1] - 1U].value; }
  // May the thread's next load or update read this message, or its next store come right behind it?
  [[nodiscard]] bool is_reachable(std::size_t thread, std::size_t at) const;
  // Puts a message at this place of the word's modification order.
  void insert(std::size_t word, std::size_t at, const Message& message);
  // Drops the messages that no thread can read any more.
  void forget(std::size_t word, std::uint32_t users, bool has_weak_loads);
};

}  // namespace nvr::proof
