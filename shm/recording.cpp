#include "nvr/recording.h"

#include <algorithm>
#include <charconv>

namespace nvr {
namespace {

template <class T>
bool parse_all(std::string_view text, T& value, int base) {
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value, base);
  return error == std::errc{} && end == last;
}

}  // namespace

Result<RecordingId> RecordingId::parse(std::string_view text) {
  if (const auto slash = text.find('/'); slash != std::string_view::npos) {
    RecordingId id;
    if (parse_all(text.substr(0, slash), id.stream, 10) &&
        parse_all(text.substr(slash + 1), id.recording, 10))
      return id;
  } else if (text.size() == 16 && std::ranges::all_of(text, [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
             })) {
    std::uint64_t composite = 0;
    if (parse_all(text, composite, 16)) return from_composite(composite);
  }
  return fail(Code::kInvalidArgument,
              "'" + std::string(text) +
                  "' names no recording: give STREAM/RECORDING in decimal (3/1842086) or "
                  "the file's 16 lower-case hex digits (00000003001c1ba6)");
}

std::string to_string(RecordingId id) {
  return std::to_string(id.stream) + "/" + std::to_string(id.recording);
}

std::string file_name_of(RecordingId id) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name(16, '0');
  std::uint64_t rest = id.composite();
  for (auto c = name.rbegin(); c != name.rend(); ++c, rest >>= 4) *c = kDigits[rest & 15];
  return name;
}

}  // namespace nvr
