// The thread that moves the modelled disk through real time: it does one job after the other, and each is
// answered at the instant that the model says, by an absolute clock.
//
// Threads: submit() and follow() from any; jobs are prepared and answered in the head's own thread, or in the
// one that submits where the disk takes no time for it. No lock is held while a job does its work.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "tools/slowdisk/disk.h"
#include "tools/slowdisk/journal.h"

namespace nvr::slowdisk {

// What is to be done for one request. Exactly one answer() each, after prepare() or without it.
class Job {
 public:
  Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  virtual ~Job() = default;

  // The real work, done while the modelled disk takes its time. Only where the verdict is no error.
  virtual void prepare(const Verdict& verdict) = 0;
  virtual void answer(const Verdict& verdict) = 0;
};

// A disk does not wait for a CPU: the calling thread goes before all ordinary ones, where that is allowed.
// For threads that only pass on what others ask for.
void go_first();

class Head {
 public:
  // The journal must outlive it.
  Head(const DiskOptions& options, Journal& journal);
  // What waits then is answered with EIO.
  ~Head();
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;

  // The request's id and time of arrival are set here.
  void submit(Request request, std::unique_ptr<Job> job);
  Result<std::string> follow(const Order& order);
  [[nodiscard]] std::uint64_t size_of(std::string_view file, std::uint64_t real_size);

 private:
  using Lock = std::unique_lock<std::mutex>;
  void run();
  void serve(Lock& lock);
  void wait_for_work(Lock& lock);

  Journal& journal_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Disk disk_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Job>> jobs_;  // of the requests that the disk has
  std::uint64_t last_id_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace nvr::slowdisk
