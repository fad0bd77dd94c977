/* A recording to standard output, in C. Usage: nvr-example-reader-c SOCKET STREAM RECORDING */
#include <stdio.h>
#include <stdlib.h>

#include "nvr/nvr_client.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: nvr-example-reader-c SOCKET STREAM RECORDING\n");
    return 2;
  }
  const uint64_t recording =
      nvr_recording((uint32_t)strtoul(argv[2], NULL, 10), (uint32_t)strtoul(argv[3], NULL, 10));
  nvr_error* error = NULL;
  nvr_client* client = nvr_connect(argv[1], NULL, &error);
  nvr_stream* stream = NULL;
  if (client) {
    const nvr_request request = {.size = sizeof request, .recording = recording, .end = NVR_TO_END};
    stream = nvr_open(client, &request, &error);
  }
  nvr_chunk* chunk = NULL;
  while (stream && nvr_next(stream, NVR_FOREVER, &chunk, &error) == NVR_CHUNK) {
    fwrite(nvr_chunk_data(chunk), 1, nvr_chunk_size(chunk), stdout);
    nvr_chunk_release(chunk);
  }
  const int failed = error != NULL || fflush(stdout) != 0;
  if (error) fprintf(stderr, "%s\n", nvr_error_message(error));
  nvr_error_free(error);
  nvr_stream_free(stream);
  nvr_client_free(client);
  return failed;
}
