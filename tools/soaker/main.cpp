// The soak behind tools/soak: daemons on a disk that errs at random, clients that do what they like and are
// killed in the middle of it, and for a long time. Every byte is compared, every error must have its reason,
// and in the end the daemons must be as they were before.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "nvr/error.h"
#include "nvr/recording.h"
#include "shm/unique_fd.h"
#include "tools/common/made_recording.h"
#include "tools/soaker/daemon.h"
#include "tools/soaker/faults.h"
#include "tools/soaker/ledger.h"
#include "tools/soaker/worker.h"

namespace nvr::soak {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint32_t kRecordings = 24;
// With the disk well, every client ends a stream within this time, or never.
constexpr seconds kLongEnough{90};
constexpr seconds kProgressLine{10};

struct Options {
  std::string directory;  // on the disk
  std::string work;       // for sockets and logs, elsewhere
  std::string programs;
  std::string order_command;
  std::string name_prefix;  // of the files in orders
  std::vector<std::string> engines;
  double minutes = 10;
  std::uint64_t seed = 0;
  std::uint32_t workers = 4;  // of each daemon
};

class Soak {
 public:
  explicit Soak(const Options& options) : options_(options), random_(options.seed) {}

  // True: all was as it must be.
  bool run() {
    if (!make_recordings() || !start()) return false;
    const auto end =
        SteadyClock::now() + std::chrono::duration_cast<SteadyClock::duration>(
                                 std::chrono::duration<double, std::ratio<60>>(options_.minutes));
    auto line_at = SteadyClock::now() + kProgressLine;
    bool good = true;
    while (good && SteadyClock::now() < end) {
      forget_what_is_cached();
      good = faults_->break_something();
      if (!good) complain("the disk did not take an order");
      good = good && live_until(SteadyClock::now() + milliseconds(upto(200, 4000)));
      if (good && !faults_->mend()) good = complain("the disk did not take the order to be well");
      good = good && everybody_progresses();
      if (SteadyClock::now() < line_at) continue;
      print_line();
      line_at = SteadyClock::now() + kProgressLine;
    }
    static_cast<void>(faults_->mend());
    return wind_down() && good;
  }

  void print_table() const {
    fmt::print("\n   {:<10}{:>12}{:>10}{:>11}{:>10}{:>9}  errors\n", "engine", "GiB right", "streams",
               "completed", "cancelled", "killed");
    for (std::size_t d = 0; d < daemons_.size(); ++d) {
      const Sum sum = sum_of(d);
      std::string errors;
      for (std::uint32_t code = 0; code < kCodes; ++code)
        if (sum.errors[code] > 0)
          errors += fmt::format("{} {}  ", to_string(static_cast<Code>(code)), sum.errors[code]);
      fmt::print("   {:<10}{:>12.2f}{:>10}{:>11}{:>10}{:>9}  {}\n", daemons_[d]->engine(),
                 static_cast<double>(sum.bytes) / (1 << 30), sum.streams, sum.completed, sum.cancels,
                 kills_[d], errors);
    }
    fmt::print("   faults: ");
    for (const auto& [kind, count] : faults_->by_kind()) fmt::print(" {} {} ", kind, count);
    fmt::print("\n");
  }

 private:
  struct Place {  // where one worker after the other lives
    std::size_t daemon = 0;
    pid_t pid = -1;
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

  bool make_recordings() {
    std::vector<std::byte> bytes;
    for (std::uint32_t i = 0; i < kRecordings; ++i) {
      bytes.resize(upto(1 << 14, 1 << 20) * 8);  // 128 KiB to 8 MiB
      tools::make_bytes(bytes, i, 0);
      const std::string path = options_.directory + "/" + file_name_of({1, i});
      std::ofstream file(path, std::ios::binary);
      file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      if (!file.flush()) return complain("cannot write " + path);
      setup_.lengths.push_back(bytes.size());
      file.close();
      files_.emplace_back(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    }
    sync();
    return true;
  }

  bool start() {
    void* const memory =
        mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return complain("no memory");
    ledger_ = new (memory) Ledger();
    std::vector<std::pair<std::string, std::uint64_t>> files;
    for (std::uint32_t i = 0; i < kRecordings; ++i)
      files.emplace_back(options_.name_prefix + file_name_of({1, i}), setup_.lengths[i]);
    faults_ = std::make_unique<Faults>(options_.order_command, std::move(files), *ledger_, random_());
    for (const std::string& engine : options_.engines) {
      const std::string base = options_.work + "/" + engine;
      daemons_.push_back(std::make_unique<Daemon>(options_.programs, engine, options_.directory,
                                                  base + ".sock", base + ".log"));
      if (!daemons_.back()->start()) return complain("no daemon: see " + base + ".log");
      const auto baseline = daemons_.back()->baseline();
      if (!baseline) return complain("the daemon does not say how it is");
      before_.push_back(*baseline);
      kills_.push_back(0);
      for (std::uint32_t i = 0; i < options_.workers && places_.size() < kMaxWorkers; ++i) {
        places_.push_back({.daemon = daemons_.size() - 1});
        if (!start_worker_at(places_.size() - 1)) return false;
      }
    }
    return true;
  }

  bool start_worker_at(std::size_t place) {
    const Daemon& daemon = *daemons_[places_[place].daemon];
    setup_.socket = daemon.socket();
    setup_.reads_direct = daemon.engine() == "io_uring";
    setup_.seed = random_();
    places_[place].pid = start_worker(setup_, *ledger_, static_cast<std::uint32_t>(place));
    return places_[place].pid > 0 || complain("cannot start a client");
  }

  // The files are not read by us, so this waits for nothing.
  void forget_what_is_cached() const {
    for (const shm::UniqueFd& file : files_) posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  }

  // Kills clients at random meanwhile.
  bool live_until(SteadyClock::time_point end) {
    while (SteadyClock::now() < end) {
      std::this_thread::sleep_for(milliseconds(upto(20, 600)));
      if (!all_is_well()) return false;
      const std::size_t place = upto(0, places_.size() - 1);
      kill(places_[place].pid, SIGKILL);
      waitpid(places_[place].pid, nullptr, 0);
      ++kills_[places_[place].daemon];
      if (!start_worker_at(place)) return false;
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
        return complain(fmt::format("client {} of {} gets nothing, and the disk is well", i,
                                    daemons_[places_[i].daemon]->engine()));
      else
        std::this_thread::sleep_for(milliseconds(10));
    }
    return true;
  }

  bool all_is_well() const {
    for (const auto& daemon : daemons_)
      if (!daemon->is_running()) return complain("the daemon with " + daemon->engine() + " has ended");
    for (std::size_t i = 0; i < places_.size(); ++i)
      if (ledger_->accounts[i].failed.load() != 0)
        return complain(daemons_[places_[i].daemon]->engine() + ": " + ledger_->accounts[i].failure);
    return true;
  }

  // Everybody goes home; what is left?
  bool wind_down() {
    ledger_->stop.store(1);
    for (const Place& place : places_) waitpid(place.pid, nullptr, 0);
    bool good = all_is_well();
    for (std::size_t i = 0; i < daemons_.size(); ++i) {
      const auto give_up = SteadyClock::now() + kLongEnough;
      auto now = daemons_[i]->baseline();
      while (now != before_[i] && SteadyClock::now() < give_up) {
        std::this_thread::sleep_for(milliseconds(200));
        now = daemons_[i]->baseline();
      }
      if (now != before_[i])
        good = complain(fmt::format("{} leaks: before {}, now {}", daemons_[i]->engine(),
                                    to_string(before_[i]), now ? to_string(*now) : "it does not answer"));
      if (daemons_[i]->end() != 0) good = complain(daemons_[i]->engine() + " did not end with exit 0");
    }
    return good;
  }

  Sum sum_of(std::size_t daemon) const {
    Sum sum;
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].daemon != daemon) continue;
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
    for (std::size_t d = 0; d < daemons_.size(); ++d) {
      bytes += sum_of(d).bytes;
      kills += kills_[d];
    }
    for (const auto& [kind, count] : faults_->by_kind()) faults += count;
    fmt::print("   {:.2f} GiB compared, {} faults, {} clients killed\n",
               static_cast<double>(bytes) / (1 << 30), faults, kills);
    std::fflush(stdout);
  }

  const Options& options_;
  std::mt19937_64 random_;
  WorkerSetup setup_;
  Ledger* ledger_ = nullptr;
  std::vector<shm::UniqueFd> files_;
  std::unique_ptr<Faults> faults_;
  std::vector<std::unique_ptr<Daemon>> daemons_;
  std::vector<Baseline> before_;
  std::vector<std::uint64_t> kills_;
  std::vector<Place> places_;
};

std::uint64_t count_shared_memory() {
  std::uint64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) count += entry.exists() ? 1 : 0;
  return count;
}

}  // namespace
}  // namespace nvr::soak

int main(int argc, char** argv) {
  nvr::soak::Options options;
  options.seed = std::random_device()();
  std::string engine = "both";
  CLI::App app("Random faults, random clients, for a long time. Run tools/soak, which makes the disk.",
               "nvr-soak");
  app.add_option("--dir", options.directory, "Where to make recordings: on the disk")->required();
  app.add_option("--name-prefix", options.name_prefix, "What orders call that directory, with a slash");
  app.add_option("--work", options.work, "For sockets and logs: elsewhere")->required();
  app.add_option("--programs", options.programs, "Build directory")->required();
  app.add_option("--order-command", options.order_command, "Gives the disk an order")->required();
  app.add_option("--engine", engine)
      ->check(CLI::IsMember({"mmap", "io_uring", "both"}))
      ->capture_default_str();
  app.add_option("--minutes", options.minutes)->check(CLI::Range(0.01, 1e5))->capture_default_str();
  app.add_option("--workers", options.workers, "Clients of each daemon")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of everything that is left to chance here");
  CLI11_PARSE(app, argc, argv);
  if (engine != "io_uring") options.engines.emplace_back("mmap");
  if (engine != "mmap") options.engines.emplace_back("io_uring");
  fmt::print("   seed {}\n", options.seed);
  std::fflush(stdout);

  const std::uint64_t shared_before = nvr::soak::count_shared_memory();
  bool good = false;
  {
    nvr::soak::Soak soak(options);
    good = soak.run();
    soak.print_table();
  }
  if (nvr::soak::count_shared_memory() != shared_before) {
    fmt::print("   WRONG: something is left in /dev/shm\n");
    good = false;
  }
  fmt::print("\n   {}\n", good ? "Every byte right, every error with its reason, nothing left behind."
                               : "NOT as it must be.");
  return good ? 0 : 1;
}
