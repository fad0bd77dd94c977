// --config, --check-config, --print-config and --version of the real program.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

ProgramResult run_daemon(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), path_of_daemon());
  return run_program(arguments);
}

std::string write_config(const Site& site, const std::string& text) {
  std::string path = site.root() / "disk.conf";
  std::ofstream(path) << text;
  return path;
}

// The keys without which nothing goes.
std::string basics(const Site& site) {
  return "dir = \"" + site.directory() + "\"\nsocket = \"" + site.socket() + "\"\n";
}

TEST_CASE("a daemon is configured by a file, and the command line goes before it") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100'000);
  const std::string config =
      write_config(site, "# one disk\n" + basics(site) +
                             "max-clients = 3\nclient-memory = \"32MiB\"\nno-sandbox = true\n");
  // DaemonOptions has DIR, the socket and the engine on the command line.
  DaemonProcess daemon(site.options({"--config", config, "--max-clients", "5"}));
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 8});
  CHECK(problem_reading(client, file) == "");
  const auto limits = daemon.status().at("limits");
  CHECK(limits.at("max_clients") == 5);
  CHECK(limits.at("client_memory_bytes") == 32 << 20);
  CHECK_THAT(daemon.log(), !Contains("sandbox:"));
}

TEST_CASE("what --print-config prints is a file for --config that says the same") {
  const Site site;
  const auto printed = run_daemon({"--dir", site.directory(), "--socket", site.socket(), "--allow-uid", "5",
                                   "--allow-uid", "6", "--client-memory", "32MiB", "--device-kind",
                                   "rotational", "--wait-for-dir", "--no-sandbox", "--print-config"});
  CHECK(to_string(printed.exit) == "exit 0");
  CHECK(printed.errors == "");
  for (const char* const line :
       {"allow-uid = [5, 6]\n", "client-memory = 33554432\n", "device-kind = \"rotational\"\n",
        "engine = \"mmap\"\n", "max-clients = 256\n", "no-sandbox = true\n", "wait-for-dir = true\n"})
    CHECK_THAT(printed.output, Contains(line));
  const auto again = run_daemon({"--config", write_config(site, printed.output), "--print-config"});
  CHECK(to_string(again.exit) == "exit 0");
  CHECK(again.output == printed.output);

  const auto defaults = run_daemon({"--config", write_config(site, basics(site)), "--print-config"});
  CHECK_THAT(defaults.output, Contains("no-sandbox = false\n"));
  CHECK(run_daemon({"--config", write_config(site, defaults.output), "--print-config"}).output ==
        defaults.output);
}

TEST_CASE("configuration: --check-config is silent when all is well, and serves nothing") {
  const Site site;
  const auto checked = run_daemon({"--config", write_config(site, basics(site)), "--check-config"});
  CHECK(to_string(checked.exit) == "exit 0");
  CHECK(checked.output == "");
  CHECK(checked.errors == "");
  CHECK(access(site.socket().c_str(), F_OK) != 0);
}

TEST_CASE("a configuration that cannot be right is one line that names what is wrong") {
  const Site site;
  struct Mistake {
    std::string config;
    std::string named;  // in the line
  };
  const Mistake mistakes[] = {
      {basics(site) + "max-cleints = 3\n", "max-cleints"},
      {basics(site) + "max-clients = 0\n", "max-clients"},
      {basics(site) + "max-clients = many\n", "max-clients"},
      {basics(site) + "print-config = true\n", "print-config"},
      {basics(site) + "engine = \"fast\"\n", "engine"},
      {"dir = \"" + site.directory() + "\"\n", "--socket is required"},
      {basics(site) + "[disk2]\n" + basics(site), "disk2"},
      {"dir = \"/nowhere/at/all\"\nsocket = \"" + site.socket() + "\"\n", "/nowhere/at/all"},
      {"dir = \"" + site.directory() + "\"\nsocket = \"/nowhere/reader.sock\"\n", "/nowhere/"}};
  for (const Mistake& mistake : mistakes) {
    CAPTURE(mistake.config);
    const auto checked = run_daemon({"--config", write_config(site, mistake.config), "--check-config"});
    CHECK(to_string(checked.exit) == "exit 2");
    CHECK(checked.output == "");
    CHECK_THAT(checked.errors, Contains(mistake.named) && Catch::Matchers::StartsWith("nvr-readerd: "));
    CHECK(std::count(checked.errors.begin(), checked.errors.end(), '\n') == 1);
  }
}

TEST_CASE("a configuration file that is not there is named") {
  const auto checked = run_daemon({"--config", "/nowhere/disk.conf", "--check-config"});
  CHECK(to_string(checked.exit) == "exit 2");
  CHECK_THAT(checked.errors, Contains("/nowhere/disk.conf"));
}

TEST_CASE("configuration: --version says what was built, by what and with what") {
  const auto version = run_daemon({"--version"});
  CHECK(to_string(version.exit) == "exit 0");
  for (const char* const fact : {"nvr-readerd 0.", "protocol: ", "compiler: ", "build type: ", "liburing 2.",
                                 "kernel headers: ", "kernel features: "})
    CHECK_THAT(version.output, Contains(fact));
}

}  // namespace
}  // namespace nvr::test
