#include "tools/streamer/pages.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

namespace nvr::streamer {
namespace {

constexpr auto kUnhealthyAfter = std::chrono::seconds(1);
constexpr std::array<const char*, kCuts> kCutNames = {"idle", "header", "write", "stall", "disk_error"};

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

const char* name_of(Trouble::Kind kind) {
  switch (kind) {
    case Trouble::Kind::kConnecting:
      return "connecting";
    case Trouble::Kind::kAway:
      return "away";
    case Trouble::Kind::kStuck:
      return "stuck";
    case Trouble::Kind::kOperationStuck:
      return "operation_stuck";
  }
  return "unknown";
}

nlohmann::json health_of(const Disk& disk, const std::optional<Trouble>& trouble) {
  if (!trouble) return {{"name", disk.name()}, {"state", "ok"}};
  return {{"name", disk.name()},
          {"state", name_of(trouble->kind)},
          {"for_s", seconds(trouble->lasts)},
          {"text", trouble->text}};
}

// One metric: its head, and a line a value.
class Metric {
 public:
  Metric(std::string& text, const char* name, const char* type, const char* help) : text_(text), name_(name) {
    fmt::format_to(std::back_inserter(text_), "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  template <class Value>
  void add(const std::string& labels, Value value) {
    const std::string braced = labels.empty() ? "" : "{" + labels + "}";
    fmt::format_to(std::back_inserter(text_), "{}{} {}\n", name_, braced, value);
  }

 private:
  std::string& text_;
  const char* name_;
};

// Disks' names have no character that would have to be escaped.
std::string label(const char* name, const std::string& value) {
  return fmt::format("{}=\"{}\"", name, value);
}

void add_disks(std::string& text, const Service& service) {
  Metric up(text, "nvr_streamer_disk_up", "gauge",
            "Whether the disk's daemon is there and the disk answers.");
  for (const auto& disk : service.disks) {
    const auto trouble = disk->trouble();
    up.add(label("disk", disk->name()), trouble && trouble->silence() >= kUnhealthyAfter ? 0 : 1);
  }
  Metric trouble_for(
      text, "nvr_streamer_disk_trouble_seconds", "gauge",
      "For how long the disk has answered nothing or its daemon has been away; 0 when all is well.");
  for (const auto& disk : service.disks) {
    const auto trouble = disk->trouble();
    trouble_for.add(label("disk", disk->name()), trouble ? seconds(trouble->silence()) : 0.0);
  }
  Metric in_use(text, "nvr_streamer_disk_streams_in_use", "gauge", "Streams of the disk that are in use.");
  for (const auto& disk : service.disks) in_use.add(label("disk", disk->name()), disk->lent_streams());
  Metric waiting(text, "nvr_streamer_disk_requests_waiting", "gauge",
                 "Requests that wait for a stream of the disk (--streams).");
  for (const auto& disk : service.disks) waiting.add(label("disk", disk->name()), disk->queue_length());
}

}  // namespace

Page health_page(const Service& service, const Disk* disk) {
  Page page{.status = 200, .type = "application/json", .text = {}};
  if (disk != nullptr) {
    const auto trouble = disk->trouble();
    if (trouble && (trouble->silence() >= kUnhealthyAfter || trouble->kind == Trouble::Kind::kConnecting))
      page.status = 503;
    page.text =
        health_of(*disk, trouble).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    return page;
  }
  nlohmann::json disks = nlohmann::json::array();
  for (const auto& each : service.disks) disks.push_back(health_of(*each, each->trouble()));
  page.text =
      nlohmann::json{{"disks", disks}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return page;
}

Page metrics_page(const Service& service) {
  const Counters& counters = service.counters;
  Page page{.status = 200, .type = "text/plain; version=0.0.4", .text = {}};
  std::string& text = page.text;
  Metric(text, "nvr_streamer_connections", "gauge", "Connections of viewers now.")
      .add("", counters.connections);
  Metric(text, "nvr_streamer_connections_accepted_total", "counter", "Connections accepted.")
      .add("", counters.accepted);
  Metric(text, "nvr_streamer_connections_refused_total", "counter",
         "Connections refused at --max-connections.")
      .add("", counters.refused);
  Metric cut(
      text, "nvr_streamer_connections_cut_total", "counter",
      "Connections closed by the streamer before their response was complete, or while it waited for a "
      "request, by reason.");
  for (std::size_t i = 0; i < kCuts; ++i) cut.add(label("reason", kCutNames.at(i)), counters.cut.at(i));
  Metric responses(text, "nvr_streamer_responses_total", "counter", "Responses, by disk and status.");
  for (const auto& [key, count] : counters.responses)
    responses.add(label("disk", key.first) + "," + label("code", std::to_string(key.second)), count);
  Metric bytes(text, "nvr_streamer_body_bytes_total", "counter", "Bytes of recordings sent.");
  for (const auto& [disk, count] : counters.body_bytes) bytes.add(label("disk", disk), count);
  add_disks(text, service);
  return page;
}

}  // namespace nvr::streamer
