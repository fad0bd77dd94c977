// What tools/deploy gives to those who watch: Prometheus and its tools understand the metrics and the alerts,
// and the dashboard asks for nothing that is not there.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "tests/operate/scrape.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kPrometheus = "/usr/bin/prometheus";
constexpr const char* kPromtool = "/usr/bin/promtool";
const std::string kDeploy = NVR_TEST_DEPLOY;

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

TEST_CASE("the alert rules are right, and their tests hold") {
  if (!is_there()) return;
  const auto rules =
      run_program({kPromtool, "check", "rules", kDeploy + "/prometheus/nvr-readerd-alerts.yml"});
  CAPTURE(rules.output + rules.errors);
  CHECK(to_string(rules.exit) == "exit 0");
  const auto tested =
      run_program({kPromtool, "test", "rules", kDeploy + "/prometheus/nvr-readerd-alerts.test.yml"});
  CAPTURE(tested.output + tested.errors);
  CHECK(to_string(tested.exit) == "exit 0");
}

// Names of metrics in a text; those of a histogram's parts as Prometheus has them.
std::set<std::string> names_in(const std::string& text) {
  static const std::regex kName("nvr_readerd_[a-z_]+");
  std::set<std::string> names;
  for (std::sregex_iterator at(text.begin(), text.end(), kName), end; at != end; ++at)
    names.insert(at->str());
  return names;
}

void collect_queries(const nlohmann::json& json, std::string& queries) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_structured()) collect_queries(value, queries);
    if (key == "expr" || key == "query" || key == "definition")
      queries += (value.is_string() ? value.get<std::string>() : value.dump()) + "\n";
  }
}

TEST_CASE("dashboard and alerts ask for metrics that there are") {
  if (!is_there()) return;
  const Served served;
  const std::set<std::string> there = names_in(http_get(metrics_url(served.daemon)));
  std::string queries;
  collect_queries(nlohmann::json::parse(read_file(kDeploy + "/grafana/nvr-readerd.json")), queries);
  const std::set<std::string> shown = names_in(queries);
  CHECK(shown.size() > 20);
  std::string expressions;
  std::istringstream lines(read_file(kDeploy + "/prometheus/nvr-readerd-alerts.yml"));
  for (std::string line; std::getline(lines, line);)
    if (line.find("summary") == std::string::npos) expressions += line + "\n";
  std::set<std::string> asked = names_in(expressions);
  CHECK(asked.size() > 5);
  asked.insert(shown.begin(), shown.end());
  for (const std::string& name : asked) {
    CAPTURE(name);
    CHECK(there.contains(name));
  }
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

TEST_CASE("a real Prometheus scrapes the daemon and loads the alerts") {
  if (!is_there()) return;
  const Served served;
  const std::string url = metrics_url(served.daemon);
  const std::string target = url.substr(7, url.find('/', 7) - 7);
  const std::string config = served.site.root() / "prometheus.yml";
  std::ofstream(config) << "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
                        << "rule_files: ['" << kDeploy << "/prometheus/nvr-readerd-alerts.yml']\n"
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
  const auto rules = ask("rules");
  REQUIRE_FALSE(rules.is_null());
  CHECK(rules.at("data").at("groups").at(0).at("rules").size() >= 4);
  prometheus.signal(SIGTERM);
  CHECK(prometheus.wait().has_value());
}

}  // namespace
}  // namespace nvr::test
