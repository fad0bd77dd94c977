#include "tools/soaker/faults.h"

#include <fmt/format.h>

#include "shm/clock.h"

namespace nvr::soak {

Faults::Faults(lab::ImageDisk& disk, std::string directory, const std::vector<lab::RecordingFile>& files,
               Ledger& ledger, std::uint64_t seed)
    : disk_(disk), directory_(std::move(directory)), files_(files), ledger_(ledger), random_(seed) {}

void Faults::break_something() {
  const auto upto = [&](std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random_);
  };
  for (std::uint64_t i = upto(1, 2); i > 0; --i) {
    const lab::RecordingFile& file = files_[upto(0, files_.size() - 1)];
    const std::string name = directory_ + "/" + file_name_of(file.id);
    const std::uint64_t begin = upto(0, file.size / 4096 - 1) * 4096;
    const std::uint64_t end = begin + upto(1, 64) * 4096;
    const std::string range = fmt::format("file {} {}-{}", name, begin, end);
    std::string kind;
    std::string text;
    switch (upto(0, 7)) {
      case 0:
        kind = "delay of all", text = fmt::format("delay {}ms", upto(1, 40));
        break;
      case 1:
        kind = "delay of some", text = fmt::format("delay {}ms {}%", upto(50, 500), upto(5, 40));
        break;
      case 2:
        kind = "stall of all", text = "stall";
        break;
      case 3:
        kind = "stall of a file", text = "stall file " + name;
        break;
      case 4:
        kind = "stall of a range", text = "stall " + range;
        break;
      case 5:
        kind = "EIO in a range", text = "eio " + range;
        break;
      case 6:
        kind = "EIO in a range once", text = "eio " + range + " once";
        break;
      default:
        kind = "EIO in a file by chance", text = fmt::format("eio file {} {}%", name, upto(5, 50));
        break;
    }
    // Before it can happen.
    if (kind.starts_with("EIO")) ledger_.fails_until_ns.store(UINT64_MAX);
    disk_.order(text);
    ++by_kind_[kind];
  }
}

void Faults::mend() {
  disk_.order("clear");
  if (ledger_.fails_until_ns.load() == UINT64_MAX) ledger_.fails_until_ns.store(shm::now_ns());
}

}  // namespace nvr::soak
