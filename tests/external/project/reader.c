/* The same in C11, and every function of the C interface once. */
#include <assert.h>
#include <nvr/nvr_client.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(nvr_error* error) {
  fprintf(stderr, "%s: %s\n", nvr_code_name(nvr_error_code(error)), nvr_error_message(error));
  nvr_error_free(error);
  return 1;
}

/* By an event loop: nvr_next with a timeout of 0, and poll() on the client's descriptor between. */
static int copy(nvr_client* client, nvr_stream* stream, nvr_error** error) {
  if (nvr_dispatch(client, error) != 0) return -1;
  for (;;) {
    nvr_chunk* chunk;
    switch (nvr_next(stream, 0, &chunk, error)) {
      case NVR_CHUNK:
        fwrite(nvr_chunk_data(chunk), 1, nvr_chunk_size(chunk), stdout);
        nvr_chunk_release(chunk);
        continue;
      case NVR_END:
        return 0;
      case NVR_FAILED:
        break;
    }
    if (nvr_error_code(*error) != NVR_DEADLINE_EXCEEDED) return -1;
    nvr_error_free(*error);
    *error = NULL;
    struct pollfd entry = {.fd = nvr_native_handle(client), .events = POLLIN};
    poll(&entry, 1, -1);
    if (nvr_dispatch(client, error) != 0) return -1;
  }
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  assert(nvr_abi_version() == NVR_ABI_VERSION);
  const uint64_t recording = nvr_recording((uint32_t)atoi(argv[2]), (uint32_t)atoi(argv[3]));
  const uint64_t begin = strtoull(argv[4], NULL, 10), end = strtoull(argv[5], NULL, 10);
  nvr_error* error = NULL;
  nvr_options options = {.size = sizeof options, .streams = 2, .slots_per_stream = 4};
  nvr_client* client = nvr_connect(argv[1], &options, &error);
  if (client == NULL) return fail(error);

  nvr_info info;
  if (nvr_stat(client, recording, 10000, &info, &error) != 0) return fail(error);
  if (info.size < end || info.inode == 0 || info.mtime_ns == 0) return 10;
  if (nvr_stat(client, nvr_recording(99, 99), 10000, &info, &error) == 0) return 11;
  if (nvr_error_code(error) != NVR_NOT_FOUND || strstr(nvr_error_message(error), "99/99") == NULL) return 12;
  if (nvr_error_errno(error) == 0 || nvr_error_offset(error) != UINT64_MAX) return 13;
  nvr_error_free(error);
  error = NULL;

  nvr_request request = {.size = sizeof(nvr_request),
                         .recording = recording,
                         .begin = begin,
                         .end = end,
                         .priority = NVR_EXPORT};
  nvr_stream* stream = nvr_open(client, &request, &error);
  if (stream == NULL) return fail(error);
  if (nvr_stream_info(stream, 10000, &info, &error) != 0) return fail(error);
  if (copy(client, stream, &error) != 0) return fail(error);
  nvr_stream_free(stream);

  /* A chunk outlives its stream and its client; a cancelled stream says so once. */
  stream = nvr_open(client, &request, &error);
  nvr_chunk* kept;
  if (nvr_next(stream, NVR_FOREVER, &kept, &error) != NVR_CHUNK || nvr_chunk_offset(kept) != begin) return 14;
  nvr_cancel(stream);
  nvr_chunk* none;
  if (nvr_next(stream, 10000, &none, &error) != NVR_FAILED || nvr_error_code(error) != NVR_CANCELLED)
    return 15;
  nvr_error_free(error);
  error = NULL;
  if (nvr_next(stream, 10000, &none, &error) != NVR_END || none != NULL) return 16;
  nvr_disk_status disk;
  nvr_get_disk_status(client, &disk);
  nvr_close(stream);
  nvr_stream_free(stream);
  nvr_client_free(client);
  const int same = nvr_chunk_size(kept) > 0 && nvr_chunk_data(kept) != NULL;
  nvr_chunk_release(kept);
  nvr_error_free(NULL);
  return same ? 0 : 17;
}
