// The places of the sources that the model's steps stand for.
#include "tests/model/steps.h"

#include <array>

namespace nvr::model {
namespace {

constexpr const char* kDiskThreadFile = "daemon/disk_thread.cpp";
constexpr const char* kServiceFile = "daemon/disk_service.cpp";
constexpr const char* kServedFile = "daemon/served_stream.cpp";
constexpr const char* kPublishingFile = "daemon/stream_publishing.cpp";
constexpr const char* kConnectionFile = "client/src/connection.cpp";
constexpr const char* kReaderFile = "client/src/stream_reader.cpp";
constexpr const char* kWaitingFile = "client/src/stream_waiting.cpp";
constexpr const char* kRingFile = "shm/ring.h";
constexpr const char* kWakeFile = "shm/wake.h";

constexpr std::array<SourcePlace, static_cast<std::size_t>(Step::kSteps)> kPlaces = {{
    {Step::kDone, "", "has ended"},
    {Step::kDiskMail, kDiskThreadFile, "while (auto message = to_disk_.take())"},
    {Step::kDiskCommands, kRingFile,
     "const std::uint32_t tail = shared_->command_tail.load(std::memory_order_seq_cst);"},
    {Step::kDiskCommand, kServiceFile,
     "void DiskService::take_command(ServedStream& stream, const shm::Command& command,"},
    {Step::kDiskOpenCredit, kServiceFile, "if (!stream.take_credit()) {\n    offence ="},
    {Step::kDiskStarved, kServiceFile, "scheduler_.for_each_starved("},
    {Step::kDiskCredit, kRingFile,
     "const std::uint32_t tail = shared_->return_tail.load(std::memory_order_seq_cst);"},
    {Step::kDiskTaken, kDiskThreadFile, "if (!take_all()) {"},
    {Step::kDiskSubmit, kServiceFile, "serve(scheduler_.next(now_ns), Operation::Lane::kNone, now_ns);"},
    {Step::kDiskSubmitCredit, kServiceFile, "if (!stream.take_credit()) {"},
    {Step::kDiskReap, kServiceFile, "engine_.reap(completions);"},
    {Step::kDiskEndWithError, kPublishingFile, "if (must_publish_) publish();\n      end_with(error"},
    {Step::kDiskAnnounce, kDiskThreadFile, "connection->sleeper().announce();"},
    {Step::kDiskSleep, kDiskThreadFile, "engine_->wait("},
    {Step::kDiskDrain, kDiskThreadFile, "doorbells_.drain("},
    {Step::kDiskRetire, kDiskThreadFile, "connection->sleeper().retire();"},
    {Step::kDiskPublish, kRingFile, "shared_->head.store(next_, std::memory_order_seq_cst);"},
    {Step::kDiskPublishQuietly, kServedFile, "// Nobody is woken for this:"},
    {Step::kDiskShow, kPublishingFile, "put_complete_slots(operation, done);\n  descriptors_.publish();"},
    {Step::kDiskWaiting, kPublishingFile, "if (reader_.should_ring()) {"},
    {Step::kDiskFutexWake, kPublishingFile,
     "if (!shm::futex_wake_one(descriptors_.futex_word())) reader_.take_back();"},
    {Step::kDiskWantByte, "daemon/connection.cpp", "if (!event_loop_.should_ring()) return false;"},
    {Step::kDiskSend, "daemon/connection.cpp", "shm::send_message(socket_, shm::Published{})"},
    {Step::kControlAttach, "daemon/peers.cpp", "disk_->post(Attach{peer.connection.get()});"},
    {Step::kControlRingAttach, kDiskThreadFile, "ring(mail_wakeup_.get());"},
    {Step::kControlWait, "daemon/peers.cpp",
     "if (received && received->size == 0) return end(peer, nullptr);"},
    {Step::kControlDetach, "daemon/peers.cpp", "disk_->post(Detach{peer.connection.get()});"},
    {Step::kControlRingDetach, kDiskThreadFile, "ring(mail_wakeup_.get());"},
    {Step::kControlDetached, "daemon/peers.cpp", "void Peers::on_detached(Connection& connection) {"},
    {Step::kUserOpen, "", "the user opens a stream"},
    {Step::kUser, "", "the user has a chunk"},
    {Step::kUserNext, "", "the user calls next()"},
    {Step::kUserWait, "", "the user waits until a chunk of its own was dropped"},
    {Step::kUserLeaves, "", "the user destroys the stream"},
    {Step::kUserEnded, "", "the stream has ended"},
    {Step::kUserCloses, "client/src/session.cpp", "connection_->hang_up();\n}"},
    {Step::kUserDrops, "", "the user drops the chunks that are left"},
    {Step::kHelperDrops, "", "a chunk is dropped by another thread"},
    {Step::kClaim, kConnectionFile,
     "channel.state == Channel::State::kDraining && !channel.is_promised && drain(channel)"},
    {Step::kClaimed, kConnectionFile, "return Claim{.channel = *best, .is_ready = true};"},
    {Step::kDrain, kConnectionFile, "const auto look = channel.descriptors.look();"},
    {Step::kDrainPut, kConnectionFile, "channel.returns.put(descriptor.slot);"},
    {Step::kStart, kReaderFile, "if (stopped_.load() != Code::kUnknown) return;\n  const bool to_end"},
    {Step::kStarted, kReaderFile, "phase_ = Phase::kOpening;"},
    {Step::kPost, kRingFile, "shared_->command_tail.store(next_, std::memory_order_seq_cst);"},
    {Step::kPosted, kConnectionFile, "commands_.put(command);\n  ring();"},
    {Step::kRing, kWakeFile, "const std::uint32_t value = epoch_->load(std::memory_order_seq_cst);"},
    {Step::kRingCompare, kWakeFile, "rung_for.store(value, std::memory_order_relaxed);"},
    {Step::kRingWrite, kConnectionFile, "!write(doorbell_.get(), &one, sizeof(one))"},
    {Step::kGivePut, kRingFile, "shared_->return_tail.store(next_, std::memory_order_seq_cst);"},
    {Step::kGiveHeld, kConnectionFile, "channel.held.fetch_sub(1, std::memory_order_relaxed);"},
    {Step::kGiveCount, kConnectionFile, "channel.returned_since_ring.fetch_add(1) + 1;"},
    {Step::kGiveIsWaiting, kConnectionFile,
     "if (returned >= geometry().slots / 2 || channel.is_reader_waiting.load()) ring_for_credit(channel);"},
    {Step::kCreditLoad, kConnectionFile, "if (channel.returned_since_ring.load() == 0) return;"},
    {Step::kCreditZero, kConnectionFile, "channel.returned_since_ring.store(0);"},
    {Step::kNext, kReaderFile, "stop_waiting();\n  return advance(Until::kNews, deadline_ns);"},
    {Step::kAdvance, kReaderFile, "if (const Code stopped = stopped_.load(); stopped != Code::kUnknown) {"},
    {Step::kLook, kReaderFile, "const auto look = channel().descriptors.look();"},
    {Step::kMustGiveBack, kWaitingFile, "if (must_give_back()) return window_error();\n  if (spin())"},
    {Step::kAnnounce, kWaitingFile, "c.sleeper.announce();"},
    {Step::kSetWaiting, kWaitingFile, "c.is_reader_waiting.store(true);\n  std::optional<Error> error;"},
    {Step::kWaitNews, kWaitingFile,
     "if (!has_news()) {\n    connection_->ring_for_credit(c);\n    error = sleep(deadline_ns);"},
    {Step::kStopSeen, kWaitingFile, "const std::uint32_t stop_seen = c.stop_word.load();"},
    {Step::kStopCheck, kWaitingFile, "if (stopped_.load() != Code::kUnknown) return std::nullopt;"},
    {Step::kFutexHead, "shm/futex.cpp", "waiter(shared, shared_seen, FUTEX_32)"},
    {Step::kFutexStop, "shm/futex.cpp", "waiter(own, own_seen, FUTEX_32 | FUTEX_PRIVATE_FLAG)"},
    {Step::kAsleep, "shm/futex.cpp", "syscall(SYS_futex_waitv, words.data(), words.size(), 0,"},
    {Step::kSliceNews, kWaitingFile,
     "if (has_news()) return std::nullopt;  // what was published before the daemon died comes first"},
    {Step::kClearWaiting, kWaitingFile, "c.is_reader_waiting.store(polled_in_vain_);"},
    {Step::kRetire, kWaitingFile, "c.sleeper.retire();"},
    {Step::kWaited, kReaderFile, "if (auto error = deadline_ns == kNow ? poll() : wait(deadline_ns)) {"},
    {Step::kNewsStopped, kWaitingFile, "if (stopped_.load() != Code::kUnknown) return true;"},
    {Step::kNewsLook, kWaitingFile, "return look != DescriptorConsumer::Look::kEmpty;"},
    {Step::kNewsPromise, kWaitingFile, "connection_->try_keep_promise(channel_);"},
    {Step::kNewsKept, kWaitingFile, "if (promise.is_kept) phase_ = Phase::kClaimed;"},
    {Step::kPoll, kWaitingFile, "c.is_reader_waiting.store(true);\n  polled_in_vain_ = true;"},
    {Step::kPollNews, kWaitingFile,
     "if (has_news()) return std::nullopt;\n  connection_->ring_for_credit(c);"},
    {Step::kPollCredit, kWaitingFile, "if (must_give_back()) return window_error();\n  const auto alive"},
    {Step::kPollAlive, kWaitingFile, "connection_->check_alive_sometimes(&heartbeat_);"},
    {Step::kPollDead, kWaitingFile, "if (has_news()) return std::nullopt;\n  return alive ?"},
    {Step::kLeave, kReaderFile,
     "if (std::exchange(is_open_, false) && !terminal_taken) connection_->post_close(channel_);"},
    {Step::kLeaveChannel, kReaderFile, "connection_->abandon_channel(channel_);"},
    {Step::kLeft, kConnectionFile,
     "channel.state = drain(channel) ? Channel::State::kFree : Channel::State::kDraining;"},
    {Step::kDispatch, kConnectionFile, "if (death_) return tl::unexpected(*death_);\n  take_messages();"},
    {Step::kDispatchHungUp, kConnectionFile,
     "if (!death_ && poll(&entry, 1, 0) > 0 && entry.revents != 0) return die("},
    {Step::kDispatchAnnounce, kConnectionFile, "event_loop_.announce();"},
    {Step::kDispatched, "", "the event loop goes to its first stream"},
    {Step::kLoopNext, "", "the event loop calls try_next()"},
    {Step::kLoopWait, "", "the event loop waits for the socket"},
    {Step::kStop, kReaderFile, "if (!stopped_.compare_exchange_strong(running, code)) return;"},
    {Step::kStopWord, kReaderFile, "channel().stop_word.fetch_add(1);"},
    {Step::kStopWake, kReaderFile, "shm::futex_wake_private(channel().stop_word);"},
}};

constexpr bool is_in_order() {
  for (std::size_t i = 0; i < kPlaces.size(); ++i) {
    if (kPlaces[i].step != static_cast<Step>(i) || kPlaces[i].code == nullptr) return false;
  }
  return true;
}
static_assert(is_in_order());

}  // namespace

const SourcePlace& place_of(Step step) {
  return kPlaces[static_cast<std::size_t>(step)];
}

std::string to_string(Step step) {
  const SourcePlace& place = place_of(step);
  const std::string file = place.file;
  return file.empty() ? place.code : file + ": " + place.code;
}

}  // namespace nvr::model
