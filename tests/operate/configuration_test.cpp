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
      {basics(site) + "no-sandbox = []\n", ":3: 'no-sandbox' has no value"},
      {basics(site) + "allow-uid = [ , ]\n", ":3: 'allow-uid' has no value"},
      {basics(site) + "no-sandbox = [true, false]\n", ":3: 'no-sandbox' is true or false"},
      {basics(site) + "[disk2]\n", "disk2"},
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

TEST_CASE("every mistake of a configuration is told at once, with its line and the nearest key") {
  const Site site;
  const std::string config = write_config(
      site, "dir = \"" + site.directory() + "\"\n# alow-uid = 1\nalow-uid = 1001\n" + "socket = \"/run/" +
                std::string(200, 's') + "\"\nmax-clients = many\n" +
                "client-memory = 128\ndir = \"/elsewhere\"\nmetrics = \"nowhere\"\nreserve = 20 30\n" +
                "engine = \"mmap\n[disk2]\nallow-uid = [5,\n  6\n");
  const auto checked = run_daemon({"--config", config, "--check-config"});
  CHECK(to_string(checked.exit) == "exit 2");
  const std::pair<int, std::string> mistakes[] = {
      {3, "unknown key 'alow-uid' (did you mean 'allow-uid'?)"},
      {5, "--max-clients: Value many not in range 1 to 4096"},
      {7, "'dir' again, after line 1"},
      {9, "--reserve: Value 20 30 not in range 0 to 90"},
      {10, "'engine': the quotes have no end"},
      {11, "'[disk2]': there are no sections, one file configures one disk"},
      {12, "'allow-uid': the list has no end (a ']')"},
      {4, "--socket is too long: a socket's path has up to 107 bytes"},
      {8, "--metrics 'nowhere' is no address: HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464"},
      {6,
       "--client-memory 128 (bytes) would admit nobody: the smallest connection needs 147456; a size may "
       "have "
       "a unit (64MiB) (see nvr-readerd --help)"}};
  std::string expected;
  for (const auto& [line, what] : mistakes)
    expected += "nvr-readerd: " + config + ":" + std::to_string(line) + ": " + what + "\n";
  CHECK(checked.errors == expected);
}

TEST_CASE("a mistake on the command line is not told as one of the file's") {
  const Site site;
  const auto checked = run_daemon({"--config", write_config(site, basics(site) + "client-memory = 64MiB\n"),
                                   "--client-memory", "128", "--check-config"});
  CHECK(to_string(checked.exit) == "exit 2");
  CHECK_THAT(checked.errors, Catch::Matchers::StartsWith("nvr-readerd: --client-memory 128 (bytes)"));
}

TEST_CASE("an option or a command that is mistyped is told with the one that it may have been") {
  struct Mistake {
    std::vector<std::string> command;
    std::string told;
  };
  const std::string ctl = path_of_ctl(), cat = path_of_cat();
  const Mistake mistakes[] = {
      {{path_of_daemon(), "--dirr", "/tmp", "--socket=/tmp/s", "--max-client=3"},
       "nvr-readerd: unknown option '--dirr' (did you mean '--dir'?)\n"
       "nvr-readerd: unknown option '--max-client' (did you mean '--max-clients'?) (see nvr-readerd "
       "--help)\n"},
      {{path_of_daemon(), "--color"}, "nvr-readerd: unknown option '--color' (see nvr-readerd --help)\n"},
      {{ctl, "stauts"},
       "nvr-readerctl: unexpected argument 'stauts' (did you mean 'status'?) (see --help)\n"},
      {{ctl, "status", "--jsn"},
       "nvr-readerctl: unknown option '--jsn' (did you mean '--json'?) (see --help)\n"},
      {{cat, "--sokcet", "/tmp/s", "1/1"},
       "nvr-cat: unknown option '--sokcet' (did you mean '--socket'?) (see --help)\n"}};
  for (const Mistake& mistake : mistakes) {
    const auto result = run_program(mistake.command);
    CHECK(to_string(result.exit) == "exit 2");
    CHECK(result.errors == mistake.told);
  }
}

TEST_CASE("a value of the configuration may have any character, and a list several lines") {
  const Site site;
  const auto printed =
      run_daemon({"--config",
                  write_config(site,
                               "dir = '/media/a#1, \"b\"'  # the first\nsocket = /run/a b.sock # here\n"
                               "allow-uid = [5, # the streamer\n  '6']\nallow-uid = 7\nwait-for-dir\n"),
                  "--print-config"});
  CHECK(printed.errors == "");
  for (const char* const line : {"dir = '/media/a#1, \"b\"'\n", "socket = \"/run/a b.sock\"\n",
                                 "allow-uid = [5, 6, 7]\n", "wait-for-dir = true\n"})
    CHECK_THAT(printed.output, Contains(line));
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
