#include "tools/slowdisk/head.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <utility>

#include "shm/clock.h"

namespace nvr::slowdisk {
namespace {

Time now() {
  return Time(shm::now_ns());
}
// steady_clock is CLOCK_MONOTONIC, and waiting for a point of it is waiting for an absolute time.
std::chrono::steady_clock::time_point instant(Time time) {
  return std::chrono::steady_clock::time_point(time);
}

}  // namespace

void go_first() {
  const sched_param priority = {.sched_priority = 1};
  pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
}

Head::Head(const DiskOptions& options, Journal& journal)
    : journal_(journal), disk_(options), thread_([this] { run(); }) {}

Head::~Head() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  for (const Request& request : disk_.give_up())
    jobs_.at(request.id)->answer({.error = EIO, .delay = Time(0), .length = 0, .faults = {}});
}

void Head::submit(Request request, std::unique_ptr<Job> job) {
  Lock lock(mutex_);
  request.id = ++last_id_;
  request.arrived = now();
  if (const auto service = disk_.serve_at_once(request, request.arrived)) {
    lock.unlock();
    if (service->verdict.error == 0) job->prepare(service->verdict);
    job->answer(service->verdict);
    journal_.request(*service, now());
    return;
  }
  jobs_.emplace(request.id, std::move(job));
  disk_.submit(std::move(request));
  lock.unlock();
  changed_.notify_all();
}

Result<std::string> Head::follow(const Order& order) {
  const Time time = now();
  Result<std::string> said;
  {
    const std::scoped_lock lock(mutex_);
    said = disk_.follow(order, time);
  }
  changed_.notify_all();
  if (said && order.verb != Verb::kStatus) journal_.order(to_string(order), time);
  return said;
}

std::uint64_t Head::size_of(std::string_view file, std::uint64_t real_size) {
  const std::scoped_lock lock(mutex_);
  return disk_.size_of(file, real_size);
}

void Head::run() {
  pthread_setname_np(pthread_self(), "head");
  go_first();
  prctl(PR_SET_TIMERSLACK, 1);  // ns: wake when asked, not 50 us later
  Lock lock(mutex_);
  while (!stopping_) {
    if (disk_.begin(now()) != nullptr) {
      serve(lock);
    } else {
      wait_for_work(lock);
    }
  }
}

// Works while the disk does, and answers when the disk is done.
void Head::serve(Lock& lock) {
  const std::uint64_t id = disk_.service()->request.id;
  const Verdict verdict = disk_.service()->verdict;
  const auto job = std::move(jobs_.at(id));
  lock.unlock();
  if (verdict.error == 0) job->prepare(verdict);
  lock.lock();
  // Orders may move the end nearer.
  while (!stopping_ && now() < disk_.service()->finishes)
    changed_.wait_until(lock, instant(disk_.service()->finishes));
  const Service service = disk_.finish();
  jobs_.erase(id);
  lock.unlock();
  const Time answered = now();
  job->answer(verdict);
  journal_.request(service, answered);
  lock.lock();
}

void Head::wait_for_work(Lock& lock) {
  if (const auto change = disk_.next_change()) {
    changed_.wait_until(lock, instant(*change));
  } else {
    changed_.wait(lock);
  }
}

}  // namespace nvr::slowdisk
