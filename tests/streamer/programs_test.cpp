// nvr-streamer under other people's programs: curl, ffmpeg, wrk and a browser.
#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "tests/streamer/streamer_process.h"
#include "tests/support/proc.h"
#include "tests/support/slow_disk.h"

namespace nvr::test {
namespace {

std::string succeed(const std::vector<std::string>& argv) {
  const ProgramResult result = run_program(argv);
  if (result.exit != Exit{.code = 0, .signal = {}})
    throw TestFailure(argv[0] + ": " + to_string(result.exit) + ": " + result.errors);
  return result.output;
}

std::string curl(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(),
                   {path_of_program("curl"), "--silent", "--show-error", "--max-time", "60"});
  return succeed(arguments);
}

// So many seconds of H.264, whose index is at the beginning or, as ffmpeg writes it, at the end.
void make_mp4(const std::string& path, int duration_s, bool is_faststart) {
  std::vector<std::string> argv = {path_of_program("ffmpeg"),
                                   "-v",
                                   "error",
                                   "-f",
                                   "lavfi",
                                   "-i",
                                   "testsrc2=size=640x360:rate=25:duration=" + std::to_string(duration_s),
                                   "-c:v",
                                   "libx264",
                                   "-preset",
                                   "ultrafast",
                                   "-qp",
                                   "18",
                                   "-g",
                                   "25",
                                   "-pix_fmt",
                                   "yuv420p",
                                   "-f",
                                   "mp4"};
  if (is_faststart) argv.insert(argv.end(), {"-movflags", "+faststart"});
  argv.push_back(path);
  succeed(argv);
}

TEST_CASE("curl: ranges, headers, resuming, and a body that it is spared") {
  if (const auto reason = missing_program({"curl"})) return skip_or_fail(*reason);
  const Site site;
  const RecordingFile file = site.record({1, 1}, 9'000'001);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  const std::string url = streamer.url("/a/1/1");
  const auto difference = [&](std::uint64_t offset, const std::string& found) {
    return file.difference(offset, std::as_bytes(std::span(found)));
  };
  CHECK(curl({url}).size() == file.size);
  CHECK(difference(0, curl({url})) == "");
  const std::string middle = curl({"--range", "1234567-2345678", url});
  CHECK(middle.size() == 2345678 - 1234567 + 1);
  CHECK(difference(1234567, middle) == "");
  const std::string end = curl({"--range", "-777", url});
  CHECK(end.size() == 777);
  CHECK(difference(file.size - 777, end) == "");
  const std::string head = curl({"--head", url});
  CHECK_THAT(head, Catch::Contains("Content-Length: 9000001\r\n") && Catch::Contains("Accept-Ranges: bytes"));

  // What was fetched half is continued, not fetched again.
  const std::string half = site.root() / "half";
  write_file(half, curl({"--range", "0-3999999", url}));
  const std::string sent =
      curl({"--continue-at", "-", "--output", half, "--write-out", "%{http_code} %{size_download}", url});
  CHECK(sent == "206 5000001");
  CHECK(read_file(half) == curl({url}));

  const std::string etag = site.root() / "etag";
  curl({"--etag-save", etag, "--output", half, url});
  CHECK(curl({"--etag-compare", etag, "--output", half, "--write-out", "%{http_code}", url}) == "304");
  const std::string if_range = "If-Range: " + read_file(etag).substr(0, read_file(etag).find('\n'));
  const auto with = [&](const std::string& header) {
    return curl({"--header", header, "--range", "5-9", "--output", half, "--write-out", "%{http_code}", url});
  };
  CHECK(with(if_range) == "206");
  CHECK(with("If-Range: \"another\"") == "200");
}

TEST_CASE("ffmpeg reads over HTTP: every frame is as in the file, with the index at either end") {
  if (const auto reason = missing_program({"ffmpeg"})) return skip_or_fail(*reason);
  const Site site;
  make_mp4(site.directory() + "/0000000100000001", 10, true);
  make_mp4(site.directory() + "/0000000100000002", 10, false);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  const auto frames = [](const std::string& input, const std::vector<std::string>& before) {
    std::vector<std::string> argv = {path_of_program("ffmpeg"), "-v", "error"};
    argv.insert(argv.end(), before.begin(), before.end());
    argv.insert(argv.end(), {"-i", input, "-frames:v", "50", "-f", "framemd5", "-"});
    return succeed(argv);
  };
  for (const char* const id : {"1", "2"}) {
    const std::string path = site.directory() + "/000000010000000" + id;
    const std::string url = streamer.url(std::string("/1/") + id);
    CHECK(frames(url, {}) == frames(path, {}));
    CHECK(frames(url, {"-ss", "7"}) == frames(path, {"-ss", "7"}));  // seeks by ranges
  }
  CHECK(streamer.metric("nvr_streamer_responses_total{disk=\"a\",code=\"206\"}") > 0);
}

TEST_CASE("wrk: hundreds of viewers at a time get what they ask for, and another disk may hang meanwhile") {
  if (const auto reason = missing_program({"wrk"})) return skip_or_fail(*reason);
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  const Site dying_site;
  SlowDisk disk(dying_site.directory());
  const RecordingFile stuck = make_recording(disk.backing(), {2, 1}, 300'000, 1);
  const RecordingFile file = site.record({1, 1}, 1'000'000);
  const DaemonProcess daemon = site.start();
  const DaemonProcess dying_daemon = dying_site.start();
  const ReleaseAtEnd release(disk);
  const StreamerProcess streamer({{"a", daemon.socket()}, {"dying", dying_daemon.socket()}},
                                 {"--open-timeout", "600", "--streams", "256", "--slots", "2"});
  disk.stall_reads(stuck.id);
  Wire waiting(streamer.port());
  waiting.ask("/dying/2/1");
  disk.wait_until_stuck(stuck.id);
  const std::string script = site.root() / "ranges.lua";
  write_file(script,
             "request = function()\n"
             "  local first = math.random(0, 900000)\n"
             "  return wrk.format('GET', nil, {Range = 'bytes=' .. first .. '-' .. first + 65535})\n"
             "end\n"
             "done = function(summary, latency, requests)\n"
             "  local e = summary.errors\n"
             "  io.write('errors ', e.connect + e.read + e.write + e.timeout + e.status, ' requests ', "
             "summary.requests, ' end\\n')\n"
             "end\n");
  const std::string report =
      succeed({path_of_program("wrk"), "--threads", "1", "--connections", "200", "--duration", "2s",
               "--timeout", "30s", "--script", script, streamer.url("/a/1/1")});
  CAPTURE(report);
  CHECK(report.find("errors 0 requests") != std::string::npos);
  CHECK(report.find("errors 0 requests 0 ") == std::string::npos);
  CHECK_FALSE(waiting.has_news());
  CHECK(problem_with(ask(streamer, "/a/1/1"), 200, file, 0, file.size) == "");
  disk.release();
  CHECK(problem_with(waiting.receive(), 200, stuck, 0, stuck.size) == "");
}

TEST_CASE("promtool finds nothing wrong with the streamer's metrics") {
  if (const auto reason = missing_program({"curl", "promtool"})) return skip_or_fail(*reason);
  const Site site;
  static_cast<void>(site.record({1, 1}, 300'000));
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  static_cast<void>(curl({streamer.url("/a/1/1"), "--output", "/dev/null"}));
  static_cast<void>(curl({streamer.url("/a/9/9"), "--output", "/dev/null"}));
  const std::string metrics = curl({streamer.url("/metrics")});
  CHECK(metrics.find("nvr_streamer_responses_total{") != std::string::npos);
  const std::string path = site.root() / "metrics";
  write_file(path, metrics);
  const auto checked =
      run_program({"/bin/sh", "-c", path_of_program("promtool") + " check metrics < " + path});
  CHECK(to_string(checked.exit) == "exit 0");
  CHECK(checked.output + checked.errors == "");
}

TEST_CASE("Chromium plays an mp4 and seeks in it") {
  if (const auto reason = missing_program({"ffmpeg", "chromium"})) return skip_or_fail(*reason);
  const Site site;
  make_mp4(site.directory() + "/0000000100000001", 40, false);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  std::string page = read_file(NVR_TEST_PLAYER_PAGE);
  for (auto at = page.find("URL"); at != std::string::npos; at = page.find("URL", at))
    page.replace(at, 3, streamer.url("/1/1"));
  const std::string path = site.root() / "player.html";
  write_file(path, page);
  const Capture output;
  Process chromium =
      spawn({.argv = {"/bin/sh", path_of_program("chromium"), "--headless", "--no-sandbox", "--disable-gpu",
                      "--disable-quic", "--no-first-run", "--disable-background-networking",
                      "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                      "--autoplay-policy=no-user-gesture-required", "--enable-logging=stderr",
                      "--remote-debugging-port=0", "--user-data-dir=" + (site.root() / "profile"),
                      "file://" + path},
             .uid = {},
             .max_descriptors = {}},
            output.fd(), output.fd());
  const auto says = [&](const std::string& text) {
    return output.text().find("\"PLAYER " + text) != std::string::npos;
  };
  const bool has_ended = wait_until([&] { return says("done") || says("failed") || !chromium.is_running(); },
                                    std::chrono::seconds(90));
  chromium.signal(SIGTERM);
  static_cast<void>(chromium.wait());
  CAPTURE(output.text());
  CHECK(has_ended);
  CHECK(says("done"));
  CHECK_FALSE(says("failed"));
  // The index at its end, and what was jumped to.
  CHECK(streamer.metric("nvr_streamer_responses_total{disk=\"a\",code=\"206\"}") >= 3);
}

}  // namespace
}  // namespace nvr::test
