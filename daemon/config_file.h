// The text of a configuration file: a key and its value on each line.
//
//   # a comment
//   dir = "/media/disk1/sample"     a value with spaces or '#' stands in quotes, double or single
//   allow-uid = [1001, 1002]        a list, which may go on over several lines
//   wait-for-dir                    a key alone is "true"
//
// Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace nvr::daemon {

struct ConfigSetting {
  std::size_t line;  // counted from 1
  std::string key;
  std::vector<std::string> values;  // without quotes; never none, several for a list
};

struct ConfigMistake {
  std::size_t line;
  std::string what;
};

struct ConfigText {
  std::vector<ConfigSetting> settings;  // of the lines that can be read
  std::vector<ConfigMistake> mistakes;  // in the others
};

[[nodiscard]] ConfigText parse_config(std::string_view text);

}  // namespace nvr::daemon
