#include "tests/proof/world.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace nvr::proof {

using Kind = Pending::Kind;

World* World::current = nullptr;

// ---- Setting up

void World::name(std::string prefix, ThreadMask users, ThreadMask writers) {
  prefix_ = std::move(prefix);
  users_ = users;
  writers_ = writers;
}

std::uint8_t World::add_word(std::uint32_t initial) {
  if (words.size() == kMaxWords) throw std::runtime_error("the machine has too few words");
  std::string name = prefix_;
  for (int i = 2; std::ranges::count(words, name, &WordInfo::name) > 0; ++i)
    name = prefix_ + " " + std::to_string(i);
  words.push_back({.name = name, .users = users_, .writers = writers_, .initial = initial});
  return static_cast<std::uint8_t>(words.size() - 1);
}

std::uint8_t World::add_cell(std::size_t size, const void* initial, bool is_read_once) {
  if (cells.size() == kMaxCells || payload_ + size > kMaxPayload)
    throw std::runtime_error("the machine has too few cells");
  cells.push_back({.name = prefix_,
                   .offset = static_cast<std::uint16_t>(payload_),
                   .size = static_cast<std::uint16_t>(size),
                   .is_read_once = is_read_once});
  payload_ += size;
  initial_payload_.resize(payload_);
  std::memcpy(initial_payload_.data() + cells.back().offset, initial, size);
  return static_cast<std::uint8_t>(cells.size() - 1);
}

std::uint8_t World::word(const std::string& name) const {
  const auto found = std::ranges::find(words, name, &WordInfo::name);
  if (found == words.end()) throw std::runtime_error("there is no word " + name);
  return static_cast<std::uint8_t>(found - words.begin());
}

State World::initial() {
  State state;
  for (std::size_t i = 0; i < words.size(); ++i) {
    state.begin[i + 1] = static_cast<std::uint8_t>(i + 1);
    state.messages[i].value = words[i].initial;
  }
  for (std::size_t i = words.size(); i < kMaxWords; ++i) state.begin[i + 1] = state.begin[i];
  std::ranges::copy(initial_payload_, state.payload.begin());
  for (std::size_t i = 0; i < kMaxThreads; ++i) {
    Thread& thread = state.threads[i];
    thread.view.knows.fill(~std::uint64_t{0});
    thread.is_done = i >= threads.size();
    if (!thread.is_done) threads[i].construct(thread.locals.data());
  }
  state.flags = flags;
  failure_.reset();
  trace_ = nullptr;
  for (std::size_t i = 0; i < threads.size(); ++i) resume(state, i);
  return state;
}

// ---- Running

std::size_t World::choices(State& state, std::size_t thread) const {
  const Pending& next = state.threads[thread].pending;
  if (state.threads[thread].is_done) return 0;
  switch (next.kind) {
    case Kind::kLoad:
    case Kind::kCompare:
    case Kind::kStore:
    case Kind::kUpdate: {
      std::size_t reachable = 0;
      for (std::size_t i = 0; i < state.count(next.word); ++i)
        reachable += state.is_reachable(thread, i) ? 1 : 0;
      return reachable;
    }
    case Kind::kCall:
      return next.waits == 0 || (state.flags & next.waits) != 0 ? 1 : 0;
    case Kind::kChoice:
      return next.choices;
    default:
      return 0;
  }
}

void World::step(State& state, std::size_t thread, std::size_t choice, std::vector<std::string>* trace) {
  choice_ = choice;
  is_armed_ = true;
  trace_ = trace;
  resume(state, thread);
  tidy(state);
}

void World::kill(State& state, std::size_t thread, std::size_t object, std::uint32_t flag) {
  state.objects[object].join_words(state.threads[thread].view);
  state.flags |= flag;
  state.threads[thread] = {};
  state.threads[thread].is_done = true;
  tidy(state);
}

// Runs the thread up to its next scheduling point.
void World::resume(State& state, std::size_t thread) {
  state_ = &state;
  thread_ = thread;
  cursor_ = 0;
  if (setjmp(stop_) == 0) run_rounds();
  state_ = nullptr;
}

void World::run_rounds() {
  Thread& thread = state_->threads[thread_];
  const ThreadInfo& info = threads[thread_];
  for (;;) {
    std::memcpy(scratch_.data(), thread.locals.data(), info.size);
    const bool goes_on = info.round(scratch_.data());
    std::memcpy(thread.locals.data(), scratch_.data(), info.size);
    std::fill_n(thread.log.begin(), thread.log_size, std::byte{0});
    thread.log_size = 0;
    thread.logged_epochs = 0;
    cursor_ = 0;
    thread.is_done = !goes_on;
    if (goes_on) continue;
    thread.pending = {};
    return;
  }
}

std::uint32_t World::replay() {
  std::uint32_t value = 0;
  std::memcpy(&value, state_->threads[thread_].log.data() + cursor_, sizeof(value));
  cursor_ += sizeof(value);
  return value;
}

void World::log_bytes(const void* bytes, std::size_t size) {
  Thread& thread = state_->threads[thread_];
  if (thread.log_size + size > kMaxLog) throw std::runtime_error("the machine's log is too short");
  std::memcpy(thread.log.data() + thread.log_size, bytes, size);
  thread.log_size = static_cast<std::uint16_t>(thread.log_size + size);
  cursor_ = thread.log_size;
}

// The operation that follows is executed now, if it is the one that the step is about.
void World::schedule(const Pending& pending) {
  if (is_armed_) {
    is_armed_ = false;
    return;
  }
  Pending& next = state_->threads[thread_].pending;
  next = pending;
  next.newest = static_cast<std::uint8_t>(state_->count(next.word) - 1);
  std::longjmp(stop_, 1);
}

// The message that the step is about, of those that are reachable; the newest is the first.
std::size_t World::chosen() const {
  std::size_t at = state_->count(state_->threads[thread_].pending.word);
  for (std::size_t skip = choice_ + 1; skip > 0;) skip -= state_->is_reachable(thread_, --at) ? 1 : 0;
  return at;
}

void World::say(const std::string& what) {
  if (trace_ != nullptr) trace_->push_back(threads[thread_].name + ": " + what);
}

void World::fail(const std::string& what) {
  if (state_ == nullptr) throw std::runtime_error(what);
  if (!failure_) failure_ = threads[thread_].name + ": " + what;
  std::longjmp(stop_, 1);
}

bool World::is_private(std::uint8_t word) const {
  return words[word].users == ThreadMask{1} << thread_;
}

void World::check_user(std::uint8_t word) {
  if ((words[word].users >> thread_ & 1) == 0) fail(words[word].name + " is none of its words");
}

std::uint32_t World::load(std::uint8_t word, std::uint32_t order) {
  if (state_ == nullptr) return words[word].initial;
  if (is_replaying()) return replay();
  order &= words[word].weakened_loads;
  check_user(word);
  const bool is_seq_cst = (order & kSeqCst) != 0;
  View& view = state_->threads[thread_].view;
  std::size_t at = 0;
  if (!is_private(word)) {
    if (!is_seq_cst && !std::exchange(words[word].has_weak_loads, true)) throw WeakLoad();
    schedule({.kind = Kind::kLoad, .word = word, .is_seq_cst = is_seq_cst});
    at = chosen();
    view.at[word] = static_cast<std::uint8_t>(at);
    if ((order & kAcquire) != 0) view.join(state_->message(word, at).view);
    if (is_seq_cst) state_->sc.at[word] = std::max(state_->sc.at[word], static_cast<std::uint8_t>(at));
  }
  const std::uint32_t value = state_->message(word, at).value;
  if (trace_ != nullptr)
    say("reads " + words[word].name + " = " + std::to_string(value) +
        (at + 1 == state_->count(word) ? "" : " (not the newest)"));
  for (std::uint8_t i = 0; i < epochs.size(); ++i) {
    Thread& thread = state_->threads[thread_];
    const bool is_rung_for = word == epochs[i].rung_for_word;
    if (word == epochs[i].epoch_word || is_rung_for)
      thread.logged.at(thread.logged_epochs++) = {thread.log_size, i, is_rung_for};
  }
  return log(value);
}

void World::put(std::uint8_t word, std::size_t at, std::uint32_t value, std::uint32_t order,
                const View* inherited) {
  View& view = state_->threads[thread_].view;
  const auto place = static_cast<std::uint8_t>(at);
  Message message{.value = value, .is_update = inherited != nullptr ? 1U : 0U, .view = {}};
  if (inherited != nullptr) message.view = *inherited;
  state_->insert(word, at, message);
  view.at[word] = place;
  Message& stored = state_->message(word, at);
  if ((order & kRelease) != 0) stored.view.join(view);
  stored.view.at[word] = place;
  if ((order & kSeqCst) != 0) state_->sc.at[word] = place;
}

void World::store(std::uint8_t word, std::uint32_t value, std::uint32_t order) {
  if (state_ == nullptr) {
    words[word].initial = value;
    return;
  }
  value &= words[word].stored_bits;
  order &= words[word].weakened_stores;
  if (is_replaying()) {
    replay();
    return;
  }
  check_user(word);
  if ((words[word].writers >> thread_ & 1) == 0)
    fail(words[word].name + " is none of the words that it writes");
  if (is_private(word)) {
    state_->message(word, 0).value = value;
  } else {
    std::size_t at = state_->count(word);
    const bool is_seq_cst = (order & kSeqCst) != 0;
    const bool has_one_writer = words[word].writers == ThreadMask{1} << thread_;
    if (is_seq_cst || !has_one_writer) {
      schedule({.kind = Kind::kStore, .word = word, .is_seq_cst = is_seq_cst});
      at = chosen() + 1;
    }
    put(word, at, value, order, nullptr);
  }
  if (trace_ != nullptr)
    say("stores " + words[word].name + " := " + std::to_string(value) +
        ((order & kSeqCst) != 0 ? "" : " (not seq_cst)"));
  log(0);
}

std::uint32_t World::add(std::uint8_t word, std::uint32_t value, std::uint32_t order) {
  if (state_ == nullptr) return std::exchange(words[word].initial, words[word].initial + value);
  if (is_replaying()) return replay();
  check_user(word);
  std::uint32_t old = 0;
  if (is_private(word)) {
    old = state_->message(word, 0).value;
    state_->message(word, 0).value = old + value;
  } else {
    schedule({.kind = Kind::kUpdate, .word = word, .is_seq_cst = (order & kSeqCst) != 0});
    const std::size_t at = chosen();
    View& view = state_->threads[thread_].view;
    const View read = state_->message(word, at).view;
    old = state_->message(word, at).value;
    if ((order & kAcquire) != 0) view.join(read);
    put(word, at + 1, old + value, order, &read);
  }
  if (trace_ != nullptr) say("adds to " + words[word].name + " = " + std::to_string(old));
  return log(old);
}

void World::access_cell(std::uint8_t cell, void* read, const void* written) {
  const CellInfo& info = cells[cell];
  std::byte* const bytes =
      (state_ != nullptr ? state_->payload.data() : initial_payload_.data()) + info.offset;
  if (state_ == nullptr) {
    if (read != nullptr) std::memcpy(read, bytes, info.size);
    if (written != nullptr) std::memcpy(bytes, written, info.size);
    return;
  }
  if (is_replaying()) {
    if (read == nullptr) {
      replay();
      return;
    }
    std::memcpy(read, state_->threads[thread_].log.data() + cursor_, info.size);
    cursor_ += info.size;
    return;
  }
  const std::size_t group = cell / 64;
  const std::uint64_t bit = std::uint64_t{1} << (cell % 64);
  if ((state_->threads[thread_].view.knows[group] & bit) == 0) fail("data race on " + info.name);
  for (Thread& thread : state_->threads) thread.view.knows[group] &= ~bit;
  for (std::size_t i = 0; i < state_->begin.back(); ++i) state_->messages[i].view.knows[group] &= ~bit;
  for (View& view : state_->objects) view.knows[group] &= ~bit;
  state_->sc.knows[group] &= ~bit;
  state_->threads[thread_].view.knows[group] |= bit;
  if (written != nullptr) {
    std::memcpy(bytes, written, info.size);
    log(0);
  } else {
    std::memcpy(read, bytes, info.size);
    log_bytes(bytes, info.size);
    if (info.is_read_once) std::fill_n(bytes, info.size, std::byte{0});
  }
}

void World::join_object(std::size_t object) {
  View& view = state_->threads[thread_].view;
  if (object >= kFirstLock)
    view.join(state_->objects[object]);
  else
    view.join_words(state_->objects[object]);
}

void World::leave_object(std::size_t object) {
  state_->objects[object] = state_->threads[thread_].view;
}

void World::fence() {
  View& view = state_->threads[thread_].view;
  view.join_words(state_->sc);
  state_->sc.join_words(view);
}

bool World::compare_and_queue(std::uint8_t word, std::uint32_t value, std::size_t object) {
  if (is_replaying()) return replay() != 0;
  // The lock's view and the barrier come before the kernel reads the word.
  schedule({.kind = Kind::kCompare, .word = word, .is_seq_cst = true});
  join_object(object);
  fence();
  View& view = state_->threads[thread_].view;
  const std::size_t at = std::max<std::size_t>(chosen(), view.at[word]);
  view.at[word] = static_cast<std::uint8_t>(at);
  const bool is_same = state_->message(word, at).value == value;
  state_->queued[thread_] = is_same ? state_->queued[thread_] | std::uint32_t{1} << word : 0;
  leave_object(object);
  if (trace_ != nullptr)
    say("FUTEX_WAIT compares " + words[word].name + ": " + (is_same ? "as seen, queued" : "it has changed"));
  return log(is_same ? 1 : 0) != 0;
}

std::uint32_t World::choose(const char* what, std::uint8_t count) {
  if (is_replaying()) return replay();
  schedule({.kind = Kind::kChoice, .choices = count});
  say(std::string(what) + " " + std::to_string(choice_));
  return log(static_cast<std::uint32_t>(choice_));
}

}  // namespace nvr::proof
