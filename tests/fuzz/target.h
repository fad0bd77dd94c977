// A fuzz target decodes any bytes as something that a peer can write, and checks what must hold of the
// result. One thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nvr::test {

// What one input came to.
class Judgement {
 public:
  // The input got as far as this: it was accepted as such a thing, or refused for such a reason.
  void reach(std::string_view what) { reached_.emplace(what); }
  // A property does not hold. The first one counts.
  void object(std::string what) {
    if (problem_.empty()) problem_ = std::move(what);
  }
  void require(bool holds, const char* what) {
    if (!holds) object(what);
  }

  [[nodiscard]] const std::set<std::string, std::less<>>& reached() const { return reached_; }
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  std::set<std::string, std::less<>> reached_;
  std::string problem_;
};

struct FuzzTarget {
  const char* name;  // of its corpus, too
  void (*run)(std::span<const std::byte> input, Judgement& judgement);
  std::vector<std::string_view> depths;  // what the corpus must reach
};

extern const FuzzTarget command_target;
extern const FuzzTarget configuration_target;
extern const FuzzTarget daemon_message_target;
extern const FuzzTarget hostile_client_target;
extern const FuzzTarget hostile_daemon_target;
extern const FuzzTarget http_target;
extern const FuzzTarget message_target;
extern const FuzzTarget name_target;
extern const FuzzTarget order_target;
extern const FuzzTarget range_target;

// An input, taken value by value; zero where there is no more.
class Program {
 public:
  explicit Program(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] bool has_ended() const { return bytes_.empty(); }
  template <class T>
  [[nodiscard]] T take() {
    T value = {};
    const auto part = take_bytes(sizeof(value));
    std::ranges::copy(part, reinterpret_cast<std::byte*>(&value));
    return value;
  }
  // In [0, most].
  [[nodiscard]] std::uint32_t upto(std::uint32_t most) { return take<std::uint8_t>() % (most + 1); }
  // At most so many.
  [[nodiscard]] std::span<const std::byte> take_bytes(std::size_t most) {
    const auto part = bytes_.first(std::min(most, bytes_.size()));
    bytes_ = bytes_.subspan(part.size());
    return part;
  }

 private:
  std::span<const std::byte> bytes_;
};

[[nodiscard]] inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
// The text up to the next line break, which is taken off as well.
[[nodiscard]] inline std::string_view take_line(std::string_view& text) {
  const auto line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(text.size(), line.size() + 1));
  return line;
}

}  // namespace nvr::test
