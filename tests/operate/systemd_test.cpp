// The units in tools/deploy, judged by systemd-analyze.
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <regex>

#include "tests/support/daemon_process.h"
#include "tests/support/proc.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kAnalyze = "/usr/bin/systemd-analyze";

// The units as they are installed, but for their program, which is the daemon under test.
class Units {
 public:
  Units() {
    for (const char* const name : {"/nvr-readerd@.service", "/nvr-streamer.service"}) {
      std::string service = read_file(std::string(NVR_TEST_UNITS) + name);
      REQUIRE_THAT(service, Contains("ExecStart=/"));
      service = std::regex_replace(service, std::regex("ExecStart=[^ ]*"), "ExecStart=" + path_of_daemon());
      std::ofstream(root_.path() + name) << service;
    }
    std::ofstream(root_ / "nvr-readerd@.socket")
        << read_file(std::string(NVR_TEST_DEPLOY) + "/systemd/nvr-readerd@.socket");
  }
  [[nodiscard]] std::string service() const { return root_ / "nvr-readerd@.service"; }
  [[nodiscard]] std::string streamer() const { return root_ / "nvr-streamer.service"; }
  [[nodiscard]] std::string socket() const { return root_ / "nvr-readerd@.socket"; }
  [[nodiscard]] const TempDir& root() const { return root_; }

 private:
  TempDir root_;
};

bool is_there() {
  if (access(kAnalyze, X_OK) == 0) return true;
  skip_or_fail("no systemd-analyze");
  return false;
}

TEST_CASE("systemd-analyze verify finds nothing wrong with the units") {
  if (!is_there()) return;
  const Units units;
  const auto verified =
      run_program({kAnalyze, "verify", "--man=no", units.service(), units.socket(), units.streamer()});
  CHECK(to_string(verified.exit) == "exit 0");
  CHECK(verified.output + verified.errors == "");
}

TEST_CASE("systemd-analyze security finds the services well confined") {
  if (!is_there()) return;
  const Units units;
  const auto judge = [](const std::string& unit, int tenths) {
    const auto judged = run_program({kAnalyze, "security", "--offline=true", "--no-pager",
                                     "--threshold=" + std::to_string(tenths), unit});
    CAPTURE(judged.output + judged.errors);
    CHECK(to_string(judged.exit) == "exit 0");
    CHECK_THAT(judged.output, Contains("Overall exposure level"));
  };
  judge(units.service(), 15);
  judge(units.streamer(), 20);  // it has the network
}

TEST_CASE("the drop-in for metrics is understood, and nothing else is lost by it") {
  if (!is_there()) return;
  const Units units;
  const std::string directory = units.service() + ".d";
  REQUIRE(mkdir(directory.c_str(), 0755) == 0);
  std::ofstream(directory + "/metrics.conf")
      << read_file(std::string(NVR_TEST_DEPLOY) + "/systemd/metrics.conf");
  const auto verified = run_program({kAnalyze, "verify", "--man=no", units.service(), units.socket()});
  CHECK(verified.output + verified.errors == "");
  const auto judged =
      run_program({kAnalyze, "security", "--offline=true", "--no-pager", "--threshold=20", units.service()});
  CAPTURE(judged.output + judged.errors);
  CHECK(to_string(judged.exit) == "exit 0");
}

}  // namespace
}  // namespace nvr::test
