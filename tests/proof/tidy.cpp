// Makes states equal that differ in nothing that can be observed, so that they are explored once.
#include <algorithm>

#include "tests/proof/world.h"

namespace nvr::proof {

void World::tidy(State& state) const {
  for (std::size_t word = 0; word < words.size(); ++word) {
    if (state.count(word) > 1) state.forget(word, words[word].users, words[word].has_weak_loads);
  }
  std::array<std::uint64_t, kMaxCells / 64> known;
  known.fill(~std::uint64_t{0});
  for (Thread& thread : state.threads) {
    if (thread.is_done) continue;
    for (std::size_t i = 0; i < known.size(); ++i) known[i] &= thread.view.knows[i];
  }
  for (std::uint8_t epoch = 0; epoch < epochs.size(); ++epoch) lower_epoch(state, epoch);
  const auto teach = [&](View& view) {
    for (std::size_t i = 0; i < known.size(); ++i) view.knows[i] |= known[i];
  };
  for (std::size_t i = 0; i < state.begin.back(); ++i) teach(state.messages[i].view);
  for (View& view : state.objects) teach(view);
  teach(state.sc);
  for (Thread& thread : state.threads) {
    if (thread.is_done) thread.view = {};
  }
}

void World::lower_epoch(State& state, std::uint8_t epoch) const {
  const EpochInfo& info = epochs[epoch];
  const auto for_each_value = [&](auto&& visit) {
    for (std::size_t i = 0; i < state.count(info.epoch_word); ++i)
      visit(&state.message(info.epoch_word, i).value);
    if (!state.threads[info.sleeper].is_done)
      visit(state.threads[info.sleeper].locals.data() + info.value_offset);
    for (Thread& thread : state.threads) {
      for (std::size_t i = 0; i < thread.logged_epochs; ++i) {
        const Thread::LoggedEpoch& logged = thread.logged[i];
        if (logged.epoch == epoch && !logged.is_rung_for) visit(thread.log.data() + logged.offset);
      }
    }
  };
  std::uint32_t lowest = ~std::uint32_t{0};
  for_each_value([&](const void* at) {
    std::uint32_t value = 0;
    std::memcpy(&value, at, sizeof(value));
    lowest = std::min(lowest, value);
  });
  lowest &= ~std::uint32_t{1};
  if (lowest == 0) return;
  const auto lower_rung_for = [&](void* at) {
    std::uint32_t value = 0;
    std::memcpy(&value, at, sizeof(value));
    value = value > lowest ? value - lowest : 0;  // of an epoch that is over: never equal again
    std::memcpy(at, &value, sizeof(value));
  };
  for (std::size_t i = 0; i < state.count(info.rung_for_word); ++i)
    lower_rung_for(&state.message(info.rung_for_word, i).value);
  for (Thread& thread : state.threads) {
    for (std::size_t i = 0; i < thread.logged_epochs; ++i) {
      const Thread::LoggedEpoch& logged = thread.logged[i];
      if (logged.epoch == epoch && logged.is_rung_for) lower_rung_for(thread.log.data() + logged.offset);
    }
  }
  for_each_value([&](void* at) {
    std::uint32_t value = 0;
    std::memcpy(&value, at, sizeof(value));
    value -= lowest;
    std::memcpy(at, &value, sizeof(value));
  });
}

}  // namespace nvr::proof
