// What a daemon's --metrics says: fetched as a scraper would, and taken apart.
#pragma once

#include <string>

#include "tests/support/daemon_process.h"
#include "tests/support/http.h"

namespace nvr::test {

// The address that the log names; throws when there is none.
[[nodiscard]] inline std::string metrics_url(const DaemonProcess& daemon) {
  constexpr std::string_view kBefore = "metrics: ";
  const std::string log = daemon.log();
  const auto at = log.find(kBefore);
  if (at == std::string::npos) throw TestFailure("the daemon names no address of metrics:\n" + log);
  return log.substr(at + kBefore.size(), log.find('\n', at) - at - kBefore.size());
}

[[nodiscard]] inline Samples scrape(const DaemonProcess& daemon) {
  return samples_of(http_get(metrics_url(daemon)));
}

}  // namespace nvr::test
