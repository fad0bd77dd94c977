#include "tools/bench/client_crew.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "tools/bench/cpu_time.h"
#include "tools/bench/disk_load.h"

namespace nvr::bench {
namespace {

using BenchClock = std::chrono::steady_clock;

// What the crew's owner sends: a window of time. And what a child answers; the first time, to nothing, that
// it is ready.
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
  double seconds = 0;
  std::array<std::uint64_t, kMaxStreamsOfProcess> bytes = {};
};

Answer to_answer(const Error& error) {
  Answer answer = {.code = error.code};
  const std::size_t length = std::min(error.message.size(), answer.text.size() - 1);
  std::memcpy(answer.text.data(), error.message.data(), length);
  return answer;
}

FileRange range_of(const FileSet& files, std::size_t stream_of_all) {
  return {.file = stream_of_all % files.count(), .begin = 0, .end = files.file_bytes()};
}

// A window of one child: every stream from another file on.
Answer read_window(System& system, const FileSet& files, const Command& command, std::size_t member,
                   std::size_t streams) {
  std::this_thread::sleep_until(BenchClock::time_point(BenchClock::duration(command.begin)));
  std::vector<DiskStream> what;
  for (std::size_t i = 0; i < streams; ++i)
    what.push_back(
        {.range = range_of(files, member * streams + i),
         .circle = DiskStream::Circle{.first = 0, .last = files.count() - 1, .stays_cached = true}});
  const std::chrono::duration<double> run_up = BenchClock::duration(command.run_up);
  const std::chrono::duration<double> all = BenchClock::duration(command.run_up + command.length);
  const auto result = run_disk_load(system, files, what, all.count(), nullptr, run_up.count());
  if (!result) return to_answer(result.error());
  Answer answer = {.is_right = true, .seconds = result->seconds};
  for (std::size_t i = 0; i < streams; ++i) answer.bytes[i] = result->streams[i].bytes;
  return answer;
}

Answer open_all(System& system, const FileSet& files, std::size_t member, std::size_t streams) {
  for (std::size_t i = 0; i < streams; ++i)
    if (const auto opened = system.open(i, range_of(files, member * streams + i)); !opened)
      return to_answer(opened.error());
  return {.is_right = true};
}

Answer close_all(System& system, std::size_t streams) {
  for (std::size_t i = 0; i < streams; ++i) system.close(i);
  return {.is_right = true};
}

// The child's life. Returns its exit code.
int serve(int socket, const FileSet& files, const CrewSetup& setup, std::size_t member) {
  const auto system = setup.make();
  Answer answer = system ? Answer{.is_right = true} : to_answer(system.error());
  Command command;
  do {
    if (send(socket, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer)) return 1;
    if (!system || recv(socket, &command, sizeof(command), 0) != sizeof(command)) return 0;
    switch (command.order) {
      case ClientCrew::Order::kRead:
        answer = read_window(**system, files, command, member, setup.streams_each);
        break;
      case ClientCrew::Order::kOpen:
        answer = open_all(**system, files, member, setup.streams_each);
        break;
      case ClientCrew::Order::kClose:
        answer = close_all(**system, setup.streams_each);
        break;
    }
  } while (true);
}

Result<Answer> receive(int socket) {
  Answer answer;
  const ssize_t got = recv(socket, &answer, sizeof(answer), 0);
  if (got != sizeof(answer)) return fail(Code::kUnavailable, "a client process ended");
  if (!answer.is_right) return fail(answer.code, std::string("a client process: ") + answer.text.data());
  return answer;
}

}  // namespace

double CrewFlow::jain() const {
  double sum = 0;
  double squares = 0;
  for (const double bytes : stream_bytes) {
    sum += bytes;
    squares += bytes * bytes;
  }
  return squares > 0 ? sum * sum / (static_cast<double>(stream_bytes.size()) * squares) : 0;
}

Result<ClientCrew> ClientCrew::start(const FileSet& files, CrewSetup setup) {
  ClientCrew crew(std::move(setup));
  // One after the other: a daemon takes only so many handshakes at a time.
  for (std::size_t i = 0; i < crew.setup_.processes; ++i) {
    if (auto forked = crew.fork_member(files); !forked) return tl::unexpected(forked.error());
    if (const auto ready = receive(crew.members_.back().socket.get()); !ready)
      return tl::unexpected(ready.error());
  }
  return crew;
}

Result<void> ClientCrew::fork_member(const FileSet& files) {
  std::array<int, 2> pair = {};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return fail_errno(errno, "cannot make a socket pair");
  shm::UniqueFd ours(pair[0]);
  const shm::UniqueFd theirs(pair[1]);
  auto process = ChildProcess::fork([&] {
    ours.reset();
    return serve(theirs.get(), files, setup_, members_.size());
  });
  if (!process) return tl::unexpected(process.error());
  members_.push_back({.socket = std::move(ours), .process = std::move(*process)});
  return {};
}

Result<void> ClientCrew::tell_all(Order order) {
  const Command command = {.order = order};
  for (const Member& member : members_) {
    if (send(member.socket.get(), &command, sizeof(command), MSG_NOSIGNAL) != sizeof(command))
      return fail_errno(errno, "a client process does not listen");
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
  const Command command = {
      .begin = begin.time_since_epoch().count(), .run_up = run_up.count(), .length = window.count()};
  for (const Member& member : members_)
    if (send(member.socket.get(), &command, sizeof(command), MSG_NOSIGNAL) != sizeof(command))
      return fail_errno(errno, "a client process does not listen");
  std::this_thread::sleep_until(begin + run_up);
  const auto cpu_before = cpu_ns();
  if (!cpu_before) return tl::unexpected(cpu_before.error());
  if (meanwhile) {
    std::this_thread::sleep_until(begin + run_up + window / 2);
    meanwhile();
  }
  CrewFlow result;
  double bytes = 0;
  for (const Member& member : members_) {
    const auto answer = receive(member.socket.get());
    if (!answer) return tl::unexpected(answer.error());
    for (std::size_t i = 0; i < setup_.streams_each; ++i) {
      result.stream_bytes.push_back(static_cast<double>(answer->bytes[i]));
      bytes += static_cast<double>(answer->bytes[i]);
    }
  }
  const auto cpu_after = cpu_ns();
  if (!cpu_after) return tl::unexpected(cpu_after.error());
  const double seconds = std::chrono::duration<double>(window).count();
  result.flow = {.gb_per_s = bytes / 1e9 / seconds,
                 .cpu_s_per_gb = bytes > 0 ? static_cast<double>(*cpu_after - *cpu_before) / bytes : 0,
                 .chunks_per_s = bytes / static_cast<double>(kChunkBytes) / seconds};
  return result;
}

Result<std::uint64_t> ClientCrew::cpu_ns() const {
  std::uint64_t sum = 0;
  const auto add = [&](pid_t pid) -> Result<void> {
    const auto spent = cpu_ns_of(pid);
    if (!spent) return tl::unexpected(spent.error());
    sum += *spent;
    return {};
  };
  for (const Member& member : members_)
    if (auto added = add(member.process.pid()); !added) return tl::unexpected(added.error());
  for (const pid_t helper : setup_.helpers)
    if (auto added = add(helper); !added) return tl::unexpected(added.error());
  return sum;
}

}  // namespace nvr::bench
