// tools/deploy/nginx under the real nginx, before the streamers of two hosts that have copies of the same
// recordings.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/streamer/streamer_process.h"
#include "tests/support/proc.h"

namespace nvr::test {
namespace {

constexpr double kSlice = 512 << 10;  // the configuration's

void replace(std::string& text, const std::string& what, const std::string& with) {
  const auto at = text.find(what);
  if (at == std::string::npos) throw TestFailure("the configuration has no '" + what + "'");
  text.replace(at, what.size(), with);
}

// The configuration of the repository with places and ports of the test's own.
class Nginx {
 public:
  Nginx(const StreamerProcess& one, const StreamerProcess& two) {
    std::string configuration = read_file(NVR_TEST_NGINX_CONFIGURATION);
    replace(configuration, "host1.example:8080", "127.0.0.1:" + std::to_string(one.port()));
    replace(configuration, "host2.example:8080", "127.0.0.1:" + std::to_string(two.port()));
    replace(configuration, "/var/cache/nginx/nvr", root_ / "cache");
    replace(configuration, "listen 80;", "listen unix:" + socket() + ";");
    write_file(root_ / "nvr-streamers.conf", configuration);
    std::string main = "daemon off;\npid " + (root_ / "pid") + ";\nerror_log stderr warn;\n";
    if (geteuid() == 0) main += "user root;\n";
    main += "events {}\nhttp {\n  access_log off;\n";
    for (const char* const kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"})
      main += std::string("  ") + kind + "_temp_path " + (root_ / kind) + ";\n";
    main += "  include " + (root_ / "nvr-streamers.conf") + ";\n}\n";
    write_file(root_ / "nginx.conf", main);
    process_.emplace(spawn(
        {.argv = {path_of_program("nginx"), "-e", "stderr", "-p", root_.path(), "-c", root_ / "nginx.conf"},
         .uid = {},
         .max_descriptors = {}},
        log_.fd(), log_.fd()));
    if (!wait_until([&] { return access(socket().c_str(), F_OK) == 0 || !process_->is_running(); }) ||
        !process_->is_running())
      throw TestFailure("nginx does not start: " + log_.text());
  }
  ~Nginx() {
    process_->signal(SIGTERM);
    if (!process_->wait()) report_late_failure("nginx does not end");
  }
  Nginx(const Nginx&) = delete;
  Nginx& operator=(const Nginx&) = delete;

  [[nodiscard]] std::string socket() const { return root_ / "socket"; }
  [[nodiscard]] std::string log() const { return log_.text(); }

  // What curl says of the target: its output, and how it ended.
  [[nodiscard]] ProgramResult get(const std::string& target,
                                  const std::vector<std::string>& arguments = {}) const {
    std::vector<std::string> argv = {
        path_of_program("curl"), "--silent", "--show-error",       "--max-time", "60",
        "--unix-socket",         socket(),   "http://nvr" + target};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    return run_program(argv);
  }
  [[nodiscard]] std::string status_of(const std::string& target,
                                      const std::vector<std::string>& arguments = {}) const {
    std::vector<std::string> all = {"--output", "/dev/null", "--write-out", "%{http_code}"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return get(target, all).output;
  }

 private:
  TempDir root_;
  Capture log_;
  std::optional<Process> process_;
};

// A host: a disk, its daemon and its streamer.
struct Host {
  Host() : daemon(site.start()) {}
  void start(std::vector<std::string> arguments = {}) {
    arguments.emplace_back("--replicas");
    streamer.emplace(std::vector<std::pair<std::string, std::string>>{{"disk1", daemon.socket()}}, arguments);
  }
  [[nodiscard]] double sent() const {
    return streamer->metric("nvr_streamer_body_bytes_total{disk=\"disk1\"}");
  }

  Site site;
  DaemonProcess daemon;
  std::optional<StreamerProcess> streamer;
};

// Nobody has written to it for a while.
void let_rest(const std::string& path) {
  std::filesystem::last_write_time(path,
                                   std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
}

// As rsync -t does it.
void copy_with_time(const RecordingFile& file, const Site& to) {
  const std::string target = to.directory() + "/" + file_name_of(file.id);
  std::filesystem::copy_file(file.path, target);
  std::filesystem::last_write_time(target, std::filesystem::last_write_time(file.path));
}

TEST_CASE("behind nginx: slices are kept, and recordings are found on the host that has them") {
  if (const auto reason = missing_program({"nginx", "curl"})) return skip_or_fail(*reason);
  Host one;
  Host two;
  const RecordingFile file = one.site.record({1, 1}, 5'000'001);
  let_rest(file.path);
  std::vector<RecordingFile> scattered;
  for (std::uint32_t i = 0; i < 6; ++i)
    scattered.push_back((i % 2 == 0 ? one : two).site.record({2, i}, 100'000 + i));
  let_rest(one.site.record({3, 1}, 0).path);
  one.start();
  two.start();
  const Nginx nginx(*one.streamer, *two.streamer);
  const auto difference = [](const RecordingFile& of, std::uint64_t offset, const std::string& found) {
    return of.difference(offset, std::as_bytes(std::span(found)));
  };
  const std::string whole = nginx.get("/1/1").output;
  CHECK(whole.size() == file.size);
  CHECK(difference(file, 0, whole) == "");
  const double sent = one.sent();
  CHECK(sent == static_cast<double>(file.size));
  for (int i = 0; i < 3; ++i) {
    const std::string part = nginx.get("/1/1", {"--range", "1500000-3999999"}).output;
    CHECK(part.size() == 2'500'000);
    CHECK(difference(file, 1'500'000, part) == "");
  }
  CHECK(one.sent() == sent);  // no byte more
  CHECK(nginx.status_of("/1/1", {"--range", "6000000-"}) == "416");
  for (const RecordingFile& each : scattered) {
    const std::string found = nginx.get("/" + to_string(each.id)).output;
    CHECK(found.size() == each.size);
    CHECK(difference(each, 0, found) == "");
  }
  CHECK(nginx.status_of("/3/1") == "200");  // empty
  CHECK(nginx.status_of("/9/9") == "404");
  CHECK(nginx.status_of("/metrics") == "404");
  CHECK(nginx.get("/live/1/1", {"--range", "10-19"}).output == whole.substr(10, 10));
}

TEST_CASE("behind nginx: a recording that grows is whole for everybody, and kept once it has come to rest") {
  if (const auto reason = missing_program({"nginx", "curl"})) return skip_or_fail(*reason);
  Host one;
  Host two;
  const RecordingFile file = make_recording(one.site.root().path(), {1, 1}, 3'000'001, test_seed());
  const std::string content = read_file(file.path);
  const std::string path = one.site.directory() + "/" + file_name_of(file.id);
  one.start();
  two.start();
  const Nginx nginx(*one.streamer, *two.streamer);
  std::ofstream recorder(path, std::ios::binary);
  for (const std::size_t size : {std::size_t{700'000}, std::size_t{1'500'000}, content.size()}) {
    const auto written = static_cast<std::size_t>(recorder.tellp());
    recorder << std::string_view(content).substr(written, size - written) << std::flush;
    for (int viewer = 0; viewer < 2; ++viewer) {
      const std::string found = nginx.get("/1/1").output;
      CHECK(found.size() == size);
      CHECK(file.difference(0, std::as_bytes(std::span(found))) == "");
    }
  }
  let_rest(path);
  CHECK((nginx.get("/1/1").output == content));
  const double sent = one.sent();
  CHECK((nginx.get("/1/1").output == content));
  CHECK(one.sent() == sent);
}

TEST_CASE("behind nginx: more viewers than streams are all served") {
  if (const auto reason = missing_program({"nginx", "curl"})) return skip_or_fail(*reason);
  constexpr std::uint32_t kViewers = 200;  // as many as nginx takes with its 512 connections
  Host one;
  Host two;
  for (std::uint32_t i = 1; i <= kViewers; ++i) let_rest(one.site.record({1, i}, 100'000).path);
  one.start({"--streams", "4"});
  two.start({"--streams", "4"});
  const Nginx nginx(*one.streamer, *two.streamer);
  const std::string statuses =
      nginx
          .get("/1/[1-" + std::to_string(kViewers) + "]",
               {"--parallel", "--parallel-immediate", "--parallel-max", std::to_string(kViewers), "--output",
                "/dev/null", "--write-out", "%{http_code} "})
          .output;
  std::string expected;
  for (std::uint32_t i = 0; i < kViewers; ++i) expected += "200 ";
  CHECK(statuses == expected);
}

TEST_CASE("behind nginx: a host dies while a client downloads, and the client gets every byte") {
  if (const auto reason = missing_program({"nginx", "curl"})) return skip_or_fail(*reason);
  Host one;
  Host two;
  const RecordingFile file = one.site.record({1, 1}, 24'000'001);
  let_rest(file.path);
  copy_with_time(file, two.site);
  one.start();
  two.start();
  const Nginx nginx(*one.streamer, *two.streamer);
  const std::string path = one.site.root() / "download";
  const auto begun = nginx.get("/1/1", {"--range", "0-2999999", "--output", path});
  REQUIRE(to_string(begun.exit) == "exit 0");
  // It is the one that the recording is hashed to that dies, in the middle of the download.
  const bool is_one = one.sent() > 0;
  CHECK(is_one != (two.sent() > 0));
  Host& dying = is_one ? one : two;
  Host& left = is_one ? two : one;
  {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    const shm::UniqueFd downloaded(ends[0]);
    shm::UniqueFd write_end(ends[1]);
    const Capture errors;
    Process downloading =
        spawn({.argv = {path_of_program("curl"), "--silent", "--max-time", "300", "--unix-socket",
                        nginx.socket(), "--continue-at", "3000000", "--output", "-", "http://nvr/1/1"},
               .uid = {},
               .max_descriptors = {}},
              write_end.get(), errors.fd());
    write_end.reset();
    std::ofstream file_so_far(path, std::ios::app | std::ios::binary);
    const auto download = [&](std::size_t most) {
      std::vector<char> bytes(1 << 16);
      while (most > 0) {
        const ssize_t length = read(downloaded.get(), bytes.data(), std::min(bytes.size(), most));
        if (length <= 0) return;
        file_so_far.write(bytes.data(), length);
        most -= static_cast<std::size_t>(length);
      }
    };
    download(3'000'000);  // and no more, so that all come to rest
    // Between two slices: nginx makes a hole of one that breaks off (see the configuration).
    REQUIRE(wait_until([&] {
      const double sent = dying.sent();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      return std::fmod(sent, kSlice) == 0 && dying.sent() == sent;
    }));
    CHECK(downloading.is_running());
    dying.streamer->kill();
    download(SIZE_MAX);
    REQUIRE(downloading.wait().has_value());
  }
  for (int i = 0; i < 5 && std::filesystem::file_size(path) < file.size; ++i)
    static_cast<void>(nginx.get("/1/1", {"--continue-at", "-", "--output", path}));
  CAPTURE(nginx.log());
  const std::string found = read_file(path);
  CHECK(found.size() == file.size);
  CHECK(file.difference(0, std::as_bytes(std::span(found))) == "");
  CHECK(left.sent() > 0);
  // Another recording, nothing of it kept: at once, though its host may be the dead one.
  const RecordingFile other = left.site.record({1, 2}, 1'000'000);
  const std::string at_once = nginx.get("/1/2").output;
  CHECK(at_once.size() == other.size);
  CHECK(other.difference(0, std::as_bytes(std::span(at_once))) == "");
}

}  // namespace
}  // namespace nvr::test
