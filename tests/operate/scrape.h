// What a daemon's --metrics says: fetched as a scraper would, and taken apart.
#pragma once

#include <map>
#include <string>

#include "tests/support/daemon_process.h"

namespace nvr::test {

// The address that the log names; throws when there is none.
[[nodiscard]] std::string metrics_url(const DaemonProcess& daemon);

// The body of the answer to GET of `url` (http://127.0.0.1:PORT/...). Throws when the answer is not 200.
[[nodiscard]] std::string http_get(const std::string& url);

// Series as they are written ("nvr_readerd_opens_total{result=\"NotFound\"}") and their values.
using Samples = std::map<std::string, double>;
[[nodiscard]] Samples scrape(const DaemonProcess& daemon);

}  // namespace nvr::test
