#include "tools/soaker/soak.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <list>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <vector>

#include "nvr/error.h"
#include "tools/lab/daemon_process.h"
#include "tools/lab/failure.h"
#include "tools/lab/image_disk.h"
#include "tools/lab/interrupt.h"
#include "tools/lab/proc.h"
#include "tools/lab/programs.h"
#include "tools/soaker/faults.h"
#include "tools/soaker/ledger.h"
#include "tools/soaker/worker.h"

namespace nvr::soak {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint32_t kRecordings = 24;
constexpr const char* kSamples = "samples";  // on the disk
// With the disk well, every client ends a stream within this time, or never.
constexpr seconds kLongEnough{90};
constexpr seconds kProgressLine{10};

// What must be as it was before when all clients have gone. Waits until the daemon is quiet.
std::map<std::string, std::uint64_t> baseline_of(const lab::DaemonProcess& daemon) {
  const auto totals = daemon.status().at("totals");
  const lab::Footprint footprint = lab::Baseline(daemon.pid()).at_start();
  std::map<std::string, std::uint64_t> baseline = {{"descriptors", footprint.descriptors},
                                                   {"threads", footprint.threads}};
  for (const char* const name :
       {"connections_now", "streams_open", "shared_bytes", "held_bytes", "quarantined_bytes"})
    baseline[name] = totals.at(name).get<std::uint64_t>();
  return baseline;
}

// One daemon, what it was like before the first client, and how many of its clients were killed.
struct Served {
  std::string engine;
  lab::DaemonProcess daemon;
  std::map<std::string, std::uint64_t> before = baseline_of(daemon);
  std::uint64_t kills = 0;
};

class Soak {
 public:
  explicit Soak(const Options& options) : options_(options), random_(options.seed) {
    void* const memory =
        mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw lab::Failure("no memory for the ledger");
    ledger_ = new (memory) Ledger();
    make_recordings();
    faults_ = std::make_unique<Faults>(disk_, kSamples, files_, *ledger_, random_());
    if (options.engine != "io_uring") start("mmap");
    if (options.engine != "mmap") start("io_uring");
  }
  // What hangs has to come back before clients and daemons can end.
  ~Soak() {
    try {
      faults_->mend();
    } catch (const lab::Failure& failure) {
      lab::report_late_failure(failure.what());
    }
  }
  Soak(const Soak&) = delete;
  Soak& operator=(const Soak&) = delete;

  // True: all was as it must be.
  bool run() {
    const auto end =
        SteadyClock::now() + std::chrono::duration_cast<SteadyClock::duration>(
                                 std::chrono::duration<double, std::ratio<60>>(options_.minutes));
    auto line_at = SteadyClock::now() + kProgressLine;
    bool good = true;
    while (good && SteadyClock::now() < end) {
      for (const lab::RecordingFile& file : files_) lab::evict(file.path);
      faults_->break_something();
      good = live_until(SteadyClock::now() + milliseconds(upto(200, 4000)));
      faults_->mend();
      good = good && everybody_progresses();
      if (SteadyClock::now() < line_at) continue;
      print_line();
      line_at = SteadyClock::now() + kProgressLine;
    }
    good = wind_down() && good;
    for (const Served& served : daemons_)
      if (!good && !lab::is_interrupted())
        fmt::print("\n   The daemon with {} said:\n{}", served.engine, served.daemon.log());
    return good;
  }

  void print_table() const {
    fmt::print("\n   {:<10}{:>12}{:>10}{:>11}{:>10}{:>9}  errors\n", "engine", "GiB right", "streams",
               "completed", "cancelled", "killed");
    for (const Served& served : daemons_) {
      const Sum sum = sum_of(served);
      std::string errors;
      for (std::uint32_t code = 0; code < kCodes; ++code)
        if (sum.errors[code] > 0)
          errors += fmt::format("{} {}  ", to_string(static_cast<Code>(code)), sum.errors[code]);
      fmt::print("   {:<10}{:>12.2f}{:>10}{:>11}{:>10}{:>9}  {}\n", served.engine,
                 static_cast<double>(sum.bytes) / (1 << 30), sum.streams, sum.completed, sum.cancels,
                 served.kills, errors);
    }
    fmt::print("   faults: ");
    for (const auto& [kind, count] : faults_->by_kind()) fmt::print(" {} {} ", kind, count);
    fmt::print("\n");
  }

 private:
  struct Place {  // where one worker after the other lives
    Served* served = nullptr;
    std::optional<lab::Process> worker = {};
    std::uint64_t seen = 0;  // streams that had completed when progress was last asked for
  };
  struct Sum {
    std::uint64_t bytes = 0, streams = 0, completed = 0, cancels = 0;
    std::uint64_t errors[kCodes] = {};
  };

  std::uint64_t upto(std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random_);
  }
  static bool complain(const std::string& what) {
    fmt::print("   WRONG: {}\n", what);
    std::fflush(stdout);
    return false;
  }

  void make_recordings() {
    mkdir((disk_ / kSamples).c_str(), 0755);
    for (std::uint32_t i = 0; i < kRecordings; ++i)  // of 128 KiB to 8 MiB
      files_.push_back(lab::make_recording(disk_ / kSamples, {1, i}, upto(1 << 14, 1 << 20) * 8, random_()));
  }

  void start(const std::string& engine) {
    Served& served = daemons_.emplace_back(
        Served{.engine = engine,
               .daemon = lab::DaemonProcess({.program = lab::path_of_daemon(),
                                             .directory = disk_ / kSamples,
                                             .socket = work_ / (engine + ".sock"),
                                             .engine = engine,
                                             .arguments = {"--device-kind", "solid"}})});
    for (std::uint32_t i = 0; i < options_.clients; ++i)
      start_worker_in(places_.emplace_back(Place{&served}));
  }

  void start_worker_in(Place& place) {
    place.worker.reset();  // kills the one before
    place.worker = start_worker({.socket = place.served->daemon.socket(),
                                 .reads_direct = place.served->engine == "io_uring",
                                 .files = files_,
                                 .seed = random_()},
                                *ledger_, static_cast<std::uint32_t>(&place - places_.data()));
  }

  // Kills clients at random meanwhile.
  bool live_until(SteadyClock::time_point end) {
    while (SteadyClock::now() < end) {
      std::this_thread::sleep_for(milliseconds(upto(20, 600)));
      if (!all_is_well()) return false;
      Place& place = places_[upto(0, places_.size() - 1)];
      ++place.served->kills;
      start_worker_in(place);
    }
    return true;
  }

  bool everybody_progresses() {
    for (std::size_t i = 0; i < places_.size(); ++i) places_[i].seen = ledger_->accounts[i].completed.load();
    const auto give_up = SteadyClock::now() + kLongEnough;
    for (std::size_t i = 0; i < places_.size();) {
      if (!all_is_well()) return false;
      if (ledger_->accounts[i].completed.load() > places_[i].seen)
        ++i;
      else if (SteadyClock::now() > give_up)
        return complain(
            fmt::format("client {} of {} gets nothing, and the disk is well", i, places_[i].served->engine));
      else
        std::this_thread::sleep_for(milliseconds(10));
    }
    return true;
  }

  bool all_is_well() {
    if (lab::is_interrupted()) return complain("interrupted");
    for (Served& served : daemons_)
      if (!served.daemon.is_running())
        return complain(fmt::format("the daemon with {} has ended: {}; it said:\n{}", served.engine,
                                    lab::to_string(*served.daemon.wait()), served.daemon.log()));
    for (std::size_t i = 0; i < places_.size(); ++i)
      if (ledger_->accounts[i].failed.load() != 0)
        return complain(places_[i].served->engine + ": " + ledger_->accounts[i].failure);
    return true;
  }

  // Everybody goes home; what is left?
  bool wind_down() {
    ledger_->stop.store(1);
    bool good = all_is_well();
    for (Place& place : places_)
      if (!place.worker->wait(kLongEnough))
        good = complain("a client of " + place.served->engine + " does not end");
    for (Served& served : daemons_) {
      auto now = served.before;
      const auto is_as_before = [&] { return (now = baseline_of(served.daemon)) == served.before; };
      if (!lab::wait_until(is_as_before, kLongEnough))
        for (const auto& [name, value] : served.before)
          if (now[name] != value)
            good = complain(
                fmt::format("{} leaks: {} {} before, now {}", served.engine, value, name, now[name]));
      if (served.daemon.terminate() != lab::Exit{.code = 0, .signal = {}})
        good = complain(served.engine + " did not end with exit 0");
    }
    return good;
  }

  Sum sum_of(const Served& served) const {
    Sum sum;
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].served != &served) continue;
      const Account& account = ledger_->accounts[i];
      sum.bytes += account.bytes.load();
      sum.streams += account.streams.load();
      sum.completed += account.completed.load();
      sum.cancels += account.cancels.load();
      for (std::uint32_t code = 0; code < kCodes; ++code) sum.errors[code] += account.errors[code].load();
    }
    return sum;
  }

  void print_line() const {
    std::uint64_t bytes = 0;
    std::uint64_t faults = 0;
    std::uint64_t kills = 0;
    for (const Served& served : daemons_) {
      bytes += sum_of(served).bytes;
      kills += served.kills;
    }
    for (const auto& [kind, count] : faults_->by_kind()) faults += count;
    fmt::print("   {:.2f} GiB compared, {} faults, {} clients killed\n",
               static_cast<double>(bytes) / (1 << 30), faults, kills);
    std::fflush(stdout);
  }

  const Options& options_;
  std::mt19937_64 random_;
  Ledger* ledger_ = nullptr;
  lab::TempDir work_;
  lab::ImageDisk disk_{{"--size", "512M", "--seek", "2ms", "--rotation", "1ms", "--bandwidth", "400MB"}};
  std::vector<lab::RecordingFile> files_;
  std::unique_ptr<Faults> faults_;
  std::list<Served> daemons_;
  std::vector<Place> places_;
};

std::uint64_t count_shared_memory() {
  const std::filesystem::directory_iterator entries("/dev/shm");
  return static_cast<std::uint64_t>(std::distance(begin(entries), end(entries)));
}

}  // namespace

bool run(const Options& options) {
  fmt::print("== A disk, a daemon for each engine, {} clients of each; seed {}\n", options.clients,
             options.seed);
  std::fflush(stdout);
  const std::uint64_t shared_before = count_shared_memory();
  bool good = false;
  {
    Soak soak(options);
    good = soak.run();
    soak.print_table();
  }
  if (count_shared_memory() != shared_before) {
    fmt::print("   WRONG: something is left in /dev/shm\n");
    good = false;
  }
  fmt::print("\n   {}\n", good ? "Every byte right, every error with its reason, nothing left behind."
                               : "NOT as it must be.");
  return good;
}

}  // namespace nvr::soak
