// What the reports have in common: reading the daemon's JSON without trusting it, and saying quantities as
// people do. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace nvr::tools {

// A member of an object. What is missing, or of another type, is null, 0, "?" or false: the daemon may be
// older or newer than this tool.
[[nodiscard]] const nlohmann::json& child(const nlohmann::json& object, const char* key);
[[nodiscard]] double number(const nlohmann::json& object, const char* key);
[[nodiscard]] std::int64_t integer(const nlohmann::json& object, const char* key);
[[nodiscard]] std::string text_of(const nlohmann::json& object, const char* key);
[[nodiscard]] bool flag(const nlohmann::json& object, const char* key);

// Streams that are open and have not ended, of a status's "totals". A daemon that does not count those that
// have ended counts them with the open ones.
[[nodiscard]] std::int64_t streams_served(const nlohmann::json& totals);

// Without control characters: directories and processes may be named anything, and could rewrite the
// terminal.
[[nodiscard]] std::string printable(std::string name);

[[nodiscard]] std::string bytes(double count);               // "1.5 MiB"
[[nodiscard]] std::string microseconds(double us);           // "1.5 ms"
[[nodiscard]] std::string duration(double seconds);          // "3 min 2 s"
[[nodiscard]] std::string brief_duration(double seconds);    // "3m02s"
[[nodiscard]] std::string grouped(std::int64_t count);       // "65,536"
[[nodiscard]] std::string clock_time(std::int64_t epoch_s);  // local, with the date

}  // namespace nvr::tools
