#include "tools/bench/client_crew.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <thread>

#include "tools/bench/cpu_time.h"
#include "tools/bench/nvr_system.h"
#include "tools/bench/window.h"

namespace nvr::bench {
namespace {

// What the crew's owner sends: for Order::kRead a window of time. And what a child answers; the first time,
// to nothing, that it is ready.
struct Command {
  ClientCrew::Order order = ClientCrew::Order::kRead;
  BenchClock::rep begin = 0;
  BenchClock::rep run_up = 0;
  BenchClock::rep length = 0;  // after it
};
struct Answer {
  bool is_right = false;
  Code code = Code::kUnknown;
  std::array<char, 240> text = {};  // of the error
  std::array<double, kMaxStreamsOfProcess> bytes = {};
};

Answer to_answer(const Result<void>& result) {
  if (result) return {.is_right = true};
  Answer answer = {.code = result.error().code};
  const std::string& text = result.error().message;
  std::memcpy(answer.text.data(), text.data(), std::min(text.size(), answer.text.size() - 1));
  return answer;
}

// A child of a crew: its streams are the next ones of the crew's.
class Child {
 public:
  Child(System& system, const FileSet& files, std::size_t first_stream, std::size_t streams)
      : system_(system), files_(files), first_(first_stream), streams_(streams) {}

  [[nodiscard]] Answer obey(const Command& command) {
    if (command.order == ClientCrew::Order::kRead) return read(command);
    Result<void> done;
    for (std::size_t i = 0; i < streams_ && done; ++i) {
      if (command.order == ClientCrew::Order::kOpen)
        done = system_.open(i, files_.whole(first_ + i));
      else
        system_.close(i);
    }
    return to_answer(done);
  }

 private:
  // A window: every stream from another file on.
  [[nodiscard]] Answer read(const Command& command) {
    std::this_thread::sleep_until(BenchClock::time_point(BenchClock::duration(command.begin)));
    std::vector<WindowStream> streams;
    for (std::size_t i = 0; i < streams_; ++i)
      streams.push_back(
          {.range = files_.whole(first_ + i), .last_file = files_.count() - 1, .stays_cached = true});
    const std::chrono::duration<double> run_up = BenchClock::duration(command.run_up);
    const std::chrono::duration<double> all = BenchClock::duration(command.run_up + command.length);
    const auto result = run_window(system_, files_, streams, all.count(), run_up.count());
    if (!result) return to_answer(tl::unexpected(result.error()));
    Answer answer = {.is_right = true};
    std::ranges::copy(result->stream_bytes, answer.bytes.begin());
    return answer;
  }

  System& system_;
  const FileSet& files_;
  std::size_t first_;
  std::size_t streams_;
};

// The child's life. Returns its exit code.
int serve(int socket, const FileSet& files, const ClientCrew::Make& make, std::size_t member,
          std::size_t streams) {
  const auto system = make();
  Answer answer = to_answer(system ? Result<void>() : tl::unexpected(system.error()));
  for (Command command;;) {
    if (send(socket, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer)) return 1;
    if (!system || recv(socket, &command, sizeof(command), 0) != sizeof(command)) return 0;
    answer = Child(**system, files, member * streams, streams).obey(command);
  }
}

Result<void> tell(int socket, const Command& command) {
  if (send(socket, &command, sizeof(command), MSG_NOSIGNAL) == sizeof(command)) return {};
  return fail_errno(errno, "a client process does not listen");
}

Result<Answer> receive(int socket) {
  Answer answer;
  const ssize_t got = recv(socket, &answer, sizeof(answer), 0);
  if (got != sizeof(answer)) return fail(Code::kUnavailable, "a client process ended");
  if (!answer.is_right) return fail(answer.code, std::string("a client process: ") + answer.text.data());
  return answer;
}

}  // namespace

Result<ClientCrew> ClientCrew::start(const FileSet& files, Crowd crowd, const Make& make,
                                     std::vector<pid_t> helpers) {
  ClientCrew crew(crowd, std::move(helpers));
  // One after the other: a daemon takes only so many handshakes at a time.
  for (std::size_t i = 0; i < crowd.processes; ++i) {
    if (auto forked = crew.fork_member(files, make); !forked) return tl::unexpected(forked.error());
    if (const auto ready = receive(crew.members_.back().socket.get()); !ready)
      return tl::unexpected(ready.error());
  }
  return crew;
}

Result<void> ClientCrew::fork_member(const FileSet& files, const Make& make) {
  std::array<int, 2> pair = {};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return fail_errno(errno, "cannot make a socket pair");
  shm::UniqueFd ours(pair[0]);
  const shm::UniqueFd theirs(pair[1]);
  auto process = ChildProcess::fork([&] {
    ours.reset();
    return serve(theirs.get(), files, make, members_.size(), crowd_.streams_each);
  });
  if (!process) return tl::unexpected(process.error());
  members_.push_back({.socket = std::move(ours), .process = std::move(*process)});
  return {};
}

Result<void> ClientCrew::tell_all(Order order) {
  for (const Member& member : members_) {
    if (auto told = tell(member.socket.get(), {.order = order}); !told) return told;
    if (const auto done = receive(member.socket.get()); !done) return tl::unexpected(done.error());
  }
  return {};
}

Result<CrewFlow> ClientCrew::measure(std::chrono::nanoseconds window,
                                     const std::function<void()>& meanwhile) {
  // The children have been told by then.
  const auto begin = BenchClock::now() + std::chrono::milliseconds(20) +
                     std::chrono::microseconds(100) * static_cast<BenchClock::rep>(members_.size());
  const BenchClock::duration run_up = window / 2;
  for (const Member& member : members_)
    if (auto told = tell(
            member.socket.get(),
            {.begin = begin.time_since_epoch().count(), .run_up = run_up.count(), .length = window.count()});
        !told)
      return tl::unexpected(told.error());
  std::this_thread::sleep_until(begin + run_up);
  const auto cpu_before = cpu_ns();
  if (!cpu_before) return tl::unexpected(cpu_before.error());
  if (meanwhile) {
    std::this_thread::sleep_until(begin + run_up + window / 2);
    meanwhile();
  }
  CrewFlow result;
  for (const Member& member : members_) {
    const auto answer = receive(member.socket.get());
    if (!answer) return tl::unexpected(answer.error());
    result.stream_bytes.insert(result.stream_bytes.end(), answer->bytes.begin(),
                               answer->bytes.begin() + static_cast<std::ptrdiff_t>(crowd_.streams_each));
  }
  const auto cpu_after = cpu_ns();
  if (!cpu_after) return tl::unexpected(cpu_after.error());
  const double bytes = std::accumulate(result.stream_bytes.begin(), result.stream_bytes.end(), 0.0);
  result.flow = to_flow(bytes, bytes / static_cast<double>(kChunkBytes),
                        std::chrono::duration<double>(window).count(), *cpu_after - *cpu_before);
  return result;
}

Result<double> ClientCrew::cpu_ns() const {
  std::vector<pid_t> pids = helpers_;
  for (const Member& member : members_) pids.push_back(member.process.pid());
  double sum = 0;
  for (const pid_t pid : pids) {
    const auto spent = cpu_ns_of(pid);
    if (!spent) return tl::unexpected(spent.error());
    sum += static_cast<double>(*spent);
  }
  return sum;
}

Result<std::vector<Turn>> crew_turns(const SystemSetup& of_all, std::string_view part, Crowd crowd,
                                     std::chrono::nanoseconds window) {
  SystemSetup setup = of_all;
  setup.streams = crowd.streams_each;
  std::vector<Turn> turns;
  const auto add = [&](const std::string& name, const ClientCrew::Make& make,
                       const std::shared_ptr<DaemonProcess>& daemon) -> Result<void> {
    auto started = ClientCrew::start(setup.files, crowd, make,
                                     daemon ? std::vector<pid_t>{daemon->pid()} : std::vector<pid_t>());
    if (!started) return tl::unexpected(started.error());
    const auto crew = std::make_shared<ClientCrew>(std::move(*started));
    turns.push_back({.part = std::string(part),
                     .system = name,
                     .streams = crowd.streams(),
                     .measure = [daemon, crew, crowd, window](Samples& samples) -> Result<void> {
                       const auto result = crew->measure(window);
                       if (!result) return tl::unexpected(result.error());
                       samples.add(result->flow);
                       samples.add("processes", static_cast<double>(crowd.processes));
                       samples.add("jain", fairness_of(result->stream_bytes));
                       return {};
                     }});
    return {};
  };
  auto added = add(
      "pread", [&] { return make_pread_system(setup); }, nullptr);
  if (added)
    added = for_each_engine([&](const std::string& engine) -> Result<void> {
      auto daemon = start_nvr_daemon(setup, engine);
      if (!daemon) return tl::unexpected(daemon.error());
      return add(
          "nvr_" + engine, [&] { return NvrSystem::connect(setup, engine); },
          std::make_shared<DaemonProcess>(std::move(*daemon)));
    });
  if (!added) return tl::unexpected(added.error());
  return turns;
}

}  // namespace nvr::bench
