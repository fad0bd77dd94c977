#include "tools/slowdisk/orders.h"

#include <errno.h>
#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <utility>

namespace nvr::slowdisk {

const char* const kOrderHelp =
    R"(Orders:
  stall    [OPERATIONS] [TARGET] [for TIME]                    wait until resumed; requests elsewhere go on
  latency  TIME [OPERATIONS] [TARGET] [for TIME]               wait that long, however many there are at a time
  delay    TIME [OPERATIONS] [TARGET] [HOW_OFTEN] [for TIME]   take that much longer, with the head kept busy
  eio      [OPERATIONS] [TARGET] [HOW_OFTEN] [for TIME]        fail with EIO (reads, unless OPERATIONS says else)
  fail     ERRNO [OPERATIONS] [TARGET] [HOW_OFTEN] [for TIME]  the same with another errno, e.g. ENODATA
  short    [TARGET] [HOW_OFTEN] [for TIME]                     reads return only a part (a directory needs --direct-io)
  truncate [file NAME] SIZE                                    end there: nothing to read behind it
  vanish   [for TIME]                                          the disk is gone: everything fails at once
  resume                                                       lift all stalls, latencies and delays
  clear    [NUMBER]                                            lift every fault, or the one of that number
  status                                                       what is in force, and what has been done

  TARGET      everything, if not given;
              BEGIN-END[,BEGIN-END...]   bytes of the image or of any file, ENDs exclusive, e.g. 4096-8192 or 1G-2G;
              file NAME [BEGIN-END...]   a file and bytes of it. In quotes if its name has blanks.
  OPERATIONS  reads, writes, opens (several: reads,writes)
  HOW_OFTEN   always (the default), once, or a chance for each request, e.g. 30%
  TIME        20s, 8.5ms, 150us, 2min
  SIZE        65536, 64K (1024 bytes each), 2G, 160MB (1000000 bytes each)
)";

namespace {

constexpr std::array<std::pair<Verb, std::string_view>, 11> kVerbs = {{{Verb::kStall, "stall"},
                                                                       {Verb::kLatency, "latency"},
                                                                       {Verb::kDelay, "delay"},
                                                                       {Verb::kEio, "eio"},
                                                                       {Verb::kFail, "fail"},
                                                                       {Verb::kShort, "short"},
                                                                       {Verb::kTruncate, "truncate"},
                                                                       {Verb::kVanish, "vanish"},
                                                                       {Verb::kResume, "resume"},
                                                                       {Verb::kClear, "clear"},
                                                                       {Verb::kStatus, "status"}}};
constexpr std::array<std::pair<Operation, std::string_view>, 3> kOperations = {
    {{Operation::kRead, "reads"}, {Operation::kWrite, "writes"}, {Operation::kOpen, "opens"}}};
constexpr std::uint8_t kReads = static_cast<std::uint8_t>(Operation::kRead);
constexpr std::uint8_t kAllOperations =
    kReads | static_cast<std::uint8_t>(Operation::kWrite) | static_cast<std::uint8_t>(Operation::kOpen);

std::string_view name_of(Verb verb) {
  for (const auto& [known, name] : kVerbs) {
    if (known == verb) return name;
  }
  return "?";
}

std::uint8_t default_operations(Verb verb) {
  switch (verb) {
    case Verb::kStall:
    case Verb::kLatency:
    case Verb::kDelay:
      return kAllOperations;
    case Verb::kEio:
    case Verb::kFail:
    case Verb::kShort:
      return kReads;
    default:
      return 0;
  }
}

tl::unexpected<Error> wrong(std::string message) {
  return fail(Code::kInvalidArgument, std::move(message));
}

Result<int> parse_errno(std::string_view name) {
  constexpr int kMostErrno = 133;
  for (int number = 1; number <= kMostErrno; ++number) {
    const char* const known = strerrorname_np(number);
    if (known != nullptr && known == name) return number;
  }
  return wrong(fmt::format("'{}' is no errno such as ENODATA", name));
}

// Blanks separate words, unless they are between double quotes.
Result<std::vector<std::string>> split(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool quoted = false;
  bool in_word = false;
  for (const char c : line) {
    const bool blank = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (c == '"') {
      quoted = !quoted;
      in_word = true;
    } else if (blank && !quoted) {
      if (in_word) words.push_back(std::exchange(word, {}));
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quoted) return wrong("a quote is not closed");
  if (in_word) words.push_back(word);
  return words;
}

// The words of one order from left to right, and what they make of it.
class Parser {
 public:
  explicit Parser(std::vector<std::string> words) : words_(std::move(words)) {}

  Result<Order> parse() {
    if (words_.empty()) return wrong("an order is missing");
    const std::string& verb = words_[next_++];
    const auto* const known =
        std::find_if(kVerbs.begin(), kVerbs.end(), [&](const auto& entry) { return entry.second == verb; });
    if (known == kVerbs.end()) return wrong(fmt::format("'{}' is no order", verb));
    order_.verb = known->first;
    order_.target.operations = default_operations(order_.verb);
    if (auto done = arguments(); !done) return tl::unexpected(done.error());
    if (next_ < words_.size()) return wrong(fmt::format("{}: what is '{}'?", verb, words_[next_]));
    return order_;
  }

 private:
  [[nodiscard]] bool at_end() const { return next_ == words_.size(); }
  [[nodiscard]] bool accept(std::string_view word) {
    if (at_end() || words_[next_] != word) return false;
    ++next_;
    return true;
  }
  // The next word, or nothing where the order ends too early: then everybody complains about "".
  [[nodiscard]] std::string take() { return at_end() ? std::string() : words_[next_++]; }

  Result<void> arguments() {
    switch (order_.verb) {
      case Verb::kLatency:
      case Verb::kDelay:
        if (auto time = read(parse_time(take()), order_.delay); !time) return time;
        return target_and_more();
      case Verb::kFail:
        if (auto error = read(parse_errno(take()), order_.error); !error) return error;
        return target_and_more();
      case Verb::kEio:
        order_.error = EIO;
        return target_and_more();
      case Verb::kStall:
      case Verb::kShort:
        return target_and_more();
      case Verb::kTruncate:
        if (accept("file")) {
          order_.target.file = take();
          if (order_.target.file.empty()) return wrong("truncate file: its name is missing");
        }
        return read(parse_size(take()), order_.size);
      case Verb::kVanish:
        return lasting();
      case Verb::kClear:
        return at_end() ? Result<void>() : number();
      case Verb::kResume:
      case Verb::kStatus:
        return {};
    }
    return {};
  }

  template <class T>
  static Result<void> read(Result<T> value, T& target) {
    if (!value) return tl::unexpected(value.error());
    target = std::move(*value);
    return {};
  }

  Result<void> target_and_more() {
    if (order_.verb != Verb::kShort) operations();
    if (auto done = target(); !done) return done;
    if (order_.verb != Verb::kStall && order_.verb != Verb::kLatency) {
      if (auto done = frequency(); !done) return done;
    }
    return lasting();
  }

  void operations() {
    if (at_end() || words_[next_].empty()) return;
    std::uint8_t chosen = 0;
    std::istringstream names(words_[next_]);
    for (std::string name; std::getline(names, name, ',');) {
      const auto* const known = std::find_if(kOperations.begin(), kOperations.end(),
                                             [&](const auto& entry) { return entry.second == name; });
      if (known == kOperations.end()) return;
      chosen |= static_cast<std::uint8_t>(known->first);
    }
    order_.target.operations = chosen;
    ++next_;
  }

  Result<void> target() {
    if (accept("all")) return {};
    if (accept("file")) {
      order_.target.file = take();
      if (order_.target.file.empty()) return wrong("file: its name is missing");
    }
    const bool is_ranges = !at_end() && words_[next_].find('-') != std::string::npos;
    return is_ranges ? read(parse_ranges(take()), order_.target.ranges) : Result<void>();
  }

  Result<void> frequency() {
    if (accept("always")) return {};
    if (accept("once")) {
      order_.frequency = Frequency::kOnce;
    } else if (!at_end() && words_[next_].ends_with('%')) {
      order_.frequency = Frequency::kChance;
      return read(parse_percent(take()), order_.probability);
    }
    return {};
  }

  Result<void> lasting() {
    if (!accept("for")) return {};
    return read(parse_time(take()), order_.lasting.emplace());
  }

  Result<void> number() {
    const std::string word = take();
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size())
      return wrong(fmt::format("clear: '{}' is no number of a fault; status lists them", word));
    order_.number = value;
    return {};
  }

  std::vector<std::string> words_;
  std::size_t next_ = 0;
  Order order_;
};

std::string to_string(const Target& target, Verb verb) {
  std::string text;
  if (target.operations != default_operations(verb)) {
    std::string_view separator = " ";
    for (const auto& [operation, name] : kOperations) {
      if ((target.operations & static_cast<std::uint8_t>(operation)) == 0) continue;
      text += fmt::format("{}{}", separator, name);
      separator = ",";
    }
  }
  if (!target.file.empty()) text += fmt::format(" file \"{}\"", target.file);
  if (!target.ranges.empty()) text += " " + to_string(target.ranges);
  return text;
}

Result<Range> parse_range(std::string_view text) {
  const auto dash = text.find('-');
  if (dash == std::string_view::npos)
    return wrong(fmt::format("'{}' is no range such as 4096-8192 or 1G-2G", text));
  const auto begin = parse_size(text.substr(0, dash));
  if (!begin) return tl::unexpected(begin.error());
  const auto end = parse_size(text.substr(dash + 1));
  if (!end) return tl::unexpected(end.error());
  if (*begin >= *end) return wrong(fmt::format("the range {} is empty: its end is exclusive", text));
  return Range{.begin = *begin, .end = *end};
}

}  // namespace

bool Target::matches(const Request& request) const {
  if ((operations & static_cast<std::uint8_t>(request.operation)) == 0) return false;
  if (!file.empty() && file != request.file) return false;
  if (ranges.empty()) return true;
  return std::any_of(ranges.begin(), ranges.end(), [&](const Range& range) {
    return request.offset < range.end && range.begin < request.offset + request.length;
  });
}

Result<Order> parse_order(std::string_view line) {
  auto words = split(line);
  if (!words) return tl::unexpected(words.error());
  return Parser(std::move(*words)).parse();
}

std::string to_string(const Order& order) {
  std::string text(name_of(order.verb));
  if (order.verb == Verb::kDelay || order.verb == Verb::kLatency) text += " " + time_text(order.delay);
  if (order.verb == Verb::kFail) text += fmt::format(" {}", strerrorname_np(order.error));
  text += to_string(order.target, order.verb);
  if (order.verb == Verb::kTruncate) text += " " + size_text(order.size);
  if (order.frequency == Frequency::kOnce) text += " once";
  if (order.frequency == Frequency::kChance) text += fmt::format(" {:g}%", order.probability * 100);
  if (order.lasting) text += " for " + time_text(*order.lasting);
  if (order.number) text += fmt::format(" {}", *order.number);
  return text;
}

Result<std::vector<Range>> parse_ranges(std::string_view text) {
  std::vector<Range> ranges;
  for (;;) {
    const auto comma = text.find(',');
    const auto range = parse_range(text.substr(0, comma));
    if (!range) return tl::unexpected(range.error());
    ranges.push_back(*range);
    if (comma == std::string_view::npos) return ranges;
    text.remove_prefix(comma + 1);
  }
}

std::string to_string(const std::vector<Range>& ranges) {
  std::string text;
  for (const Range& range : ranges) {
    if (!text.empty()) text += ',';
    text += fmt::format("{}-{}", size_text(range.begin), size_text(range.end));
  }
  return text;
}

}  // namespace nvr::slowdisk
