// What the disk does wrong, at random: one fault at a time, or several.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tools/soaker/ledger.h"

namespace nvr::soak {

class Faults {
 public:
  // `order_command` is followed by the order; `files` are named as orders name them, with their lengths.
  Faults(std::string order_command, std::vector<std::pair<std::string, std::uint64_t>> files, Ledger& ledger,
         std::uint64_t seed);

  // Puts one or two into force. False: the disk did not take the order.
  [[nodiscard]] bool break_something();
  // Lifts all. False: the same.
  [[nodiscard]] bool mend();
  // How often there was which.
  [[nodiscard]] const std::map<std::string, std::uint64_t>& by_kind() const { return by_kind_; }

 private:
  [[nodiscard]] bool order(const std::string& text) const;

  std::string order_command_;
  std::vector<std::pair<std::string, std::uint64_t>> files_;
  Ledger& ledger_;
  std::mt19937_64 random_;
  std::map<std::string, std::uint64_t> by_kind_;
};

}  // namespace nvr::soak
