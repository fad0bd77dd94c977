// The public classes: thin handles on Connection and StreamReader.
#include "nvr/client.h"

#include <utility>

#include "connection.h"
#include "session.h"
#include "shm/clock.h"
#include "stream_reader.h"

namespace nvr {
namespace {

std::uint64_t to_ns(Deadline deadline) {
  if (deadline == Deadline::max()) return internal::kForever;
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count();
  return ns <= 1 ? 1
                 : static_cast<std::uint64_t>(
                       ns);  // in the past is not "do not wait": it looks once all the same
}

}  // namespace

// ---- Chunk
// -----------------------------------------------------------------------------------------------------------

Chunk::Chunk(std::shared_ptr<internal::Connection> connection, std::uint32_t stream, std::uint32_t slot,
             std::span<const std::byte> bytes, std::uint64_t offset)
    : connection_(std::move(connection)), bytes_(bytes), offset_(offset), stream_(stream), slot_(slot) {}

Chunk::Chunk(Chunk&& other) noexcept
    : connection_(std::move(other.connection_)),
      bytes_(std::exchange(other.bytes_, {})),
      offset_(other.offset_),
      stream_(other.stream_),
      slot_(other.slot_) {}

Chunk& Chunk::operator=(Chunk&& other) noexcept {
  Chunk taken(std::move(other));  // so that assigning a chunk to itself keeps it
  std::swap(connection_, taken.connection_);
  std::swap(bytes_, taken.bytes_);
  std::swap(offset_, taken.offset_);
  std::swap(stream_, taken.stream_);
  std::swap(slot_, taken.slot_);
  return *this;  // what was here before is dropped now, with `taken`
}

Chunk::~Chunk() {
  if (connection_ && !connection_->is_foreign()) connection_->give_back(stream_, slot_);
}

// ---- Stream
// ----------------------------------------------------------------------------------------------------------

Stream::Stream(std::unique_ptr<internal::StreamReader> reader) : reader_(std::move(reader)) {}
Stream::Stream(Stream&& other) noexcept = default;
Stream& Stream::operator=(Stream&& other) noexcept = default;
Stream::~Stream() = default;

Stream::NextResult Stream::next() {
  return reader_->next(internal::kForever);
}
Stream::NextResult Stream::next(Deadline deadline) {
  return reader_->next(to_ns(deadline));
}
Stream::NextResult Stream::try_next() {
  return reader_->next(internal::kNow);
}
Result<RecordingInfo> Stream::info(Deadline deadline) {
  return reader_->info(to_ns(deadline));
}
void Stream::cancel() {
  reader_->stop(Code::kCancelled);
}
void Stream::finish() {
  reader_->finish();
}
void Stream::close() {
  reader_->stop(Code::kOk);
}

// ---- Client
// ----------------------------------------------------------------------------------------------------------

Result<Client> Client::connect(const std::string& socket_path, ConnectOptions options) {
  auto session = internal::Session::connect(socket_path, options);
  if (!session) return tl::unexpected(session.error());
  return Client(std::move(*session));
}

Client::Client(std::shared_ptr<internal::Session> session) : session_(std::move(session)) {}
Client::Client(Client&& other) noexcept = default;
Client& Client::operator=(Client&& other) noexcept {
  Client taken(std::move(other));
  std::swap(session_, taken.session_);
  return *this;  // the connection before ends now, with `taken`
}
Client::~Client() = default;

namespace {

using internal::StreamReader;

Result<std::unique_ptr<StreamReader>> open_reader(const std::shared_ptr<internal::Session>& session,
                                                  const OpenRequest& request, bool stat_only) {
  constexpr auto kMaxOffset = static_cast<std::uint64_t>(INT64_MAX);
  if (session->is_foreign())
    return fail(Code::kFailedPrecondition, "a connection cannot be used in a child of its process");
  if (request.follow.count() > 0 && request.cache == CachePolicy::kDirect)
    return fail(Code::kInvalidArgument,
                "recording " + to_string(request.recording) +
                    " cannot be followed past the page cache: use cache policy normal or drop");
  if (request.begin >= request.end) return std::make_unique<StreamReader>(session, request, std::nullopt);
  if (request.begin > kMaxOffset || (request.end > kMaxOffset && request.end != kToEnd))
    return std::make_unique<StreamReader>(
        session, request,
        Error{.code = Code::kOutOfRange,
              .message = "range " + std::to_string(request.begin) + "-" + std::to_string(request.end) +
                         " of recording " + to_string(request.recording) +
                         " lies beyond the largest file offset"});
  // Before the place: with no memory for a reader nobody would give it back.
  auto reader = std::make_unique<StreamReader>(session, request, std::nullopt);
  auto place = session->claim_place();
  if (!place) return tl::unexpected(place.error());
  reader->begin(std::move(*place), stat_only);
  return reader;
}

}  // namespace

Result<Stream> Client::open(const OpenRequest& request) {
  auto reader = open_reader(session_, request, false);
  if (!reader) return tl::unexpected(reader.error());
  return Stream(std::move(*reader));
}

Result<RecordingInfo> Client::stat(RecordingId recording, Deadline deadline) {
  auto reader = open_reader(session_, {.recording = recording}, true);
  if (!reader) return tl::unexpected(reader.error());
  return (*reader)->info(to_ns(deadline));
}

int Client::native_handle() const {
  return session_->native_handle();
}
Result<void> Client::dispatch() {
  return session_->dispatch();
}

DiskStatus Client::disk_status() const {
  const auto oldest = session_->stuck_operation();
  if (!oldest) return {};
  const std::uint64_t now_ns = shm::now_ns();
  return {.stuck = true,
          .stuck_for = std::chrono::nanoseconds(shm::stuck_for_ns(*oldest, now_ns)),
          .silent_for = std::chrono::nanoseconds(shm::silent_for_ns(*oldest, now_ns)),
          .answers_others = shm::answers_others(*oldest, now_ns),
          .recording = RecordingId::from_composite(oldest->recording),
          .offset = oldest->offset,
          .opening = oldest->operation == shm::DiskOperation::kOpen};
}

}  // namespace nvr
