// Many recordings at a time in one thread, under epoll. Usage: nvr-example-epoll SOCKET {ID FILE}...
#include <sys/epoll.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <vector>

#include "nvr/client.h"

namespace {

struct Copy {
  nvr::Stream stream;
  std::ofstream file;
  bool has_ended = false;
  bool has_failed = false;
};

// Takes what has arrived.
void advance(Copy& copy) {
  while (!copy.has_ended) {
    auto chunk = copy.stream.try_next();
    if (!chunk) {
      copy.has_ended = true;
    } else if (*chunk) {
      const auto bytes = (*chunk)->bytes();
      copy.file.write(reinterpret_cast<const char*>(bytes.data()),
                      static_cast<std::streamsize>(bytes.size()));
    } else if (chunk->error().code == nvr::Code::kDeadlineExceeded) {
      return;  // nothing more yet
    } else {
      std::cerr << chunk->error().message << '\n';
      copy.has_ended = copy.has_failed = true;
    }
  }
}

int report(const nvr::Error& error) {
  std::cerr << error.message << '\n';
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc % 2 != 0) return report({.message = "usage: nvr-example-epoll SOCKET {ID FILE}..."});
  auto client = nvr::Client::connect(argv[1]);
  if (!client) return report(client.error());
  std::vector<Copy> copies;
  for (int i = 2; i < argc; i += 2) {
    const auto id = nvr::RecordingId::parse(argv[i]);
    if (!id) return report(id.error());
    auto stream = client->open({.recording = *id});
    if (!stream) return report(stream.error());
    copies.push_back({.stream = std::move(*stream), .file = std::ofstream(argv[i + 1], std::ios::binary)});
  }

  // One descriptor, however many streams: readable when there may be news on any of them.
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {.events = EPOLLIN, .data = {}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, client->native_handle(), &event);
  bool has_failed = false;
  for (std::size_t left = copies.size(); left > 0;) {
    // Takes the news off the descriptor and asks for the next, and then looks at all streams. What goes wrong
    // the streams will say.
    static_cast<void>(client->dispatch());
    left = 0;
    for (Copy& copy : copies) {
      advance(copy);
      left += copy.has_ended ? 0 : 1;
      has_failed |= copy.has_failed;
    }
    if (left > 0) epoll_wait(epoll, &event, 1, -1);
  }
  close(epoll);
  for (Copy& copy : copies) has_failed |= !copy.file.flush();
  return has_failed ? 1 : 0;
}
