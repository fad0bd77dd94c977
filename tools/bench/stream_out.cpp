// Scenario "stream-out": recordings in the page cache, sent out through TCP, as a streamer does; a thread for
// each stream and its connection, and a process that drains them (sink.h). Ours sends the chunks that its
// client gets; the others are the file itself, by sendfile() or by pread() and send().
#include <errno.h>
#include <fmt/format.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>

#include "tools/bench/cpu_time.h"
#include "tools/bench/scenario.h"
#include "tools/bench/sink.h"

namespace nvr::bench {
namespace {

constexpr std::array<std::size_t, 2> kStreamCounts = {1, 16};
constexpr std::size_t kMostStreams = kStreamCounts.back();

// Sends chunks to a connection.
class Sender final : public Taker {
 public:
  explicit Sender(int socket) : socket_(socket) {}

  void take(std::span<const std::byte> bytes) override {
    while (!bytes.empty() && outcome_) {
      const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent >= 0)
        bytes = bytes.subspan(static_cast<std::size_t>(sent));
      else if (errno != EINTR)
        outcome_ = fail_errno(errno, "cannot send");
    }
  }
  [[nodiscard]] const Result<void>& outcome() const { return outcome_; }

 private:
  int socket_;
  Result<void> outcome_;
};

// What another system delivers goes out, and is checked where it arrives.
class OutwardSystem final : public System {
 public:
  OutwardSystem(std::string name, std::shared_ptr<System> from, std::shared_ptr<Sink> sink)
      : name_(std::move(name)), from_(std::move(from)), sink_(std::move(sink)) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    return from_->open(stream, range);
  }
  [[nodiscard]] Result<bool> next(std::size_t stream, Taker&) override {
    Sender sender(sink_->socket(stream));
    auto more = from_->next(stream, sender);
    if (!sender.outcome()) return tl::unexpected(sender.outcome().error());
    return more;
  }
  void close(std::size_t stream) override { from_->close(stream); }
  [[nodiscard]] Result<void> check(const Tally&, const Tally& expected) override {
    if (auto drained = sink_->wait_for(expected.bytes); !drained) return drained;
    if (!sink_->is_reading() || sink_->take_sum() == expected.sum) return {};
    return fail(Code::kDataLoss, name_ + " delivered wrong bytes");
  }
  [[nodiscard]] Result<std::uint64_t> other_cpu_ns() const override {
    const auto of_sink = cpu_ns_of(sink_->pid());
    const auto of_system = from_->other_cpu_ns();
    if (!of_sink || !of_system) return fail(Code::kUnavailable, "a process has ended");
    return *of_sink + *of_system;
  }

 private:
  std::string name_;
  std::shared_ptr<System> from_;
  std::shared_ptr<Sink> sink_;
};

// The kernel sends it, and nobody takes anything.
class SendfileSystem final : public System {
 public:
  SendfileSystem(const SystemSetup& setup, std::shared_ptr<Sink> sink)
      : files_(setup.files), sink_(std::move(sink)), streams_(setup.streams) {}

  [[nodiscard]] std::string_view name() const override { return "sendfile"; }
  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    auto fd = files_.open(range.file);
    if (!fd) return tl::unexpected(fd.error());
    streams_[stream] = {.fd = std::move(*fd), .left = range};
    return {};
  }
  [[nodiscard]] Result<bool> next(std::size_t stream, Taker&) override {
    auto& [fd, left] = streams_[stream];
    if (left.begin == left.end) return false;
    auto at = static_cast<off_t>(left.begin);
    const ssize_t sent = sendfile(sink_->socket(stream), fd.get(), &at, left.end - left.begin);
    if (sent <= 0 && errno != EINTR) return fail_errno(errno, "cannot sendfile");
    left.begin = static_cast<std::uint64_t>(at);
    return true;
  }
  void close(std::size_t stream) override { streams_[stream].fd.reset(); }

 private:
  struct OpenFile {
    shm::UniqueFd fd;
    FileRange left;
  };

  const FileSet& files_;
  std::shared_ptr<Sink> sink_;
  std::vector<OpenFile> streams_;
};

Result<Systems> make_senders(const SystemSetup& setup, const std::shared_ptr<Sink>& sink) {
  auto readers =
      make_systems(std::array{make_pread_system, make_nvr_mmap_system, make_nvr_io_uring_system}, setup);
  if (!readers) return readers;
  Systems systems;
  for (const auto& reader : *readers) {
    const std::string name = reader->name() == "pread" ? "read_write" : std::string(reader->name());
    systems.push_back(std::make_shared<OutwardSystem>(name, reader, sink));
  }
  systems.insert(systems.begin() + 1, std::make_shared<OutwardSystem>(
                                          "sendfile", std::make_shared<SendfileSystem>(setup, sink), sink));
  return systems;
}

Result<std::vector<Turn>> turns_of(SystemSetup setup, const BenchOptions& options) {
  const FileSet& files = setup.files;
  setup.streams = kMostStreams;
  auto started = Sink::start(kMostStreams);
  if (!started) return tl::unexpected(started.error());
  const auto sink = std::make_shared<Sink>(std::move(*started));
  const auto systems = make_senders(setup, sink);
  if (!systems) return tl::unexpected(systems.error());
  std::vector<Turn> turns;
  for (const std::size_t streams : kStreamCounts)
    add_turns(turns, *systems, "", streams, [&, streams](System& system, Samples& samples) -> Result<void> {
      const auto flow = measure_flow(
          system, files, {.streams = streams, .consumers = streams, .at_least = options.run_time});
      if (!flow) return tl::unexpected(flow.error());
      samples.add(*flow);
      return {};
    });
  // Before that each stream sends one recording, and the sink looks at it.
  for (std::size_t i = 0; i < turns.size(); ++i)
    turns[i].warm_up = [&files, sink, system = (*systems)[i % systems->size()]]() -> Result<void> {
      sink->set_reading(true);
      const auto flow = measure_flow(*system, files, {.streams = kMostStreams, .consumers = kMostStreams});
      sink->set_reading(false);
      return flow ? Result<void>() : tl::unexpected(flow.error());
    };
  return turns;
}

}  // namespace

Plan plan_stream_out(const BenchOptions& options) {
  return {.heading = fmt::format(
              "stream-out: recordings in the page cache, out through TCP over the loopback, {}\n"
              "            a thread for each stream; who receives throws the bytes away without a copy",
              describe_run(options)),
          .files = options.files,
          .blocks = {{.warm_up_rounds = kWarmUpRounds / kStreamCounts.size(),
                      .rounds = options.rounds,
                      .round_s = 6,
                      .set_up = [&](const SystemSetup& setup) { return turns_of(setup, options); }}},
          .require = [](Referee& referee) {
            for (const std::size_t streams : kStreamCounts)
              referee.at_least(
                  0.9, describe_streams(streams) + ", GB/s out / read_write",
                  referee.ours(streams, "gb_per_s") / referee.value("read_write", streams, "gb_per_s"));
          }};
}

}  // namespace nvr::bench
