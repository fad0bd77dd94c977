// What the disk does wrong, at random: one fault at a time, or several.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tools/lab/image_disk.h"
#include "tools/lab/recording_file.h"
#include "tools/soaker/ledger.h"

namespace nvr::soak {

class Faults {
 public:
  // `files` lie in `directory` of the disk.
  Faults(lab::ImageDisk& disk, std::string directory, const std::vector<lab::RecordingFile>& files,
         Ledger& ledger, std::uint64_t seed);

  // Puts one or two into force.
  void break_something();
  // Lifts all.
  void mend();
  // How often there was which.
  [[nodiscard]] const std::map<std::string, std::uint64_t>& by_kind() const { return by_kind_; }

 private:
  lab::ImageDisk& disk_;
  std::string directory_;
  const std::vector<lab::RecordingFile>& files_;
  Ledger& ledger_;
  std::mt19937_64 random_;
  std::map<std::string, std::uint64_t> by_kind_;
};

}  // namespace nvr::soak
