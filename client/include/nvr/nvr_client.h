/* The client library of nvr-readerd for C: the same abilities as nvr/client.h, behind opaque handles.
 *
 *   nvr_error *error = NULL;
 *   nvr_client *client = nvr_connect("/run/nvr-readerd/disk1.sock", NULL, &error);
 *   nvr_stream *stream = client ? nvr_open(client, &(nvr_request){.size = sizeof(nvr_request),
 *                                                                  .recording = nvr_recording(3, 1842086),
 *                                                                  .end = NVR_TO_END}, &error) : NULL;
 *   nvr_chunk *chunk;
 *   while (stream && nvr_next(stream, NVR_FOREVER, &chunk, &error) == NVR_CHUNK) {
 *     fwrite(nvr_chunk_data(chunk), 1, nvr_chunk_size(chunk), stdout);
 *     nvr_chunk_release(chunk);
 *   }
 *   if (error) fprintf(stderr, "%s\n", nvr_error_message(error));
 *   nvr_error_free(error), nvr_stream_free(stream), nvr_client_free(client);
 *
 * Threads: a client may be used from any thread, a stream from one thread at a time (nvr_cancel and nvr_close
 * from any), a chunk may be released anywhere. Nothing of it may be used in a child after fork().
 *
 * Lifetime: every handle is freed once, by its own function, in any order; free functions accept NULL.
 * Streams may outlive their client; chunks may outlive stream, client and daemon.
 *
 * Errors: functions that can fail take `nvr_error **error`: NULL, or the address of a pointer that is NULL.
 * On failure it receives an error, which the caller frees. No exception leaves these functions; out of memory
 * is NVR_RESOURCE_EXHAUSTED. Where it cost a stream bytes or an error, the next nvr_next says NVR_ABORTED,
 * and the stream has ended: it never looks complete.
 */
#ifndef NVR_CLIENT_H
#define NVR_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define NVR_API __attribute__((visibility("default")))
#else
#define NVR_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define NVR_ABI_VERSION 3
/* The NVR_ABI_VERSION of the library that is linked. */
NVR_API uint32_t nvr_abi_version(void);

typedef struct nvr_client nvr_client;
typedef struct nvr_stream nvr_stream;
typedef struct nvr_chunk nvr_chunk;
typedef struct nvr_error nvr_error;

/* gRPC's canonical codes, with gRPC's numbers. */
typedef enum nvr_code {
  NVR_OK = 0,
  NVR_CANCELLED = 1,
  NVR_UNKNOWN = 2,
  NVR_INVALID_ARGUMENT = 3,
  NVR_DEADLINE_EXCEEDED = 4,
  NVR_NOT_FOUND = 5,
  NVR_ALREADY_EXISTS = 6,
  NVR_PERMISSION_DENIED = 7,
  NVR_RESOURCE_EXHAUSTED = 8,
  NVR_FAILED_PRECONDITION = 9,
  NVR_ABORTED = 10,
  NVR_OUT_OF_RANGE = 11,
  NVR_UNIMPLEMENTED = 12,
  NVR_INTERNAL = 13,
  NVR_UNAVAILABLE = 14,
  NVR_DATA_LOSS = 15
} nvr_code;

/* ---- Errors ---- */

NVR_API nvr_code nvr_error_code(const nvr_error* error);
NVR_API int nvr_error_errno(const nvr_error* error);       /* 0 where no system call failed */
NVR_API uint64_t nvr_error_offset(const nvr_error* error); /* in the file, for DATA_LOSS; else UINT64_MAX */
NVR_API const char* nvr_error_message(const nvr_error* error); /* for a person; valid as long as the error */
NVR_API const char* nvr_code_name(nvr_code code);              /* "NotFound", ... */
NVR_API void nvr_error_free(nvr_error* error);

/* ---- Clients ---- */

/* Fill with zeroes: a zero stands for the default. `size` must be sizeof(nvr_options), so that the struct can
 * grow: nvr_options options = {.size = sizeof options, .streams = 4}; A field that is set and that this
 * library does not know is NVR_INVALID_ARGUMENT. */
typedef struct nvr_options {
  size_t size;
  uint32_t streams;          /* open at a time, 1..256; default 16 */
  uint32_t slots_per_stream; /* 64 KiB each; a power of two, 2..64; default 32 */
  uint32_t timeout_ms;       /* of the handshake; default 5000 */
  uint32_t reserved;         /* 0 */
  /* Default 0: when the daemon goes, every stream ends with NVR_UNAVAILABLE. More: the client connects again
   * and its streams go on from where they were; one for which no daemon comes within this time ends with
   * NVR_UNAVAILABLE (NVR_FOREVER: never), one whose file has changed by then with NVR_FAILED_PRECONDITION.
   * All of it: nvr::ConnectOptions::resume. */
  int64_t resume_ms;
} nvr_options;

/* `options` may be NULL. NULL on failure; codes as nvr::Client::connect. */
NVR_API nvr_client* nvr_connect(const char* socket_path, const nvr_options* options, nvr_error** error);
NVR_API void nvr_client_free(nvr_client* client);

/* For event loops: readable when there may be news on any stream, and on hang-up. Call nvr_dispatch() once
 * before the first wait and whenever it is readable, then nvr_next(stream, 0, ...) on every stream. Owned by
 * the client. */
NVR_API int nvr_native_handle(const nvr_client* client);
/* 0, or -1 with NVR_UNAVAILABLE when the daemon has gone. */
NVR_API int nvr_dispatch(nvr_client* client, nvr_error** error);

typedef struct nvr_disk_status {
  int stuck;             /* an operation has been on the disk for longer than 100 ms */
  int opening;           /* an open rather than a read */
  uint64_t stuck_for_ns; /* as the daemon counts it, ten times a second */
  uint64_t recording;    /* composite id */
  uint64_t offset;
} nvr_disk_status;
/* From shared memory: asks nobody and never blocks. */
NVR_API void nvr_get_disk_status(const nvr_client* client, nvr_disk_status* status);

/* ---- Streams ---- */

#define NVR_TO_END UINT64_MAX /* nvr_request.end */
#define NVR_FOREVER (-1)      /* timeout_ms */

typedef enum nvr_priority { NVR_LIVE = 0, NVR_PLAYBACK = 1, NVR_EXPORT = 2, NVR_SCRUB = 3 } nvr_priority;
typedef enum nvr_cache { NVR_CACHE_NORMAL = 0, NVR_CACHE_DROP = 1, NVR_CACHE_DIRECT = 2 } nvr_cache;

/* The composite id of a recording: (stream << 32) | recording. */
static inline uint64_t nvr_recording(uint32_t stream, uint32_t recording) {
  return ((uint64_t)stream << 32) | recording;
}

/* As nvr_options: `size` must be sizeof(nvr_request), and a zero stands for the default. */
typedef struct nvr_request {
  size_t size;
  uint64_t recording; /* composite id */
  uint64_t begin;     /* bytes */
  uint64_t end;       /* exclusive, or NVR_TO_END; begin >= end is a stream that has ended already */
  nvr_priority priority;
  nvr_cache cache;
  /* Default 0: the range lies in the file as it is when it is opened. More: the recording is still being
   * written; chunks come as it grows, until it has not grown for this long (NVR_FOREVER: never by itself),
   * until nvr_finish, or to `end`. All of it: nvr::OpenRequest::follow. */
  int64_t follow_ms;
} nvr_request;

/* Starts reading. Never blocks; what the disk finds comes with nvr_next. NULL on failure:
 * NVR_RESOURCE_EXHAUSTED (all streams are open), NVR_UNAVAILABLE, NVR_INVALID_ARGUMENT. */
NVR_API nvr_stream* nvr_open(nvr_client* client, const nvr_request* request, nvr_error** error);
/* Closes the stream; its chunks stay valid. */
NVR_API void nvr_stream_free(nvr_stream* stream);

typedef enum nvr_next_result {
  NVR_FAILED = -1, /* `*error` says why. After DEADLINE_EXCEEDED and RESOURCE_EXHAUSTED the stream goes on. */
  NVR_END = 0,     /* the range has been delivered, or an error was before */
  NVR_CHUNK = 1    /* `*chunk` is the caller's to release */
} nvr_next_result;

/* Waits `timeout_ms` at most: NVR_FOREVER, or 0 to not wait at all. `*chunk` is NULL unless NVR_CHUNK. */
NVR_API nvr_next_result nvr_next(nvr_stream* stream, int64_t timeout_ms, nvr_chunk** chunk,
                                 nvr_error** error);

/* Ends the stream, from any thread: nvr_next says NVR_CANCELLED once (cancel), or NVR_END (close). */
NVR_API void nvr_cancel(nvr_stream* stream);
NVR_API void nvr_close(nvr_stream* stream);
/* The recording that the stream follows is complete: nvr_next gives what is left of it, then NVR_END. Any
 * thread. */
NVR_API void nvr_finish(nvr_stream* stream);

typedef struct nvr_info {
  uint64_t device;
  uint64_t inode;
  uint64_t size;    /* bytes */
  int64_t mtime_ns; /* since the epoch */
} nvr_info;
/* Of the stream's file, as it was when it was opened; takes no chunk. 0, or -1. */
NVR_API int nvr_stream_info(nvr_stream* stream, int64_t timeout_ms, nvr_info* info, nvr_error** error);
/* Of any recording, now. 0, or -1. */
NVR_API int nvr_stat(nvr_client* client, uint64_t recording, int64_t timeout_ms, nvr_info* info,
                     nvr_error** error);

/* nvr_info, in a struct that can grow: set `struct_size` to sizeof(nvr_file) before the call. Which file it
 * is, device, inode and birth time tell together: the inode number of a file that is gone is given to
 * another. From NVR_ABI_VERSION 3 on. */
typedef struct nvr_file {
  size_t struct_size;
  uint64_t device;
  uint64_t inode;
  uint64_t size;    /* bytes */
  int64_t mtime_ns; /* since the epoch */
  int64_t birth_ns; /* likewise; 0: the file system does not tell, or the daemon is one before 1.3 */
} nvr_file;
NVR_API int nvr_stream_file(nvr_stream* stream, int64_t timeout_ms, nvr_file* file, nvr_error** error);
NVR_API int nvr_stat_file(nvr_client* client, uint64_t recording, int64_t timeout_ms, nvr_file* file,
                          nvr_error** error);

/* ---- Chunks ---- */

/* 1..65536 bytes, unchanging until the chunk is released. */
NVR_API const void* nvr_chunk_data(const nvr_chunk* chunk);
NVR_API size_t nvr_chunk_size(const nvr_chunk* chunk);
NVR_API uint64_t nvr_chunk_offset(const nvr_chunk* chunk); /* in the file */
/* Gives the slot back. A chunk that is kept costs its stream one slot of its window. */
NVR_API void nvr_chunk_release(nvr_chunk* chunk);

#ifdef __cplusplus
}
#endif

#endif
