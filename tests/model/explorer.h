// Explores every state that a model can reach, breadth first: the way to the first thing that is wrong is the
// shortest one. Exact: a state counts as seen only if all its bytes are the same.
//
// A model has
//   State initial() const                      trivially copyable, without padding
//   std::size_t state_bytes() const            how many bytes of State are in use, from the start
//   void successors(const State&, Visit) const calls visit(label of the step, next state, failure or null)
//   std::string name(label) const
//   const char* wrong_at_rest(const State&)    nothing can happen any more: null if that is as it should be
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace nvr::model {

struct Finding {
  std::string what;
  std::vector<std::string> way;  // the steps that lead there
};

struct Exploration {
  std::size_t states = 0;
  std::size_t steps = 0;
  std::size_t bytes = 0;  // memory for the states
  // Where no schedule comes back to a state it was in, every schedule ends: nobody runs in circles.
  bool every_schedule_ends = false;
  std::optional<Finding> finding;  // the exploration stops at the first
};

template <class Model>
class Explorer {
 public:
  using State = typename Model::State;
  static_assert(std::has_unique_object_representations_v<State> && std::is_trivially_copyable_v<State>);

  explicit Explorer(const Model& model) : model_(model), stride_(model.state_bytes()), table_(1 << 16) {}

  [[nodiscard]] Exploration run() {
    add(model_.initial(), 0);
    for (std::uint32_t at = 0; at < parents_.size() && !result_.finding; ++at) expand(at);
    result_.states = parents_.size();
    result_.bytes = blocks_.size() * kBlockStates * stride_ + table_.size() * sizeof(table_[0]) +
                    parents_.capacity() * sizeof(parents_[0]) + arrivals_.capacity() * sizeof(arrivals_[0]);
    if (!result_.finding) result_.every_schedule_ends = has_no_circle();
    return std::move(result_);
  }

 private:
  static constexpr std::size_t kBlockStates = 4096;
  static constexpr std::size_t kMaxStates = 8'000'000;

  void expand(std::uint32_t at) {
    const State state = get(at);
    bool any = false;
    model_.successors(state, [&](const auto& label, const State& next, const char* failure) {
      any = true;
      ++result_.steps;
      if (result_.finding) return;
      if (failure != nullptr) {
        result_.finding = Finding{failure, way_to(at)};
        result_.finding->way.push_back(model_.name(label));
        return;
      }
      ++arrivals_[add(next, at)];
    });
    if (any) return;
    if (const char* const wrong = model_.wrong_at_rest(state)) result_.finding = Finding{wrong, way_to(at)};
  }

  // Takes away, again and again, a state that no remaining step leads to. Circles are what remains.
  [[nodiscard]] bool has_no_circle() {
    std::vector<std::uint32_t> free = {0};
    std::size_t taken = 0;
    while (!free.empty()) {
      const State state = get(free.back());
      free.pop_back();
      ++taken;
      model_.successors(state, [&](const auto&, const State& next, const char*) {
        const std::uint32_t index = find(next);
        if (--arrivals_[index] == 0) free.push_back(index);
      });
    }
    return taken == parents_.size();
  }

  [[nodiscard]] std::vector<std::string> way_to(std::uint32_t at) const {
    std::vector<std::string> way;
    for (; at != 0; at = parents_[at]) {
      const std::byte* const target = bytes_of(at);
      std::string found;
      model_.successors(get(parents_[at]), [&](const auto& label, const State& next, const char*) {
        if (found.empty() && std::memcmp(&next, target, stride_) == 0) found = model_.name(label);
      });
      way.insert(way.begin(), found);
    }
    return way;
  }

  // ---- The states seen: their bytes in blocks, and a table of their numbers by hash.

  [[nodiscard]] const std::byte* bytes_of(std::uint32_t index) const {
    return blocks_[index / kBlockStates].get() + index % kBlockStates * stride_;
  }
  [[nodiscard]] State get(std::uint32_t index) const {
    State state = {};
    std::memcpy(&state, bytes_of(index), stride_);
    return state;
  }
  [[nodiscard]] std::size_t hash(const void* bytes) const {
    return std::hash<std::string_view>{}({static_cast<const char*>(bytes), stride_});
  }
  // Where the state's number is in the table, or belongs.
  [[nodiscard]] std::size_t place_of(const void* bytes) const {
    const std::size_t mask = table_.size() - 1;
    std::size_t place = hash(bytes) & mask;
    while (table_[place] != 0 && std::memcmp(bytes_of(table_[place] - 1), bytes, stride_) != 0)
      place = (place + 1) & mask;
    return place;
  }
  [[nodiscard]] std::uint32_t find(const State& state) const { return table_[place_of(&state)] - 1; }

  std::uint32_t add(const State& state, std::uint32_t parent) {
    const std::size_t place = place_of(&state);
    if (table_[place] != 0) return table_[place] - 1;
    const auto index = static_cast<std::uint32_t>(parents_.size());
    if (index >= kMaxStates) throw std::runtime_error("the model has more states than it should have");
    if (index % kBlockStates == 0) blocks_.push_back(std::make_unique<std::byte[]>(kBlockStates * stride_));
    std::memcpy(blocks_.back().get() + index % kBlockStates * stride_, &state, stride_);
    parents_.push_back(parent);
    arrivals_.push_back(0);
    table_[place] = index + 1;
    if (parents_.size() * 2 > table_.size()) grow();
    return index;
  }

  void grow() {
    table_.assign(table_.size() * 2, 0);
    for (std::uint32_t i = 0; i < parents_.size(); ++i) table_[place_of(bytes_of(i))] = i + 1;
  }

  const Model& model_;
  const std::size_t stride_;
  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::vector<std::uint32_t> parents_;
  std::vector<std::uint32_t> arrivals_;  // steps that lead to the state
  std::vector<std::uint32_t> table_;     // number + 1; 0: empty
  Exploration result_;
};

}  // namespace nvr::model
