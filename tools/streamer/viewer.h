// One connection of a viewer: reads a request, sends its response, reads the next. At any time it waits for
// one thing - a request, a disk, or the socket to take bytes - and has a deadline for it.
//
// Event-loop thread. Whatever it waits for, nobody else does.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/streamer/body.h"
#include "tools/streamer/fetch.h"
#include "tools/streamer/service.h"
#include "tools/streamer/target.h"

namespace nvr::streamer {

namespace http = boost::beast::http;

class Viewer final : public DiskListener, public std::enable_shared_from_this<Viewer> {
 public:
  using OnEnd = std::function<void(const std::shared_ptr<Viewer>&)>;

  // `is_surplus`: the streamer has as many connections as it may have. It is told so, whatever it asks.
  Viewer(boost::asio::ip::tcp::socket socket, Service& service, bool is_surplus, OnEnd on_end);

  void start() { read_request(); }
  void on_news() override;
  // Several times a second: deadlines, and what no disk tells of.
  void on_tick(Deadline now);
  // Ends it now if it waits for a request, and after its response otherwise.
  void drain();
  // Closes the connection and lets go of everything. Ending twice is ending once.
  void end();

 private:
  using Request = http::request<http::empty_body>;
  using Response = http::response<http::empty_body>;
  enum class Waits { kForRequest, kForFirstChunk, kForChunk, kForSocket, kForEnd, kForNothing };

  // Requests.
  void read_request();
  void on_read(const boost::system::error_code& error, std::size_t length);
  void parse();
  void handle(const Request& request);
  void handle_recording(const Request& request, const Target& target);

  // Responses.
  [[nodiscard]] Response response(unsigned status) const;
  void send_text(Response response, const std::string& type, const std::string& text);
  void refuse(unsigned status, const std::string& text);
  void refuse(const Refusal& refusal);
  void poll_fetch();
  void send_recording(Found found);
  void take_back(const Refusal& refusal);
  void count(unsigned status);

  // Bytes.
  void go_on();
  void write();
  void on_written(const boost::system::error_code& error, std::size_t length);
  void finish();
  void read_to_the_end();

  void wait(Waits what, std::chrono::nanoseconds bound);
  void cut(Cut why, const std::string& text);
  [[nodiscard]] bool has_gone();

  boost::asio::ip::tcp::socket socket_;
  Service& service_;
  const bool is_surplus_;
  OnEnd on_end_;
  boost::beast::flat_buffer input_;
  std::optional<http::request_parser<http::empty_body>> parser_;
  std::size_t header_bytes_ = 0;  // that the parser has taken

  Waits waits_ = Waits::kForNothing;
  Deadline deadline_ = Deadline::max();
  bool has_ended_ = false;

  // Of the request that is being answered.
  unsigned version_ = 11;
  bool is_head_ = false;
  bool keeps_alive_ = false;
  RecordingId recording_;
  std::string disk_name_;  // for the counters; empty: no disk's
  std::optional<Fetch> fetch_;
  std::optional<Body> body_;
  std::string head_;  // and, of a page, its text
  std::size_t head_written_ = 0;
  unsigned promised_ = 0;  // the status of a recording's response that has not begun; 0: there is none
  std::vector<boost::asio::const_buffer> buffers_;
};

}  // namespace nvr::streamer
