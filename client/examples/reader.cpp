// A recording to standard output: the whole of a client. Usage: nvr-example-reader SOCKET ID
#include <cstdio>
#include <iostream>

#include "nvr/client.h"

static int report(const nvr::Error& error) {
  std::cerr << error.message << '\n';
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 3) return report({.message = "usage: nvr-example-reader SOCKET ID"});
  const auto id = nvr::RecordingId::parse(argv[2]);
  if (!id) return report(id.error());
  auto client = nvr::Client::connect(argv[1]);
  if (!client) return report(client.error());
  auto stream = client->open({.recording = *id});
  if (!stream) return report(stream.error());
  for (auto& chunk : *stream) {
    if (!chunk) return report(chunk.error());
    fwrite(chunk->bytes().data(), 1, chunk->bytes().size(), stdout);
  }
  return fflush(stdout) == 0 ? 0 : 1;
}
