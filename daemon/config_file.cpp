#include "daemon/config_file.h"

#include <algorithm>
#include <utility>

namespace nvr::daemon {
namespace {

constexpr std::string_view kSpace = " \t\r";

std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  ConfigText parse() {
    while (next_line()) {
      skip_space();
      if (is_at_end()) continue;
      begin_ = line_;
      if (const auto why = parse_setting(); !why.empty()) result_.mistakes.push_back({begin_, why});
    }
    return std::move(result_);
  }

 private:
  bool next_line() {
    if (rest_.empty()) return false;
    const auto end = rest_.find('\n');
    left_ = rest_.substr(0, end);
    rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
    ++line_;
    return true;
  }
  void skip_space() { left_.remove_prefix(std::min(left_.find_first_not_of(kSpace), left_.size())); }
  [[nodiscard]] bool is_at_end() const {
    return left_.empty() || left_.front() == '#' || left_.front() == ';';
  }

  // Each returns what is wrong, or nothing.
  std::string parse_setting() {
    if (left_.front() == '[')
      return "'" + std::string(trim(left_)) + "': there are no sections, one file configures one disk";
    const auto end = left_.find_first_of("=#");
    const bool has_value = end != std::string_view::npos && left_[end] == '=';
    ConfigSetting setting{.line = begin_, .key = std::string(trim(left_.substr(0, end))), .values = {}};
    if (setting.key.empty()) return "a value without a key";
    if (!has_value) {
      setting.values = {"true"};
    } else {
      left_.remove_prefix(end + 1);
      skip_space();
      if (is_at_end()) return "'" + setting.key + "' has no value";
      auto why = left_.front() == '[' ? parse_list(setting.values) : parse_value(setting.values, "#");
      skip_space();
      if (why.empty() && !is_at_end()) why = "'" + std::string(trim(left_)) + "' after the value";
      if (!why.empty()) return "'" + setting.key + "': " + why;
      if (setting.values.empty()) return "'" + setting.key + "' has no value";  // "[]"
    }
    result_.settings.push_back(std::move(setting));
    return {};
  }

  std::string parse_list(std::vector<std::string>& values) {
    left_.remove_prefix(1);
    for (;;) {
      skip_space();
      if (is_at_end()) {
        if (!next_line()) return "the list has no end (a ']')";
      } else if (left_.front() == ']') {
        left_.remove_prefix(1);
        return {};
      } else if (left_.front() == ',') {
        left_.remove_prefix(1);
      } else if (auto why = parse_value(values, "#,]"); !why.empty()) {
        return why;
      }
    }
  }

  // A bare value ends before one of `ends`, or with its line.
  std::string parse_value(std::vector<std::string>& values, std::string_view ends) {
    if (const char quote = left_.front(); quote == '"' || quote == '\'') {
      const auto end = left_.find(quote, 1);
      if (end == std::string_view::npos) return "the quotes have no end";
      values.emplace_back(left_.substr(1, end - 1));
      left_.remove_prefix(end + 1);
      return {};
    }
    const auto end = std::min(left_.find_first_of(ends), left_.size());
    const auto bare = trim(left_.substr(0, end));
    if (bare.find_first_of("\"'") != std::string_view::npos)
      return "a value with quotes in it needs quotes around it";
    values.emplace_back(bare);
    left_.remove_prefix(end);
    return {};
  }

  std::string_view rest_;  // the lines to come
  std::string_view left_;  // of this line
  std::size_t line_ = 0;
  std::size_t begin_ = 0;  // line of the setting's key
  ConfigText result_;
};

}  // namespace

ConfigText parse_config(std::string_view text) {
  return Parser(text).parse();
}

}  // namespace nvr::daemon
