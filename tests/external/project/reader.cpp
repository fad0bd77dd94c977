// The README's ten-line reader: SOCKET STREAM/RECORDING BEGIN END, bytes to stdout.
#include <nvr/client.h>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  auto client = nvr::Client::connect(argv[1], {.streams = 1, .slots_per_stream = 8});
  const auto recording = nvr::RecordingId::parse(argv[2]);
  if (!client || !recording) return 3;
  auto stream =
      client->open({.recording = *recording, .begin = std::stoull(argv[3]), .end = std::stoull(argv[4])});
  if (!stream) return 4;
  for (auto& chunk : *stream) {
    if (!chunk) return std::fprintf(stderr, "%s\n", chunk.error().message.c_str()), 5;
    std::fwrite(chunk->bytes().data(), 1, chunk->bytes().size(), stdout);
  }
  return 0;
}
