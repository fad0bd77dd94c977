// Prometheus and its tools understand the metrics.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "tests/operate/scrape.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kPrometheus = "/usr/bin/prometheus";
constexpr const char* kPromtool = "/usr/bin/promtool";

bool is_there() {
  if (access(kPrometheus, X_OK) == 0 && access(kPromtool, X_OK) == 0) return true;
  skip_or_fail("no prometheus or no promtool");
  return false;
}

// A daemon of which every metric has something to say.
struct Served {
  Site site;
  RecordingFile file = site.record({1, 1}, 20 * kChunkBytes);
  DaemonProcess daemon = site.start({"--metrics", "127.0.0.1:0", "--device-kind", "rotational"});

  Served() {
    Client client = connect_to(daemon);
    CHECK(problem_reading(client, file) == "");
    Stream missing = open_stream(client, {.recording = {9, 9}});
    CHECK(code_of(missing.next()) == Code::kNotFound);
  }
};

TEST_CASE("promtool finds nothing wrong with the metrics") {
  if (!is_there()) return;
  const Served served;
  const std::string path = served.site.root() / "metrics";
  std::ofstream(path) << http_get(metrics_url(served.daemon));
  const auto checked = run_program({"/bin/sh", "-c", std::string(kPromtool) + " check metrics < " + path});
  CHECK(to_string(checked.exit) == "exit 0");
  CHECK(checked.output + checked.errors == "");
}

int free_port() {
  const shm::UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0)
    throw TestFailure("no port is free");
  return ntohs(address.sin_port);
}

TEST_CASE("a real Prometheus scrapes the daemon") {
  if (!is_there()) return;
  const Served served;
  const std::string url = metrics_url(served.daemon);
  const std::string target = url.substr(7, url.find('/', 7) - 7);
  const std::string config = served.site.root() / "prometheus.yml";
  std::ofstream(config) << "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
                        << "scrape_configs:\n- job_name: nvr-readerd\n  static_configs:\n  - targets: ['"
                        << target << "']\n";
  const std::string own = "http://127.0.0.1:" + std::to_string(free_port());
  const Capture log;
  Process prometheus = spawn({.argv = {kPrometheus, "--config.file=" + config,
                                       "--storage.tsdb.path=" + (served.site.root() / "data"),
                                       "--web.listen-address=" + own.substr(7)},
                              .uid = {},
                              .max_descriptors = {}},
                             log.fd(), log.fd());
  const auto ask = [&](const std::string& what) -> nlohmann::json {
    try {
      return nlohmann::json::parse(http_get(own + "/api/v1/" + what));
    } catch (const TestFailure&) {  // not up yet
      return {};
    }
  };
  const auto value_of = [&](const std::string& metric) -> std::string {
    const auto answer = ask("query?query=" + metric);
    if (answer.is_null() || answer.at("data").at("result").empty()) return "";
    return answer.at("data").at("result").at(0).at("value").at(1).get<std::string>();
  };
  const bool scraped = wait_until([&] { return value_of("nvr_readerd_published_chunks_total") == "20"; });
  CAPTURE(log.text());
  CHECK(scraped);
  CHECK(value_of("up") == "1");
  CHECK(value_of("nvr_readerd_first_chunk_seconds_count") == "1");
  prometheus.signal(SIGTERM);
  CHECK(prometheus.wait().has_value());
}

}  // namespace
}  // namespace nvr::test
