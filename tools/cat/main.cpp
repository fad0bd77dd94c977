// nvr-cat: a recording from a running nvr-readerd to standard output. One thread; it holds one chunk at a
// time, so that a slow reader of the output stops only this stream, by its window.
#include <errno.h>
#include <fmt/format.h>

#include <algorithm>

#include "nvr/client.h"
#include "tools/cat/options.h"
#include "tools/cat/output.h"
#include "tools/cat/progress.h"
#include "tools/common/exit_code.h"

namespace nvr::tools {
namespace {

constexpr ConnectOptions kConnection = {.streams = 2, .slots_per_stream = 32};
constexpr auto kProgressTick = std::chrono::milliseconds(500);

Result<Client> connect(const CatOptions& options) {
  ConnectOptions connection = kConnection;
  connection.resume = options.resume;
  if (options.timeout) {
    const auto timeout = std::chrono::ceil<std::chrono::milliseconds>(*options.timeout);
    connection.timeout = std::min(connection.timeout, timeout);
  }
  auto client = Client::connect(options.socket, connection);
  // The daemon answers a handshake whatever the disk does: one that does not is stopped or dead, not slow.
  if (!client && client.error().code == Code::kDeadlineExceeded) client.error().code = Code::kUnavailable;
  return client;
}

// The next chunk within the timeout. Wakes in between only to tell somebody at a terminal what it waits for.
Stream::NextResult next_chunk(Stream& stream, const Client& client, const CatOptions& options,
                              Progress& progress) {
  const Deadline due = options.timeout ? Clock::now() + *options.timeout : Deadline::max();
  for (;;) {
    auto next = stream.next(progress.is_visible() ? std::min(due, Clock::now() + kProgressTick) : due);
    const bool late = next && !*next && next->error().code == Code::kDeadlineExceeded;
    if (!late || Clock::now() >= due) return next;
    progress.show_wait(client.disk_status());
  }
}

// The first chunk has arrived, so the file has been opened and its size is there.
void show_total(Stream& stream, const OpenRequest& request, Progress& progress) {
  if (!progress.is_visible()) return;
  if (request.end == kToEnd && request.follow.count() > 0) return;  // nobody knows it
  if (request.end != kToEnd) {
    progress.set_total(request.end - request.begin);
  } else if (const auto info = stream.info(Clock::now()); info) {
    progress.set_total(info->size - std::min(info->size, request.begin));
  }
}

Result<void> copy(const CatOptions& options, Progress& progress) {
  auto client = connect(options);
  if (!client) return tl::unexpected(client.error());
  auto stream = client->open(options.request);
  if (!stream) return tl::unexpected(stream.error());

  StandardOutput output;
  bool first = true;
  while (auto chunk = next_chunk(*stream, *client, options, progress)) {
    if (!*chunk) return tl::unexpected(chunk->error());
    if (first) show_total(*stream, options.request, progress);
    first = false;
    if (auto written = output.write((*chunk)->bytes()); !written) return written;
    progress.advance((*chunk)->bytes().size());
  }
  return output.close();
}

int run(int argc, char** argv) {
  StandardOutput::prepare();
  const auto options = parse_cat_options(argc, argv);
  if (!options) return options.error();
  Progress progress(options->request.recording);
  const auto done = copy(*options, progress);
  if (done) return kExitOk;
  progress.clear();
  // A reader of the output that has had enough, as head(1) has, is nothing to complain of.
  const bool is_enough = done.error().code == Code::kAborted && done.error().sys_errno == EPIPE;
  if (!is_enough) fmt::print(stderr, "nvr-cat: {}\n", done.error().message);
  return exit_code_of(done.error().code);
}

}  // namespace
}  // namespace nvr::tools

int main(int argc, char** argv) {
  return nvr::tools::run(argc, argv);
}
