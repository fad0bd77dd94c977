#include "tools/streamer/disk.h"

#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <cassert>
#include <cstdio>
#include <memory>
#include <utility>

#include "tools/streamer/block_signals.h"

namespace nvr::streamer {
namespace {

constexpr std::size_t kMostKnown = 100'000;  // about 10 MB a disk
constexpr std::uint32_t kFewestSlots = 2;
constexpr auto kLongestPause = std::chrono::milliseconds(1000);
// Shorter trouble is everyday life of a busy disk, and not worth a line in the log.
constexpr auto kWorthALine = std::chrono::seconds(1);

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

// Its streams are never used. It gives up at once, so that dispatch() tells what the daemon is doing now.
constexpr ConnectOptions kPulse = {.streams = 1,
                                   .slots_per_stream = 2,
                                   .timeout = std::chrono::seconds(2),
                                   .resume = std::chrono::milliseconds(1)};

}  // namespace

Disk::Disk(boost::asio::io_context& loop, std::string name, std::string socket_path, ConnectOptions options)
    : loop_(loop),
      name_(std::move(name)),
      socket_path_(std::move(socket_path)),
      options_(options),
      readable_(loop),
      away_text_("no daemon has answered yet"),
      connecting_([this] { connect(); }) {}

Disk::~Disk() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  stopping_changed_.notify_all();
  connecting_.join();
  if (readable_.is_open()) readable_.release();
}

// ---- Connecting
// ------------------------------------------------------------------------------------------------------

void Disk::connect() {
  block_signals();
  auto pause = std::chrono::milliseconds(50);
  for (;;) {
    auto clients = connect_both();
    if (clients) {
      const auto made = std::make_shared<Clients>(std::move(*clients));
      boost::asio::post(loop_, [this, made] { adopt(std::move(*made)); });
      return;
    }
    boost::asio::post(loop_, [this, text = std::move(clients.error().message)] { away_text_ = text; });
    std::unique_lock lock(mutex_);
    if (stopping_changed_.wait_for(lock, pause, [this] { return stopping_; })) return;
    pause = std::min(2 * pause, kLongestPause);
  }
}

Result<Disk::Clients> Disk::connect_both() {
  ConnectOptions options = options_;
  auto streams = Client::connect(socket_path_, options);
  // A daemon with less memory to give: smaller windows rather than no streams.
  while (!streams && streams.error().code == Code::kResourceExhausted &&
         options.slots_per_stream > kFewestSlots) {
    options.slots_per_stream /= 2;
    streams = Client::connect(socket_path_, options);
  }
  if (!streams) return tl::unexpected(streams.error());
  auto pulse = Client::connect(socket_path_, kPulse);
  if (!pulse) return tl::unexpected(pulse.error());
  return Clients{
      .streams = std::move(*streams), .pulse = std::move(*pulse), .slots = options.slots_per_stream};
}

void Disk::adopt(Clients clients) {
  client_.emplace(std::move(clients.streams));
  pulse_.emplace(std::move(clients.pulse));
  options_.slots_per_stream = clients.slots;
  readable_.assign(client_->native_handle());
  on_readable();
  fmt::print(stderr, "nvr-streamer: disk {}: connected to {}, {} slots a stream\n", name_, socket_path_,
             options_.slots_per_stream);
}

// ---- News
// ------------------------------------------------------------------------------------------------------------

void Disk::wait_for_news() {
  readable_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                       [this](const boost::system::error_code& error) {
                         if (!error) on_readable();
                       });
}

void Disk::on_readable() {
  // Unavailable means only that the daemon is away for long: the streams say so themselves.
  static_cast<void>(client_->dispatch());
  const auto listeners = std::exchange(listeners_, {});  // who still waits listens again
  for (DiskListener* const listener : listeners) listener->on_news();
  wait_for_news();
}

// ---- Health
// ----------------------------------------------------------------------------------------------------------

void Disk::on_tick() {
  if (pulse_) {
    const auto alive = pulse_->dispatch();
    if (alive) {
      away_since_.reset();
    } else {
      if (!away_since_) away_since_ = Clock::now();
      away_text_ = alive.error().message;
    }
  }
  log_changes();
  serve_queue();  // with a stream that ended by itself, too
}

std::optional<Trouble> Disk::trouble() const {
  if (!client_)
    return Trouble{.kind = Trouble::Kind::kConnecting, .lasts = Clock::now() - started_, .text = away_text_};
  if (away_since_)
    return Trouble{.kind = Trouble::Kind::kAway, .lasts = Clock::now() - *away_since_, .text = away_text_};
  const DiskStatus status = client_->disk_status();
  if (!status.stuck) return std::nullopt;
  const bool is_silent = !status.answers_others;
  return Trouble{.kind = is_silent ? Trouble::Kind::kStuck : Trouble::Kind::kOperationStuck,
                 .lasts = is_silent ? status.silent_for : status.stuck_for,
                 .text = fmt::format("{} has been stuck for {:.1f} s on {} {}",
                                     is_silent ? "the disk" : "one operation", seconds(status.stuck_for),
                                     status.opening ? "opening" : "reading", to_string(status.recording))};
}

void Disk::log_changes() {
  const auto now = trouble();
  const bool is_in_trouble = now && now->lasts >= kWorthALine;
  if (is_in_trouble && !was_in_trouble_) fmt::print(stderr, "nvr-streamer: disk {}: {}\n", name_, now->text);
  if (!is_in_trouble && was_in_trouble_) fmt::print(stderr, "nvr-streamer: disk {}: answers again\n", name_);
  was_in_trouble_ = is_in_trouble;
}

// ---- Streams
// ---------------------------------------------------------------------------------------------------------

Result<Stream> Disk::open(const OpenRequest& request) {
  if (!client_) return fail(Code::kUnavailable, away_text_);
  return client_->open(request);
}

// The first in the queue leaves it if there is a stream; then the next one is served.
void Disk::serve_queue() {
  if (!queue_.empty()) queue_.begin()->second->on_news();
}

void Disk::serve_queue_soon() {
  if (queue_.empty() || std::exchange(is_serving_soon_, true)) return;
  boost::asio::post(loop_, [this] {
    is_serving_soon_ = false;
    serve_queue();
  });
}

Loan::Loan(Disk& disk, const OpenRequest& request, Deadline since, DiskListener& listener)
    : disk_(disk), request_(request), place_(disk.queue_.emplace(since, &listener)) {}

Loan::~Loan() {
  if (place_) leave_queue();
  if (!stream_) return;
  stream_.reset();
  --disk_.lent_;
  disk_.serve_queue_soon();
}

Result<Stream*> Loan::poll() {
  if (stream_) return &*stream_;
  assert(place_);
  if (*place_ != disk_.queue_.begin()) return nullptr;
  auto stream = disk_.open(request_);
  // That all streams are open; a bound of the daemon's comes from the stream.
  if (!stream && stream.error().code == Code::kResourceExhausted) return nullptr;
  leave_queue();
  if (!stream) return tl::unexpected(std::move(stream.error()));
  ++disk_.lent_;
  return &stream_.emplace(std::move(*stream));
}

void Loan::leave_queue() {
  disk_.queue_.erase(*place_);
  place_.reset();
  disk_.serve_queue_soon();
}

// ---- What is known
// ---------------------------------------------------------------------------------------------------

const Known* Disk::find_known(RecordingId recording) const {
  const auto found = known_.find(recording.composite());
  return found == known_.end() ? nullptr : &found->second;
}

void Disk::learn(RecordingId recording, const Known& known) {
  if (known_.size() >= kMostKnown) known_.clear();  // costs each of them one small read more
  known_[recording.composite()] = known;
}

}  // namespace nvr::streamer
