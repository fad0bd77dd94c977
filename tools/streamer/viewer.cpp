#include "tools/streamer/viewer.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <ctime>
#include <sstream>

#include "tools/streamer/pages.h"

namespace nvr::streamer {
namespace {

using boost::system::error_code;
using tcp = boost::asio::ip::tcp;

constexpr std::uint32_t kMostHeaderBytes = 8192;
constexpr std::size_t kMostInputBytes = std::size_t{2} * kMostHeaderBytes;
constexpr std::size_t kReadBytes = 4096;
constexpr auto kLinger = std::chrono::seconds(2);
constexpr const char* kRetryAfterSeconds = "2";

// A sequence of buffers that is not copied.
struct BufferView {
  const std::vector<boost::asio::const_buffer>* buffers;
  [[nodiscard]] auto begin() const { return buffers->begin(); }
  [[nodiscard]] auto end() const { return buffers->end(); }
};

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  char text[64];
  const auto length = std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text, length};
}

std::string to_text(const http::response<http::empty_body>& response) {
  std::ostringstream text;
  text << response.base();
  return std::move(text).str();
}

bool is_line_end(char c) {
  return c == '\r' || c == '\n';
}

std::string text_of(boost::beast::string_view view) {
  return {view.data(), view.size()};
}

}  // namespace

Viewer::Viewer(tcp::socket socket, Service& service, bool is_surplus, OnEnd on_end)
    : socket_(std::move(socket)),
      service_(service),
      is_surplus_(is_surplus),
      on_end_(std::move(on_end)),
      input_(kMostInputBytes) {
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
}

// ---- Requests
// --------------------------------------------------------------------------------------------------------

void Viewer::read_request() {
  parser_.emplace();
  header_bytes_ = 0;
  parser_->header_limit(kMostHeaderBytes);
  wait(Waits::kForRequest,
       input_.size() > 0 ? service_.settings.header_timeout : service_.settings.idle_timeout);
  if (input_.size() > 0) return parse();  // it has come already, or some of it
  socket_.async_read_some(input_.prepare(kReadBytes),
                          [self = shared_from_this()](const error_code& error, std::size_t length) {
                            self->on_read(error, length);
                          });
}

void Viewer::on_read(const error_code& error, std::size_t length) {
  if (has_ended_) return;
  if (error) return end();
  // The bound is for all of it, however it trickles in.
  if (!parser_->got_some() && header_bytes_ == 0 && input_.size() == 0)
    wait(Waits::kForRequest, service_.settings.header_timeout);
  input_.commit(length);
  parse();
}

void Viewer::parse() {
  if (!parser_->got_some()) {  // an empty line before the request is allowed (RFC 9112, section 2.2)
    while (input_.size() > 0 && is_line_end(*static_cast<const char*>(input_.cdata().data()))) {
      input_.consume(1);
      ++header_bytes_;
    }
  }
  error_code error;
  const auto used = parser_->put(input_.data(), error);
  input_.consume(used);
  header_bytes_ += used;
  // The parser's own bound is for what it is given at a time.
  const bool is_partial = error == http::error::need_more;
  if (header_bytes_ + (is_partial ? input_.size() : 0) > kMostHeaderBytes) error = http::error::header_limit;
  if (error == http::error::need_more) {
    socket_.async_read_some(input_.prepare(kReadBytes),
                            [self = shared_from_this()](const error_code& failed, std::size_t length) {
                              self->on_read(failed, length);
                            });
    return;
  }
  wait(Waits::kForNothing, std::chrono::nanoseconds::max());
  keeps_alive_ = false;
  version_ = 11;
  is_head_ = false;
  disk_name_.clear();
  if (error == http::error::header_limit)
    return refuse(431, fmt::format("a request's header may have {} bytes", kMostHeaderBytes));
  if (error) return refuse(400, "this is no HTTP request: " + error.message());
  const Request& request = parser_->get();
  version_ = request.version();
  handle(request);
}

void Viewer::handle(const Request& request) {
  is_head_ = request.method() == http::verb::head;
  const bool has_body = !parser_->is_done();  // nobody reads it, so no request can follow
  keeps_alive_ = request.keep_alive() && !has_body && !service_.is_draining && !is_surplus_;
  if (is_surplus_)
    return refuse(503, fmt::format("{} connections are open already (--max-connections)",
                                   service_.settings.max_connections));
  if (!is_head_ && request.method() != http::verb::get) return refuse(405, "GET and HEAD are what there is");
  if (has_body) return refuse(400, "a request with a body is not understood");
  if (version_ == 11 && request.count(http::field::host) != 1)
    return refuse(400, "one Host header is needed");
  const auto target = parse_target(text_of(request.target()));
  if (!target) return refuse(400, target.error().message);
  const Disk* const disk = target->disk.empty() ? nullptr : service_.find_disk(target->disk);
  if (!target->disk.empty() && disk == nullptr)
    return refuse(404, fmt::format("there is no disk {} here", target->disk));
  if (target->page == Target::Page::kRecording) return handle_recording(request, *target);
  const bool is_health = target->page == Target::Page::kHealth;
  const Page page = is_health ? health_page(service_, disk) : metrics_page(service_);
  send_text(response(page.status), page.type, page.text);
}

void Viewer::handle_recording(const Request& request, const Target& target) {
  FetchRequest fetch{.recording = target.recording,
                     .disks = {},
                     .conditions = {.range = parse_range(text_of(request[http::field::range])),
                                    .if_range = text_of(request[http::field::if_range]),
                                    .if_none_match = text_of(request[http::field::if_none_match]),
                                    .if_match = text_of(request[http::field::if_match])},
                     .wants_body = !is_head_};
  for (const auto& disk : service_.disks) {
    if (target.disk.empty() || target.disk == disk->name()) fetch.disks.push_back(disk.get());
  }
  recording_ = target.recording;
  disk_name_ = target.disk;
  fetch_.emplace(std::move(fetch),
                 FetchSettings{.timeout = service_.settings.open_timeout,
                               .etags_for_replicas = service_.settings.etags_for_replicas},
                 *this);
  wait(Waits::kForFirstChunk, std::chrono::nanoseconds::max());  // the fetch has a bound of its own
  poll_fetch();
}

// ---- Responses
// -------------------------------------------------------------------------------------------------------

Viewer::Response Viewer::response(unsigned status) const {
  Response response;
  response.version(version_);
  response.result(status);
  response.keep_alive(keeps_alive_);
  response.set(http::field::server, "nvr-streamer");
  response.set(http::field::date, http_date());
  if (status == 503) response.set(http::field::retry_after, kRetryAfterSeconds);
  if (status == 405) response.set(http::field::allow, "GET, HEAD");
  return response;
}

void Viewer::send_text(Response response, const std::string& type, const std::string& text) {
  count(response.result_int());
  response.set(http::field::content_type, type);
  response.content_length(text.size());
  head_ = to_text(response);
  if (!is_head_) head_ += text;
  head_written_ = 0;
  write();
}

void Viewer::refuse(unsigned status, const std::string& text) {
  send_text(response(status), "text/plain; charset=utf-8", text + "\n");
}

void Viewer::poll_fetch() {
  auto outcome = fetch_->poll();
  if (!outcome) return;
  for (Disk* const disk : fetch_->disks()) disk->forget(*this);
  wait(Waits::kForNothing, std::chrono::nanoseconds::max());
  fetch_.reset();
  if (auto* const found = std::get_if<Found>(&*outcome)) return send_recording(std::move(*found));
  refuse(std::get<Refusal>(*outcome));
}

void Viewer::refuse(const Refusal& refusal) {
  if (refusal.status >= 500)
    service_.log.line(fmt::format("{} for {}: {}{}{}", refusal.status, to_string(recording_), refusal.text,
                                  refusal.detail.empty() ? "" : ": ", refusal.detail));
  refuse(refusal.status, refusal.text);
}

void Viewer::send_recording(Found found) {
  using Kind = Decision::Kind;
  const auto status_of = [](Kind kind) -> unsigned {
    switch (kind) {
      case Kind::kWhole:
        return 200;
      case Kind::kPart:
        return 206;
      case Kind::kNotModified:
        return 304;
      case Kind::kNotSatisfiable:
        return 416;
      case Kind::kOtherVersion:
        return 412;
    }
    return 500;
  };
  const std::uint64_t size = found.known.info.size;
  const Slice slice = found.decision.slice;
  disk_name_ = found.disk->name();
  Response response = this->response(status_of(found.decision.kind));
  // Not in a 404: after one with it nginx keeps nothing of the next host's answer either.
  if (!has_settled(found.known.info, std::chrono::system_clock::now(), service_.settings.settle_time))
    response.set(http::field::cache_control, "no-store");
  response.set(http::field::etag, found.etag);
  response.set(http::field::accept_ranges, "bytes");
  if (found.decision.kind == Kind::kNotSatisfiable) {
    response.set(http::field::content_range, fmt::format("bytes */{}", size));
    return send_text(std::move(response), "text/plain; charset=utf-8",
                     fmt::format("recording {} has {} bytes\n", to_string(recording_), size));
  }
  if (found.decision.kind == Kind::kOtherVersion)
    return send_text(std::move(response), "text/plain; charset=utf-8",
                     fmt::format("recording {} is another than was asked for\n", to_string(recording_)));
  if (found.decision.kind == Kind::kPart)
    response.set(http::field::content_range, fmt::format("bytes {}-{}/{}", slice.begin, slice.end - 1, size));
  if (found.decision.kind != Kind::kNotModified) {
    response.set(http::field::content_type, found.known.is_mp4 ? "video/mp4" : "application/octet-stream");
    response.set("X-Content-Type-Options", "nosniff");
    response.content_length(slice.end - slice.begin);
  }
  head_ = to_text(response);
  head_written_ = 0;
  promised_ = response.result_int();
  if (found.loan) body_.emplace(recording_, std::move(found), *this);
  go_on();
}

// Instead of a response of which nothing has been written.
void Viewer::take_back(const Refusal& refusal) {
  body_->disk().forget(*this);
  body_.reset();
  promised_ = 0;
  refuse(refusal);
}

void Viewer::count(unsigned status) {
  ++service_.counters.responses[{disk_name_, status}];
}

// ---- Bytes
// -----------------------------------------------------------------------------------------------------------

// The response's next step, whatever that is.
void Viewer::go_on() {
  const auto state = body_ ? body_->fill() : Body::State::kDone;
  const bool waits_for_all = body_ && body_->fits();
  if (body_ && body_->must_give_up_stream()) body_->give_up_stream();
  if (state == Body::State::kReady || (head_written_ < head_.size() && !waits_for_all)) return write();
  if (state == Body::State::kDone) return finish();
  if (state == Body::State::kFailed)
    return body_->fits() ? take_back(refusal_of(body_->disk(), body_->error()))
                         : cut(Cut::kDiskError, body_->error().message);
  if (waits_ != Waits::kForChunk) wait(Waits::kForChunk, service_.settings.stall_timeout);
  body_->listen();
}

void Viewer::write() {
  if (promised_ != 0) count(std::exchange(promised_, 0));
  buffers_.clear();
  if (head_written_ < head_.size())
    buffers_.emplace_back(head_.data() + head_written_, head_.size() - head_written_);
  if (body_) body_->append_to(buffers_);
  if (waits_ != Waits::kForSocket) wait(Waits::kForSocket, service_.settings.write_timeout);
  socket_.async_write_some(BufferView{&buffers_},
                           [self = shared_from_this()](const error_code& error, std::size_t length) {
                             self->on_written(error, length);
                           });
}

void Viewer::on_written(const error_code& error, std::size_t length) {
  if (has_ended_) return;
  if (error == boost::asio::error::operation_aborted) return go_on();  // see on_tick()
  if (error) return end();
  wait(Waits::kForNothing, std::chrono::nanoseconds::max());
  const std::size_t of_head = std::min(length, head_.size() - head_written_);
  head_written_ += of_head;
  if (body_) {
    body_->consume(length - of_head);
    service_.counters.body_bytes[disk_name_] += length - of_head;
  }
  go_on();
}

void Viewer::finish() {
  body_.reset();
  if (keeps_alive_ && !service_.is_draining) return read_request();
  // The last bytes would be lost if it were closed with something unread: so it waits for the viewer's end.
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  wait(Waits::kForEnd, kLinger);
  read_to_the_end();
}

void Viewer::read_to_the_end() {
  input_.clear();
  socket_.async_read_some(input_.prepare(kReadBytes),
                          [self = shared_from_this()](const error_code& error, std::size_t) {
                            if (self->has_ended_) return;
                            if (error) return self->end();
                            self->read_to_the_end();
                          });
}

// ---- Waiting
// ---------------------------------------------------------------------------------------------------------

void Viewer::wait(Waits what, std::chrono::nanoseconds bound) {
  waits_ = what;
  deadline_ = bound == std::chrono::nanoseconds::max() ? Deadline::max() : Clock::now() + bound;
}

void Viewer::on_news() {
  if (has_ended_) return;
  const auto self = shared_from_this();  // may end
  if (waits_ == Waits::kForFirstChunk) return poll_fetch();
  if (waits_ == Waits::kForChunk) return go_on();
  if (waits_ == Waits::kForSocket && body_) static_cast<void>(body_->fill());
}

void Viewer::on_tick(Deadline now) {
  if (has_ended_) return;
  const auto self = shared_from_this();
  const bool waits_for_disk = waits_ == Waits::kForFirstChunk || waits_ == Waits::kForChunk;
  if (waits_for_disk) {
    if (has_gone()) return end();
    on_news();
  }
  if (has_ended_) return;
  if (waits_ == Waits::kForSocket && body_ && body_->must_give_up_stream()) {
    error_code ignored;
    socket_.cancel(ignored);  // the write that reads the stream's chunks; it goes on with copies
  }
  if (now < deadline_) return;
  switch (waits_) {
    case Waits::kForRequest:
      return cut(input_.size() > 0 || header_bytes_ > 0 ? Cut::kHeader : Cut::kIdle, "");
    case Waits::kForSocket:
      return cut(Cut::kWrite, "");
    case Waits::kForChunk: {
      const auto trouble = body_->disk().trouble();
      const std::string detail = trouble ? trouble->text : "nothing arrived in time";
      if (!body_->fits()) return cut(Cut::kStall, detail);
      return take_back(
          {.status = 503,
           .text = fmt::format("disk {}: {}", body_->disk().name(), text_for_viewer(trouble, detail)),
           .detail = detail});
    }
    case Waits::kForEnd:
      return end();
    case Waits::kForFirstChunk:
    case Waits::kForNothing:
      return;
  }
}

// Nothing is read from the socket while a disk is waited for, so nothing else tells.
bool Viewer::has_gone() {
  char byte = 0;
  const ssize_t length = recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR);
}

void Viewer::cut(Cut why, const std::string& text) {
  ++service_.counters.cut.at(static_cast<std::size_t>(why));
  // The viewer sees fewer bytes than it was promised, and asks for the rest again.
  if (!text.empty())
    service_.log.line(
        fmt::format("disk {}: recording {} was cut short: {}", disk_name_, to_string(recording_), text));
  end();
}

void Viewer::drain() {
  if (waits_ == Waits::kForRequest && input_.size() == 0) end();
}

void Viewer::end() {
  if (has_ended_) return;
  const auto self = shared_from_this();
  has_ended_ = true;
  for (const auto& disk : service_.disks) disk->forget(*this);
  fetch_.reset();
  error_code ignored;
  socket_.close(ignored);  // before the chunks go that it may be writing
  body_.reset();
  on_end_(self);
}

}  // namespace nvr::streamer
