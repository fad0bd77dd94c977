// Too many of anything is ResourceExhausted at once, and touches nobody who is already there.
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

Code code_of_connect(const DaemonProcess& daemon, ConnectOptions options = {}) {
  const auto client = Client::connect(daemon.socket(), options);
  return client ? Code::kOk : client.error().code;
}

// What a connection with these options costs. All of them are small.
constexpr ConnectOptions kSmall = {.streams = 2, .slots_per_stream = 2};

TEST_CASE("more clients than --max-clients are ResourceExhausted until one leaves", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess daemon = site.start({"--max-clients", "2"});
  Client first = connect_to(daemon, kSmall);
  {
    Client second = connect_to(daemon, kSmall);
    CHECK(code_of_connect(daemon, kSmall) == Code::kResourceExhausted);
    CHECK(code_of_connect(daemon, kSmall) == Code::kResourceExhausted);
    CHECK(problem_reading(first, file) == "");
    CHECK(problem_reading(second, file) == "");
    CHECK(daemon.total("connections_now") == 2);  // status has a connection of its own
  }
  CHECK(wait_until([&] { return code_of_connect(daemon, kSmall) == Code::kOk; }));
  CHECK(problem_reading(first, file) == "");
}

TEST_CASE("more than --client-memory is ResourceExhausted and names the remedy", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start({"--client-memory", "4MiB"});
  const auto refused = Client::connect(daemon.socket(), {.streams = 16, .slots_per_stream = 32});
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::kResourceExhausted);
  CAPTURE(refused.error().message);
  CHECK(refused.error().message.find("--client-memory") != std::string::npos);
  CHECK(code_of_connect(daemon, {.streams = 64, .slots_per_stream = 1 << 1}) == Code::kResourceExhausted);
  CHECK(code_of_connect(daemon, {.streams = 2, .slots_per_stream = 16}) == Code::kOk);
  CHECK(daemon.wait_for_total("shared_bytes", 0));
}

TEST_CASE("options out of range are InvalidArgument", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  for (const ConnectOptions options :
       {ConnectOptions{.streams = 0}, ConnectOptions{.streams = 257}, ConnectOptions{.slots_per_stream = 0},
        ConnectOptions{.slots_per_stream = 1}, ConnectOptions{.slots_per_stream = 3},
        ConnectOptions{.slots_per_stream = 128}}) {
    CAPTURE(options.streams, options.slots_per_stream);
    CHECK(code_of_connect(daemon, options) == Code::kInvalidArgument);
  }
}

TEST_CASE("more streams than the connection has are ResourceExhausted until one ends", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 3, .slots_per_stream = 4});
  std::vector<Stream> streams;
  for (int i = 0; i < 3; ++i) {
    auto stream = client.open({.recording = file.id});
    REQUIRE(stream.has_value());
    streams.push_back(std::move(*stream));
  }
  for (int i = 0; i < 3; ++i) {
    auto stream = client.open({.recording = file.id});
    REQUIRE_FALSE(stream.has_value());
    CHECK(stream.error().code == Code::kResourceExhausted);
    const auto info = client.stat(file.id);
    REQUIRE_FALSE(info.has_value());
    CHECK(info.error().code == Code::kResourceExhausted);
  }
  for (Stream& stream : streams) CHECK(problem_reading(stream, file, 0, file.size) == "");
  streams.clear();
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("a daemon out of descriptors refuses and recovers and keeps its clients") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  DaemonOptions options = site.options();
  options.max_descriptors = 64;
  DaemonProcess daemon(options);
  Client first = connect_to(daemon, kSmall);
  Stream open = open_stream(first, file);
  REQUIRE(open.info().has_value());  // the file is open before there are no more descriptors
  {
    std::vector<Client> clients;
    Code refusal = Code::kOk;
    for (int i = 0; i < 64 && refusal == Code::kOk; ++i) {
      auto client = Client::connect(
          daemon.socket(), {.streams = 2, .slots_per_stream = 2, .timeout = std::chrono::milliseconds(500)});
      if (client)
        clients.push_back(std::move(*client));
      else
        refusal = client.error().code;
    }
    INFO("refused with " << nvr::to_string(refusal) << " after " << clients.size());
    CHECK((refusal == Code::kResourceExhausted || refusal == Code::kUnavailable ||
           refusal == Code::kDeadlineExceeded));
    CHECK(problem_reading(open, file, 0, file.size) == "");
  }
  CHECK(wait_until([&] { return code_of_connect(daemon, kSmall) == Code::kOk; }));
  CHECK(problem_reading(first, file) == "");
  CHECK(daemon.is_running());
}

// UBSan opens a pipe to see whether an object is one of its type.
TEST_CASE("more open files than the limit leaves to one user are ResourceExhausted until one is closed",
          "[plain]") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const bool is_root = GENERATE(false, true);
  DaemonOptions options = site.options({"--allow-uid", std::to_string(kNobody)});
  options.max_descriptors = 100;
  const DaemonProcess daemon(options);
  const auto reads_beyond_the_bound = [&](const Reporter&) {
    Client client = connect_to(daemon, {.streams = 100, .slots_per_stream = 2});
    std::vector<Stream> open;
    std::optional<Error> refused;
    while (!refused && open.size() < 100) {
      Stream stream = open_stream(client, file);
      const auto info = stream.info();
      if (info)
        open.push_back(std::move(stream));
      else
        refused = info.error();
    }
    Reporter::require(refused && refused->code == Code::kResourceExhausted, "not refused");
    for (const char* const part : {is_root ? "as it may have" : "as one user may have", "RLIMIT_NOFILE",
                                   "LimitNOFILE=", "end other streams"})
      Reporter::require(refused->message.find(part) != std::string::npos, refused->message);
    // Root may have all that there is for clients, another user half.
    Reporter::require(open.size() >= 8 && open.size() < (is_root ? 70 : 35), std::to_string(open.size()));
    for (Stream& stream : open) {
      const std::string problem = problem_reading(stream, file, 0, file.size);
      Reporter::require(problem.empty(), problem);
    }
    const std::size_t most = open.size();
    for (int round = 0; round < 3; ++round) {
      open.clear();
      for (std::size_t i = 0; i < most; ++i) {
        std::optional<Stream> stream;  // the last ones may not have been closed yet
        Reporter::require(
            wait_until([&] { return stream.emplace(open_stream(client, file)).info().has_value(); }),
            "what was given back cannot be had again");
        open.push_back(std::move(*stream));
      }
    }
  };
  CHECK(ClientProcess::start(reads_beyond_the_bound, is_root ? 0 : kNobody).failure() == "");
  REQUIRE(daemon.wait_for_total("shared_bytes", 0));  // it has let go of that client
  Client next = connect_to(daemon, kSmall);
  CHECK(problem_reading(next, file) == "");
}

TEST_CASE("memory that a client holds on to counts as long and comes back when it lets go") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 10 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  const Baseline baseline(daemon.pid());
  {
    std::optional<Client> client = connect_to(daemon, kSmall);
    auto chunk = open_stream(*client, file).next();
    REQUIRE(code_of(chunk) == Code::kOk);
    client.reset();
    CHECK(daemon.wait_for_total("connections_now", 0));
    CHECK(wait_until([&] { return daemon.total("held_bytes") > 0; }));  // the disk thread has let go of it
    CHECK(daemon.total("shared_bytes") == daemon.total("held_bytes"));
    CHECK(file.difference(0, (*chunk)->bytes()) == "");
  }
  CHECK(daemon.wait_for_total("shared_bytes", 0));
  CHECK(baseline.difference_after_waiting() == "");
}

TEST_CASE("connecting and leaving many times costs the daemon nothing") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess daemon = site.start();
  {
    Client client = connect_to(daemon);
    CHECK(problem_reading(client, file) == "");
  }
  REQUIRE(daemon.wait_for_total("shared_bytes", 0));
  const Baseline baseline(daemon.pid());
  for (int i = 0; i < scaled(500, 100); ++i) {
    Client client = connect_to(daemon, kSmall);
    if (i % 3 == 0) CHECK(problem_reading(client, file) == "");
    if (i % 3 == 1) static_cast<void>(client.open({.recording = file.id}));
  }
  CHECK(daemon.wait_for_total("shared_bytes", 0));
  CHECK(baseline.difference_after_waiting() == "");
}

}  // namespace
}  // namespace nvr::test
