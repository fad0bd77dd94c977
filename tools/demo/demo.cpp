#include "tools/demo/demo.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <vector>

#include "shm/unique_fd.h"
#include "tools/demo/story.h"
#include "tools/demo/viewer.h"
#include "tools/lab/daemon_process.h"
#include "tools/lab/failure.h"
#include "tools/lab/image_disk.h"
#include "tools/lab/interrupt.h"
#include "tools/lab/proc.h"
#include "tools/lab/programs.h"

namespace nvr::demo {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSampling{5};
// Beyond its deadline a viewer may be late by as much as the machine is busy.
constexpr std::uint64_t kLateUs = 2'000'000;

SteadyClock::duration seconds(double count) {
  return std::chrono::duration_cast<SteadyClock::duration>(std::chrono::duration<double>(count));
}

void say(const std::string& text) {
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

// How long the threads of a process were in uninterruptible sleep (state D). A thread in D cannot be killed.
class UninterruptibleSleep {
 public:
  explicit UninterruptibleSleep(pid_t pid) : pid_(pid) {}

  // Looks at all threads of the process, once. To be called every few milliseconds.
  void sample() {
    const auto now = SteadyClock::now();
    std::map<pid_t, SteadyClock::time_point> in_d;
    for (const pid_t thread : lab::thread_ids_of(pid_)) {
      ++samples_;
      if (lab::state_of_thread(pid_, thread) != 'D') continue;
      const auto before = since_.find(thread);
      const auto since = before == since_.end() ? last_ : before->second;
      in_d.emplace(thread, since);
      longest_ = std::max(longest_, std::chrono::ceil<milliseconds>(now - since));
    }
    since_ = std::move(in_d);
    last_ = now;
  }

  // The longest time during which every sample found the same thread in D, up to the sample before and after
  // it; 0: no sample ever found one.
  [[nodiscard]] milliseconds longest() const { return longest_; }
  [[nodiscard]] std::uint64_t samples() const { return samples_; }  // of threads

 private:
  pid_t pid_;
  std::map<pid_t, SteadyClock::time_point> since_;  // threads that were in D at the last sample
  SteadyClock::time_point last_ = SteadyClock::now();
  milliseconds longest_{0};
  std::uint64_t samples_ = 0;
};

// A disk of 160 MB/s with a head that has to move, its recordings, and its daemon.
struct Side {
  Side(const Options& options, std::uint32_t recordings) {
    // As long as the demonstration, in whole chunks.
    const double seconds = options.before_s + options.stall_s + options.after_s;
    const auto bytes = static_cast<std::uint64_t>(seconds * options.rate_mb_s * 1e6) / 65536 * 65536;
    const std::string directory = disk.directory() + "/disk";
    for (std::uint32_t i = 0; i < recordings; ++i)
      files.push_back(lab::make_recording(directory, {1, i}, bytes, i));
    disk.cool();
    daemon.emplace(lab::DaemonCommand{.program = lab::path_of_daemon(),
                                      .directory = directory,
                                      .socket = work / "reader.sock",
                                      .engine = options.engine});
    const std::string log = daemon->log();
    const auto ready = log.find("ready");
    say("   " + log.substr(ready, log.find('\n', ready) - ready));
  }
  lab::TempDir work;
  lab::ImageDisk disk{{"--size", "2G", "--seek", "8.5ms", "--rotation", "4.2ms", "--bandwidth", "160MB"}};
  std::vector<lab::RecordingFile> files;
  std::optional<lab::DaemonProcess> daemon;
};

class Demonstration {
 public:
  explicit Demonstration(const Options& options)
      : options_(options), a_(options, options.viewers + 1), b_(options, options.viewers) {
    story_ = {.engine = options.engine,
              .bytes_per_s = static_cast<std::uint64_t>(options.rate_mb_s * 1e6),
              .stall_from_s = options.before_s,
              .stall_until_s = options.before_s + options.stall_s,
              .length_s = options.before_s + options.stall_s + options.after_s,
              .viewers = {}};
  }
  // What hangs has to come back before viewers and daemons can end.
  ~Demonstration() {
    try {
      a_.disk.order("clear");
    } catch (const lab::Failure& failure) {
      lab::report_late_failure(failure.what());
    }
  }
  Demonstration(const Demonstration&) = delete;
  Demonstration& operator=(const Demonstration&) = delete;

  // Until all viewers have ended.
  void run() {
    start_viewers();
    const auto stall_at = start_ + seconds(options_.before_s);
    const auto resume_at = stall_at + seconds(options_.stall_s);
    bool has_stalled = false;
    bool has_resumed = false;
    while (take_reports()) {
      if (lab::is_interrupted()) throw lab::Failure("interrupted");
      if (!has_stalled && SteadyClock::now() >= stall_at) {
        a_.disk.order("stall");
        has_stalled = true;
        say(fmt::format("   {:4.0f} s  disk A stalls", options_.before_s));
      }
      if (!has_resumed && SteadyClock::now() >= resume_at) {
        a_.disk.order("resume");
        has_resumed = true;
        say(fmt::format("   {:4.0f} s  it is back", options_.before_s + options_.stall_s));
      }
      for (std::size_t i = 0; i < viewers_.size(); ++i) {
        viewers_[i].sleep.sample();
        story_.viewers[i].uninterruptible = viewers_[i].sleep.longest();
      }
    }
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
      samples += viewers_[i].sleep.samples();
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
    // On a busy machine any thread may sleep uninterruptibly for a moment, for a page of its program or a
    // lock of its memory. A thread that waits for the disk does so for as long as the disk stalls.
    if (longest_of_clients > seconds(options_.stall_s / 4)) object("a client was in uninterruptible sleep");
    return good;
  }

  [[nodiscard]] const Story& story() const { return story_; }

 private:
  struct Watched {
    lab::Process process;
    UninterruptibleSleep sleep;
  };

  void start_viewers() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw lab::Failure("cannot create a pipe");
    reports_.reset(ends[0]);
    const shm::UniqueFd writer(ends[1]);
    start_ = SteadyClock::now() + milliseconds(1000);
    for (const Side* const side : {&a_, &b_})
      for (std::uint32_t i = 0; i < options_.viewers; ++i) start_one(*side, i, false, writer.get());
    start_one(a_, options_.viewers, true, writer.get());
  }

  void start_one(const Side& side, std::uint32_t i, bool by_itself, int pipe) {
    lab::Process process = start_viewer({.number = static_cast<std::uint32_t>(viewers_.size()),
                                         .socket = by_itself ? std::string() : side.daemon->socket(),
                                         .file = side.files[i],
                                         .bytes_per_s = story_.bytes_per_s,
                                         .start = start_},
                                        pipe);
    Teller teller;
    teller.disk = &side == &a_ ? "A" : "B";
    teller.name = by_itself ? "A itself" : teller.disk + std::to_string(i + 1);
    teller.by_itself = by_itself;
    story_.viewers.push_back(std::move(teller));
    const pid_t pid = process.pid();
    viewers_.push_back({.process = std::move(process), .sleep = UninterruptibleSleep(pid)});
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
  Side a_;
  Side b_;
  Story story_;
  SteadyClock::time_point start_;
  shm::UniqueFd reports_;
  std::vector<Watched> viewers_;
};

}  // namespace

bool run(const Options& options) {
  say(fmt::format(
      "== Two disks of 160 MB/s with a head that has to move, and a daemon for each (--engine {})",
      options.engine));
  Demonstration demonstration(options);
  say(fmt::format("\n== {} viewers on each, playing {} MB/s", options.viewers, options.rate_mb_s));
  demonstration.run();
  const bool good = demonstration.judge();
  std::ofstream file(options.csv_path);
  file << csv(demonstration.story());
  if (!file.flush()) throw lab::Failure("cannot write " + options.csv_path);
  say(fmt::format(
      "   The figures are in {0}. A picture of them (gnuplot): tools/demo/plot {0} demo-stall.png",
      options.csv_path));
  return good;
}

}  // namespace nvr::demo
