#include "daemon/streams_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "nvr/recording.h"

namespace nvr::daemon {
namespace {

using nlohmann::ordered_json;
using Snapshot = StreamFacts::Snapshot;

const char* name_of(StreamState state) {
  switch (state) {
    case StreamState::kIdle:
      break;
    case StreamState::kQueued:
      return "queued";
    case StreamState::kOpening:
      return "opening";
    case StreamState::kReading:
      return "reading";
    case StreamState::kEnding:
      return "ending";
  }
  return "idle";
}

ordered_json name_of(StreamWait wait) {
  switch (wait) {
    case StreamWait::kNothing:
      break;
    case StreamWait::kQueue:
      return "queue";
    case StreamWait::kDisk:
      return "disk";
    case StreamWait::kReader:
      return "reader";
  }
  return nullptr;
}

const char* name_of(Priority priority) {
  switch (priority) {
    case Priority::kLive:
      return "live";
    case Priority::kPlayback:
      return "playback";
    case Priority::kExport:
      return "export";
    case Priority::kScrub:
      return "scrub";
  }
  return "?";
}

const char* name_of(CachePolicy cache) {
  switch (cache) {
    case CachePolicy::kNormal:
      return "normal";
    case CachePolicy::kDrop:
      return "drop";
    case CachePolicy::kDirect:
      return "direct";
  }
  return "?";
}

double seconds_since(std::uint64_t then_ns, std::uint64_t now_ns) {
  return then_ns < now_ns ? static_cast<double>(now_ns - then_ns) / 1e9 : 0;
}

ordered_json to_json(const Connection& connection, std::uint32_t stream, const Snapshot& facts,
                     std::uint64_t now_ns) {
  const bool knows_end = facts.end != StreamFacts::kToEnd;
  const std::uint64_t delivered = facts.position > facts.begin ? facts.position - facts.begin : 0;
  return {{"connection", connection.id()},
          {"pid", connection.peer().pid},
          {"uid", connection.peer().uid},
          {"stream", stream},
          {"generation", facts.generation},
          {"recording", to_string(RecordingId::from_composite(facts.recording))},
          {"begin", facts.begin},
          {"end", knows_end ? ordered_json(facts.end) : ordered_json()},
          {"position", facts.position},
          {"bytes", delivered},
          {"open_s", seconds_since(facts.opened_ns, now_ns)},
          {"priority", name_of(facts.priority)},
          {"cache", name_of(facts.cache)},
          {"state", name_of(facts.state)},
          {"waits_for", name_of(facts.wait)},
          {"waits_s", seconds_since(facts.since_ns, now_ns)}};
}

}  // namespace

std::string streams_json(const std::vector<const Connection*>& connections, std::uint64_t now_ns) {
  ordered_json streams = ordered_json::array();
  std::uint64_t left_out = 0;
  for (const Connection* const connection : connections) {
    if (connection->open_streams() == 0) continue;
    for (std::uint32_t i = 0; i < connection->geometry().streams; ++i) {
      const Snapshot facts = connection->facts(i).snapshot();
      if (facts.state == StreamState::kIdle) continue;
      if (streams.size() < kMaxStreamsListed)
        streams.push_back(to_json(*connection, i, facts, now_ns));
      else
        ++left_out;
    }
  }
  const ordered_json text = {{"streams", streams}, {"left_out", left_out}};
  return text.dump();
}

}  // namespace nvr::daemon
