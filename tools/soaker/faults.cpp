#include "tools/soaker/faults.h"

#include <fmt/format.h>

#include <cstdlib>

#include "shm/clock.h"

namespace nvr::soak {

Faults::Faults(std::string order_command, std::vector<std::pair<std::string, std::uint64_t>> files,
               Ledger& ledger, std::uint64_t seed)
    : order_command_(std::move(order_command)), files_(std::move(files)), ledger_(ledger), random_(seed) {}

bool Faults::order(const std::string& text) const {
  return std::system((order_command_ + " " + text + " > /dev/null").c_str()) == 0;
}

bool Faults::break_something() {
  const auto upto = [&](std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random_);
  };
  for (std::uint64_t i = upto(1, 2); i > 0; --i) {
    const auto& [name, length] = files_[upto(0, files_.size() - 1)];
    const std::uint64_t begin = upto(0, length / 4096 - 1) * 4096;
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
    if (!order(text)) return false;
    ++by_kind_[kind];
  }
  return true;
}

bool Faults::mend() {
  const bool mended = order("clear");
  if (ledger_.fails_until_ns.load() == UINT64_MAX) ledger_.fails_until_ns.store(shm::now_ns());
  return mended;
}

}  // namespace nvr::soak
