#include "tests/proof/machine.h"

#include <algorithm>
#include <stdexcept>

namespace nvr::proof {
namespace {

// Every view there is.
template <class Visit>
void for_each_view(State& state, Visit&& visit) {
  for (Thread& thread : state.threads) visit(thread.view);
  for (std::size_t i = 0; i < state.begin.back(); ++i) visit(state.messages[i].view);
  for (View& view : state.objects) visit(view);
  visit(state.sc);
}

}  // namespace

void View::join_words(const View& other) {
  for (std::size_t i = 0; i < at.size(); ++i) at[i] = std::max(at[i], other.at[i]);
}

void View::join(const View& other) {
  join_words(other);
  for (std::size_t i = 0; i < knows.size(); ++i) knows[i] |= other.knows[i];
}

bool State::is_reachable(std::size_t thread, std::size_t at) const {
  const Pending& next = threads[thread].pending;
  const std::size_t word = next.word;
  if (at < threads[thread].view.at[word]) return false;
  if (next.is_seq_cst && at < sc.at[word]) return false;
  const bool is_last = at + 1 == count(word);
  const bool is_load = next.kind == Pending::Kind::kLoad || next.kind == Pending::Kind::kCompare;
  if (!is_load && !is_last && messages[begin[word] + at + 1].is_update != 0) return false;
  // What was the newest when this became next could have been read before it was overwritten: another
  // schedule.
  return is_last || next.is_seq_cst || at < next.newest;
}

void State::insert(std::size_t word, std::size_t at, const Message& message) {
  if (begin.back() == kMaxMessages) throw std::runtime_error("the machine has too few messages");
  const auto place = messages.begin() + begin[word] + static_cast<std::ptrdiff_t>(at);
  std::copy_backward(place, messages.begin() + begin.back(), messages.begin() + begin.back() + 1);
  *place = message;
  for (std::size_t i = word + 1; i < begin.size(); ++i) ++begin[i];
  const bool is_last = at + 1 == count(word);
  if (is_last) return;
  for (Thread& thread : threads) {
    if (thread.pending.word == word && thread.pending.newest >= at) ++thread.pending.newest;
  }
  for_each_view(*this, [&](View& view) {
    if (view.at[word] >= at && &view != &place->view) ++view.at[word];
  });
}

void State::forget(std::size_t word, std::uint32_t users, bool has_weak_loads) {
  std::size_t oldest = count(word) - 1;
  for (std::size_t i = 0; i < kMaxThreads; ++i) {
    if ((users >> i & 1) == 0 || threads[i].is_done) continue;
    const std::uint8_t seen = threads[i].view.at[word];
    oldest = std::min<std::size_t>(oldest, has_weak_loads ? seen : std::max(seen, sc.at[word]));
  }
  if (oldest == 0) return;
  const auto place = messages.begin() + begin[word];
  std::copy(place + static_cast<std::ptrdiff_t>(oldest), messages.begin() + begin.back(), place);
  place->is_update = 0;
  for (std::size_t i = word + 1; i < begin.size(); ++i)
    begin[i] = static_cast<std::uint8_t>(begin[i] - oldest);
  for (Thread& thread : threads) {
    std::uint8_t& newest = thread.pending.newest;
    if (thread.pending.word == word)
      newest = static_cast<std::uint8_t>(newest > oldest ? newest - oldest : 0);
  }
  for_each_view(*this, [&](View& view) {
    view.at[word] = static_cast<std::uint8_t>(view.at[word] > oldest ? view.at[word] - oldest : 0);
  });
}

}  // namespace nvr::proof
