// The real daemon: every thread of it is confined, the log says how, and it serves all the same.
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>

#include "daemon/admission.h"
#include "shm/protocol.h"
#include "tests/sandbox/inside.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

using Status = std::map<std::string, std::string>;

Status status_of(const std::filesystem::path& task) {
  Status status;
  std::ifstream lines(task / "status");
  for (std::string key, value; lines >> key && std::getline(lines >> std::ws, value);) status[key] = value;
  return status;
}

std::vector<Status> threads(pid_t pid) {
  std::vector<Status> all;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task"))
    all.push_back(status_of(task.path()));
  return all;
}

bool is_worker(const Status& thread) {  // a kernel thread; it works with the rights of who submitted
  return thread.at("Name:").starts_with("iou-");
}

TEST_CASE("every thread of the daemon is confined, and the log says by what", "[plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Site site;
  const RecordingFile file = site.record({1, 1}, 500'000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  int own_threads = 0;
  for (Status& thread : threads(daemon.pid())) {
    CAPTURE(thread["Name:"]);
    CHECK(thread["Seccomp:"] == "2");
    CHECK(thread["NoNewPrivs:"] == "1");
    if (is_worker(thread)) continue;
    ++own_threads;
    const bool reads_for_others =
        geteuid() == 0 && (thread["Name:"].starts_with("r-") || thread["Name:"] == "watch");
    const std::uint64_t kept = reads_for_others ? 1u << CAP_DAC_READ_SEARCH : 0;
    for (const char* const set : {"CapPrm:", "CapEff:", "CapInh:", "CapAmb:"}) {
      CAPTURE(set);
      const bool may_keep = set == std::string("CapPrm:") || set == std::string("CapEff:");
      CHECK(std::stoull(thread[set], nullptr, 16) == (may_keep ? kept : 0));
    }
  }
  CHECK(own_threads == 4);  // control, disk, log, watch
  CHECK_THAT(daemon.log(), Contains("sandbox: seccomp, landlock abi ") && Contains("no capabilities"));
  CHECK((daemon.log().find(", io_uring restrictions, ") != std::string::npos) ==
        (engine_under_test() == "io_uring"));
}

TEST_CASE("with --no-sandbox nothing is given up") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 500'000);
  const DaemonProcess daemon = site.start({"--no-sandbox"});
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  const Status own = status_of("/proc/self");
  for (Status& thread : threads(daemon.pid())) {
    CAPTURE(thread["Name:"]);
    for (const char* const key : {"Seccomp:", "NoNewPrivs:", "CapEff:"}) CHECK(thread[key] == own.at(key));
  }
  CHECK_THAT(daemon.log(), !Contains("sandbox:"));
}

TEST_CASE("its limit of descriptors is what its bounds can ask for") {
  const Site site;
  const DaemonProcess daemon = site.start({"--max-clients", "2"});
  const std::string limits = read_file("/proc/" + std::to_string(daemon.pid()) + "/limits");
  std::istringstream line(limits.substr(limits.find("Max open files")));
  std::string word;
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
  line >> word >> word >> word >> soft >> hard;
  CHECK(soft == hard);
  CHECK(soft >= 64);
  const std::uint64_t reserve = 2 * (daemon::kMaxHandshakes + daemon::kMaxControlConnections) + 32;
  CHECK(soft <= 64 + reserve + 2 * (daemon::DescriptorBudget::kOfConnection + shm::kMaxStreams));
}

TEST_CASE("root's daemon reads the files of others, and releases its socket in a directory of another's") {
  if (geteuid() != 0) return skip_or_fail("files of other users need root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 500'000);
  REQUIRE(chown(file.path.c_str(), kNobody, kNobody) == 0);
  REQUIRE(chmod(file.path.c_str(), 0400) == 0);
  const std::string run = site.root() / "run";
  REQUIRE(mkdir(run.c_str(), 0755) == 0);
  REQUIRE(chown(run.c_str(), kNobody, kNobody) == 0);
  DaemonOptions options = site.options();
  options.socket = run + "/reader.sock";
  DaemonProcess daemon(options);
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  CHECK(to_string(daemon.terminate()) == "exit 0");
  CHECK(access(options.socket.c_str(), F_OK) != 0);
}

}  // namespace
}  // namespace nvr::test
