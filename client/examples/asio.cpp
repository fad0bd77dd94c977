// Many recordings at a time in one thread, a coroutine each, under Boost.Asio.
// Usage: nvr-example-asio SOCKET {ID FILE}...
#include "nvr/asio.h"

#include <boost/asio/io_context.hpp>
#include <fstream>
#include <iostream>

#ifdef BOOST_ASIO_HAS_CO_AWAIT
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

namespace {

bool has_failed = false;

void report(const nvr::Error& error) {
  std::cerr << error.message << '\n';
  has_failed = true;
}

void write(std::ofstream& file, const nvr::Chunk& chunk) {
  file.write(reinterpret_cast<const char*>(chunk.bytes().data()),
             static_cast<std::streamsize>(chunk.bytes().size()));
}

#ifdef BOOST_ASIO_HAS_CO_AWAIT
boost::asio::awaitable<void> copy(nvr::AsioStream stream, std::ofstream file) {
  while (auto chunk = co_await nvr::async_next(stream, boost::asio::use_awaitable)) {
    if (!*chunk) co_return report(chunk->error());
    write(file, **chunk);
  }
  if (!file.flush()) report({.message = "cannot write"});
}

void start(boost::asio::io_context& io, nvr::AsioStream stream, std::ofstream file) {
  co_spawn(io, copy(std::move(stream), std::move(file)), boost::asio::detached);
}
#else  // a compiler whose coroutines this Boost does not know: the same with a callback
struct Copy : std::enable_shared_from_this<Copy> {
  Copy(nvr::AsioStream from, std::ofstream to) : stream(std::move(from)), file(std::move(to)) {}
  void go_on() {
    nvr::async_next(stream, [self = shared_from_this()](nvr::Stream::NextResult chunk) {
      if (!chunk) {
        if (!self->file.flush()) report({.message = "cannot write"});
        return;
      }
      if (!*chunk) return report(chunk->error());
      write(self->file, **chunk);
      self->go_on();
    });
  }
  nvr::AsioStream stream;
  std::ofstream file;
};

void start(boost::asio::io_context&, nvr::AsioStream stream, std::ofstream file) {
  std::make_shared<Copy>(std::move(stream), std::move(file))->go_on();
}
#endif

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc % 2 != 0) {
    std::cerr << "usage: nvr-example-asio SOCKET {ID FILE}...\n";
    return 1;
  }
  auto connected = nvr::Client::connect(argv[1]);
  if (!connected) return report(connected.error()), 1;
  boost::asio::io_context io(1);
  nvr::AsioClient client(io.get_executor(), std::move(*connected));
  for (int i = 2; i < argc; i += 2) {
    const auto id = nvr::RecordingId::parse(argv[i]);
    if (!id) return report(id.error()), 1;
    auto stream = client.open({.recording = *id});
    if (!stream) return report(stream.error()), 1;
    start(io, std::move(*stream), std::ofstream(argv[i + 1], std::ios::binary));
  }
  io.run();  // until every copy has ended
  return has_failed ? 1 : 0;
}
