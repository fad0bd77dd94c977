// Scenario "stream-out": recordings in the page cache, sent out through TCP, as a streamer does; a thread for
// each stream and its connection, and a process that drains them (sink.h). Ours sends the chunks that its
// client gets; the others are the file itself, by sendfile() or by pread() and send().
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/compare.h"
#include "tools/bench/cpu_time.h"
#include "tools/bench/hot_files.h"
#include "tools/bench/nvr_system.h"
#include "tools/bench/sink.h"

namespace nvr::bench {
namespace {

using BenchClock = std::chrono::steady_clock;

constexpr std::array<std::size_t, 2> kStreamCounts = {1, 16};
constexpr std::size_t kMostStreams = kStreamCounts.back();
constexpr double kLeastOfReadWrite = 0.9;

Result<void> send_all(int socket, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return fail_errno(errno, "cannot send");
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return {};
}

Result<shm::UniqueFd> open_file(const std::string& path) {
  shm::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open " + path);
  return fd;
}

Result<void> read_write(const FileSet& files, std::size_t file, int socket) {
  const auto fd = open_file(files.path(file));
  if (!fd) return tl::unexpected(fd.error());
  thread_local std::vector<std::byte> buffer(kChunkBytes);
  for (std::uint64_t at = 0; at < files.file_bytes(); at += kChunkBytes) {
    const ssize_t got = pread(fd->get(), buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (got != static_cast<ssize_t>(buffer.size())) return fail_errno(got < 0 ? errno : EIO, "cannot read");
    if (auto sent = send_all(socket, buffer); !sent) return sent;
  }
  return {};
}

Result<void> send_file(const FileSet& files, std::size_t file, int socket) {
  const auto fd = open_file(files.path(file));
  if (!fd) return tl::unexpected(fd.error());
  for (off_t at = 0; static_cast<std::uint64_t>(at) < files.file_bytes();) {
    const ssize_t sent =
        sendfile(socket, fd->get(), &at, files.file_bytes() - static_cast<std::uint64_t>(at));
    if (sent <= 0 && errno != EINTR) return fail_errno(errno, "cannot sendfile");
  }
  return {};
}

Result<void> send_chunks(Client& client, const FileSet& files, std::size_t file, int socket) {
  auto stream = client.open({.recording = files.id(file), .begin = 0, .end = files.file_bytes()});
  if (!stream) return tl::unexpected(stream.error());
  while (const auto chunk = stream->next()) {
    if (!*chunk) return tl::unexpected(chunk->error());
    if (auto sent = send_all(socket, (*chunk)->bytes()); !sent) return sent;
  }
  return {};
}

// One way to send a whole recording.
struct Sender {
  std::string name;
  std::function<Result<void>(std::size_t stream, std::size_t file, int socket)> send;
  std::vector<pid_t> helpers = {};  // whose CPU time counts too
  Samples samples = {};
};

Result<double> cpu_s_of(const Sender& sender, const Sink& sink) {
  std::uint64_t sum = own_cpu_ns();
  std::vector<pid_t> pids = sender.helpers;
  pids.push_back(sink.pid());
  for (const pid_t pid : pids) {
    const auto spent = cpu_ns_of(pid);
    if (!spent) return tl::unexpected(spent.error());
    sum += *spent;
  }
  return static_cast<double>(sum) / 1e9;
}

// All streams send whole recordings, one after another, until the time is over. How many.
Result<std::uint64_t> send_recordings(const Sender& sender, const FileSet& files, const Sink& sink,
                                      std::size_t streams, BenchClock::time_point end) {
  std::vector<Result<void>> outcomes(streams);
  std::atomic<std::uint64_t> sent = 0;
  const auto send_stream = [&](std::size_t stream) {
    std::size_t file = stream % files.count();
    do {
      outcomes[stream] = sender.send(stream, file, sink.socket(stream));
      ++sent;
      file = (file + 1) % files.count();
    } while (outcomes[stream] && BenchClock::now() < end);
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < streams; ++i) threads.emplace_back(send_stream, i);
  for (std::thread& thread : threads) thread.join();
  for (const auto& outcome : outcomes)
    if (!outcome) return tl::unexpected(outcome.error());
  return sent.load();
}

Result<Flow> measure(const Sender& sender, const FileSet& files, Sink& sink, std::size_t streams,
                     std::chrono::nanoseconds at_least) {
  const auto cpu_before = cpu_s_of(sender, sink);
  if (!cpu_before) return tl::unexpected(cpu_before.error());
  const std::uint64_t bytes_before = sink.bytes();
  const auto started = BenchClock::now();
  const auto sent = send_recordings(sender, files, sink, streams, started + at_least);
  if (!sent) return tl::unexpected(sent.error());
  const std::uint64_t bytes = *sent * files.file_bytes();
  if (auto drained = sink.wait_for(bytes_before + bytes); !drained) return tl::unexpected(drained.error());
  const std::chrono::duration<double> took = BenchClock::now() - started;
  const auto cpu_after = cpu_s_of(sender, sink);
  if (!cpu_after) return tl::unexpected(cpu_after.error());
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  return Flow{.gb_per_s = gigabytes / took.count(),
              .cpu_s_per_gb = (*cpu_after - *cpu_before) / gigabytes,
              .chunks_per_s = static_cast<double>(bytes) / static_cast<double>(kChunkBytes) / took.count()};
}

// Each stream sends one recording, and the sink looks at it.
Result<void> check(const Sender& sender, const FileSet& files, Sink& sink) {
  sink.set_reading(true);
  const std::uint64_t sum_before = sink.sum();
  std::uint64_t expected = 0;
  for (std::size_t stream = 0; stream < kMostStreams; ++stream)
    expected += files.expected_sum(stream % files.count(), 0, files.file_bytes());
  const auto flow = measure(sender, files, sink, kMostStreams, {});
  sink.set_reading(false);
  if (!flow) return tl::unexpected(flow.error());
  if (sink.sum() - sum_before == expected) return {};
  return fail(Code::kDataLoss, sender.name + " delivered wrong bytes");
}

Result<void> run_rounds(std::vector<Sender>& senders, const FileSet& files, Sink& sink,
                        const BenchOptions& options, std::vector<Row>& rows) {
  for (std::size_t round = 0; round < kWarmUpRounds; ++round)
    for (const Sender& sender : senders)
      if (auto right = check(sender, files, sink); !right) return right;
  for (const std::size_t streams : kStreamCounts) {
    for (Sender& sender : senders) sender.samples = {};
    for (std::size_t round = 0; round < options.rounds; ++round)
      for (Sender& sender : senders) {
        if (interrupted()) return fail(Code::kCancelled, "interrupted");
        const auto flow = measure(sender, files, sink, streams, options.run_time);
        if (!flow) return tl::unexpected(flow.error());
        sender.samples.add(*flow);
      }
    for (const Sender& sender : senders)
      rows.push_back(to_row("stream-out", sender.name, streams, sender.samples));
  }
  return {};
}

Result<std::vector<Row>> measure_all(const HotFiles& recordings, const BenchOptions& options) {
  const FileSet& files = recordings.files();
  auto sink = Sink::start(kMostStreams);
  if (!sink) return tl::unexpected(sink.error());
  std::vector<Sender> senders = {
      {.name = "read_write",
       .send = [&](std::size_t, std::size_t file, int socket) { return read_write(files, file, socket); }},
      {.name = "sendfile",
       .send = [&](std::size_t, std::size_t file, int socket) { return send_file(files, file, socket); }}};
  std::vector<DaemonProcess> daemons;
  const SystemSetup setup = recordings.setup(options);
  for (const std::string engine : {"mmap", "io_uring"}) {
    auto daemon = start_nvr_daemon(setup, engine);
    if (!daemon && engine == "io_uring") {
      fmt::print("nvr_io_uring is left out: {}\n", daemon.error().message);
      continue;
    }
    if (!daemon) return tl::unexpected(daemon.error());
    auto connected = connect_nvr_client(setup, engine);
    if (!connected) return tl::unexpected(connected.error());
    const auto client = std::make_shared<Client>(std::move(*connected));
    senders.push_back(
        {.name = "nvr_" + engine,
         .send = [client, &files](std::size_t, std::size_t file,
                                  int socket) { return send_chunks(*client, files, file, socket); },
         .helpers = {daemon->pid()}});
    daemons.push_back(std::move(*daemon));
  }
  std::vector<Row> rows;
  if (auto done = run_rounds(senders, files, *sink, options, rows); !done)
    return tl::unexpected(done.error());
  return rows;
}

std::vector<Target> targets_of(const std::vector<Row>& rows) {
  std::vector<Target> targets;
  for (const Row& ours : rows) {
    const Row* const reference = find_row(rows, "read_write", ours.streams);
    if (!ours.system.starts_with("nvr_") || reference == nullptr) continue;
    targets.push_back({.what = name_of_target(ours.streams, ours.system, "GB/s out / read_write"),
                       .measured = ratio_of(ours.gb_per_s.median, reference->gb_per_s.median),
                       .bound = kLeastOfReadWrite});
  }
  return targets;
}

}  // namespace

Result<Findings> run_stream_out(const BenchOptions& options) {
  const auto recordings = HotFiles::create(options);
  if (!recordings) return tl::unexpected(recordings.error());
  fmt::print(
      "stream-out: recordings in the page cache, out through TCP over the loopback, {} rounds, {}\n"
      "            a thread for each stream; who receives throws the bytes away without a copy\n\n",
      options.rounds, describe_machine());
  std::fflush(stdout);
  const auto foreign = ForeignLoad::watch_children();
  auto rows = measure_all(*recordings, options);
  if (!rows) return tl::unexpected(rows.error());
  Findings findings = {.rows = std::move(*rows), .references = {}, .targets = {}};
  findings.targets = targets_of(findings.rows);
  findings.foreign_cpus = foreign.cpus().value_or(0);
  return findings;
}

}  // namespace nvr::bench
