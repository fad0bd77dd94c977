// The demonstration behind tools/demo-stall: viewers on two disks, one of which stalls for a while. It starts
// them, gives the orders to the disk, watches whether any of their threads is ever in uninterruptible sleep,
// and judges: exit 0 only if everybody got every byte, or the reason why not, in time.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include "nvr/recording.h"
#include "shm/unique_fd.h"
#include "tools/common/made_recording.h"
#include "tools/demo/story.h"
#include "tools/demo/uninterruptible.h"
#include "tools/demo/viewer.h"

namespace nvr::demo {
namespace {

using std::chrono::duration;
using std::chrono::milliseconds;

constexpr milliseconds kSampling{5};
// Beyond its deadline a viewer may be late by as much as the machine is busy.
constexpr std::uint64_t kLateUs = 2'000'000;

struct Options {
  std::string directory[2];  // A's and B's recordings
  std::string socket[2];
  std::string stall_command, resume_command;
  std::string engine;
  std::string svg_path;
  std::uint32_t viewers = 8;  // of each disk
  double rate_mb_s = 2;
  double before_s = 10, stall_s = 20, after_s = 15;

  [[nodiscard]] std::uint64_t bytes_per_s() const { return static_cast<std::uint64_t>(rate_mb_s * 1e6); }
  [[nodiscard]] double length_s() const { return before_s + stall_s + after_s; }
  // As long as the demonstration, in whole chunks.
  [[nodiscard]] std::uint64_t bytes() const {
    return static_cast<std::uint64_t>(length_s() * rate_mb_s * 1e6) / 65536 * 65536;
  }
  // Beside the viewers' on disk A: for the process that reads for itself.
  [[nodiscard]] std::uint32_t recordings(int disk) const { return viewers + (disk == 0 ? 1 : 0); }
  [[nodiscard]] std::string path(int disk, std::uint32_t i) const {
    return directory[disk] + "/" + file_name_of({1, i});
  }
};

bool make_recordings(const Options& options) {
  std::vector<std::byte> block(1 << 20);
  for (int disk = 0; disk < 2; ++disk) {
    for (std::uint32_t i = 0; i < options.recordings(disk); ++i) {
      std::ofstream file(options.path(disk, i), std::ios::binary);
      for (std::uint64_t at = 0; at < options.bytes(); at += block.size()) {
        const std::size_t length = std::min<std::uint64_t>(block.size(), options.bytes() - at);
        tools::make_bytes(std::span(block).first(length), i, at);
        file.write(reinterpret_cast<const char*>(block.data()), static_cast<std::streamsize>(length));
      }
      if (!file.flush()) {
        std::perror(options.path(disk, i).c_str());
        return false;
      }
    }
  }
  sync();
  return true;
}

class Demonstration {
 public:
  explicit Demonstration(const Options& options) : options_(options) {
    story_ = {.engine = options.engine,
              .bytes_per_s = options.bytes_per_s(),
              .stall_from_s = options.before_s,
              .stall_until_s = options.before_s + options.stall_s,
              .length_s = options.length_s(),
              .viewers = {}};
  }

  bool start() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    reports_.reset(ends[0]);
    const shm::UniqueFd writer(ends[1]);
    start_ = SteadyClock::now() + milliseconds(1000);
    for (int disk = 0; disk < 2; ++disk)
      for (std::uint32_t i = 0; i < options_.viewers; ++i)
        if (!start_one(disk, i, false, writer.get())) return false;
    return start_one(0, options_.viewers, true, writer.get());
  }

  // Until all viewers have ended.
  bool run() {
    const auto stall_at =
        start_ + std::chrono::duration_cast<SteadyClock::duration>(duration<double>(options_.before_s));
    const auto resume_at =
        stall_at + std::chrono::duration_cast<SteadyClock::duration>(duration<double>(options_.stall_s));
    std::thread orders([&] {  // not on this thread: a command takes as long as dozens of samples
      std::this_thread::sleep_until(stall_at);
      std::printf("   %4.0f s  disk A stalls\n", options_.before_s);
      std::fflush(stdout);
      ordered_ = std::system(options_.stall_command.c_str()) == 0;
      std::this_thread::sleep_until(resume_at);
      ordered_ &= std::system(options_.resume_command.c_str()) == 0;
      std::printf("   %4.0f s  it is back\n", options_.before_s + options_.stall_s);
      std::fflush(stdout);
    });
    while (take_reports()) {
      for (std::size_t i = 0; i < sleeps_.size(); ++i) {
        sleeps_[i].sample();
        story_.viewers[i].uninterruptible = sleeps_[i].longest();
      }
    }
    orders.join();
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
    return ordered_;
  }

  // Prints what there is to say. Is it what was promised?
  [[nodiscard]] bool judge() const {
    std::printf("\n%s\n", timeline(story_).c_str());
    bool good = true;
    const auto object = [&good](const std::string& what) {
      std::printf("   NOT as promised: %s\n", what.c_str());
      good = false;
    };
    milliseconds longest_of_clients{0};
    std::uint64_t samples = 0;
    for (std::size_t i = 0; i < story_.viewers.size(); ++i) {
      const Teller& viewer = story_.viewers[i];
      if (!viewer.has_ended) object(viewer.name + " never said how it ended");
      if (viewer.end.failed != 0) object(viewer.name + ": " + viewer.end.text);
      if (viewer.by_itself) continue;
      samples += sleeps_[i].samples();
      longest_of_clients = std::max(longest_of_clients, viewer.uninterruptible);
      if (viewer.end.longest_wait_us > static_cast<std::uint64_t>(kDeadline.count()) * 1000 + kLateUs)
        object(fmt::format("{} waited for {} ms", viewer.name, viewer.end.longest_wait_us / 1000));
      // What its window still held when the stall began it played first.
      if (viewer.disk == "A" && viewer.end.informed == 0)
        object(viewer.name + " was never told of the stall");
    }
    for (const Teller& viewer : story_.viewers)
      if (viewer.name == "A1") std::printf("   What A1 was told last: \"%s\"\n", viewer.end.text);
    std::printf(
        "   Longest uninterruptible sleep of any client thread: %lld ms (%llu samples of their threads)\n",
        static_cast<long long>(longest_of_clients.count()), static_cast<unsigned long long>(samples));
    for (const Teller& viewer : story_.viewers)
      if (viewer.by_itself)
        std::printf("   The process that reads for itself: %.1f s in uninterruptible sleep\n",
                    static_cast<double>(viewer.uninterruptible.count()) / 1000);
    if (longest_of_clients.count() != 0) object("a client was in uninterruptible sleep");
    return good;
  }

  [[nodiscard]] const Story& story() const { return story_; }

 private:
  bool start_one(int disk, std::uint32_t i, bool by_itself, int pipe) {
    const auto number = static_cast<std::uint32_t>(story_.viewers.size());
    const pid_t pid = start_viewer({.number = number,
                                    .socket = by_itself ? std::string() : options_.socket[disk],
                                    .path = options_.path(disk, i),
                                    .recording = i,
                                    .bytes = options_.bytes(),
                                    .bytes_per_s = options_.bytes_per_s(),
                                    .start = start_},
                                   pipe);
    if (pid < 0) return false;
    Teller teller;
    teller.disk = disk == 0 ? "A" : "B";
    teller.name = by_itself ? "A itself" : teller.disk + std::to_string(i + 1);
    teller.by_itself = by_itself;
    story_.viewers.push_back(std::move(teller));
    pids_.push_back(pid);
    sleeps_.emplace_back(pid);
    return true;
  }

  // False when all viewers have ended.
  bool take_reports() {
    pollfd entry = {.fd = reports_.get(), .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, static_cast<int>(kSampling.count())) <= 0) return true;
    Report report;
    const ssize_t got = read(reports_.get(), &report, sizeof(report));
    if (got == static_cast<ssize_t>(sizeof(report))) story_.take(report);
    return got != 0;
  }

  const Options& options_;
  Story story_;
  SteadyClock::time_point start_;
  shm::UniqueFd reports_;
  std::vector<pid_t> pids_;
  std::vector<UninterruptibleSleep> sleeps_;
  bool ordered_ = false;
};

int run(const Options& options) {
  Demonstration demonstration(options);
  if (!demonstration.start()) {
    std::perror("nvr-stall-demo");
    return 1;
  }
  const bool ran = demonstration.run();
  const bool good = demonstration.judge() && ran;
  if (!ran) std::printf("   The disk did not take its orders.\n");
  if (!options.svg_path.empty()) {
    std::ofstream file(options.svg_path);
    file << svg(demonstration.story());
    if (!file.flush()) {
      std::perror(options.svg_path.c_str());
      return 1;
    }
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace nvr::demo

int main(int argc, char** argv) {
  nvr::demo::Options options;
  CLI::App app(
      "Viewers on two disks, one of which stalls for a while. Run tools/demo-stall, which makes the disks.",
      "nvr-stall-demo");
  bool record = false;
  app.add_flag("--record", record, "Write the recordings, and nothing else");
  app.add_option("--dir-a", options.directory[0], "Recordings on disk A")->required();
  app.add_option("--dir-b", options.directory[1], "Recordings on disk B")->required();
  app.add_option("--socket-a", options.socket[0], "Disk A's daemon");
  app.add_option("--socket-b", options.socket[1], "Disk B's daemon");
  app.add_option("--stall-command", options.stall_command, "Makes disk A stall");
  app.add_option("--resume-command", options.resume_command, "Makes it go on");
  app.add_option("--engine", options.engine, "For the caption");
  app.add_option("--svg", options.svg_path, "Where to write the plot");
  app.add_option("--viewers", options.viewers, "Viewers on each disk")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--rate", options.rate_mb_s, "MB/s that each plays")
      ->check(CLI::Range(0.1, 100.0))
      ->capture_default_str();
  app.add_option("--before", options.before_s, "Seconds before the stall")
      ->check(CLI::Range(1, 600))
      ->capture_default_str();
  app.add_option("--stall", options.stall_s, "Seconds that it lasts")
      ->check(CLI::Range(1, 600))
      ->capture_default_str();
  app.add_option("--after", options.after_s, "Seconds after it")
      ->check(CLI::Range(1, 600))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (record) return nvr::demo::make_recordings(options) ? 0 : 1;
  return nvr::demo::run(options);
}
