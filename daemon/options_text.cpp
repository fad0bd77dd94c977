#include "daemon/options_text.h"

namespace nvr::daemon {
namespace {

class Lines {
 public:
  void add(const char* key, const std::string& value) {
    const char quote = value.find('"') == std::string::npos ? '"' : '\'';
    put(key, quote + value + quote);
  }
  void add(const char* key, std::uint64_t value) { put(key, std::to_string(value)); }
  void add_flag(const char* key, bool value) { put(key, value ? "true" : "false"); }
  void add(const char* key, const std::vector<std::uint32_t>& values) {
    std::string list;
    for (const std::uint32_t value : values) list += (list.empty() ? "" : ", ") + std::to_string(value);
    put(key, "[" + list + "]");
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  void put(const char* key, const std::string& value) { text_ += std::string(key) + " = " + value + "\n"; }

  std::string text_;
};

const char* name_of(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kRotational:
      return "rotational";
    case DeviceKind::kSolid:
      return "solid";
    case DeviceKind::kAuto:
      break;
  }
  return "auto";
}

}  // namespace

std::string as_config(const Options& options) {
  Lines lines;
  lines.add("dir", options.directory);
  if (!options.socket_path.empty()) lines.add("socket", options.socket_path);
  lines.add("engine", options.engine);
  lines.add("slow-op-ms", options.slow_operation_ms);
  lines.add("fail-fast", options.fail_fast_s);
  lines.add("max-clients", options.max_clients);
  lines.add("max-clients-per-uid", options.max_clients_per_uid);
  lines.add("connects-per-second", options.connects_per_second);
  lines.add("client-memory", options.client_memory_bytes);
  lines.add("total-memory", options.total_memory_bytes);
  if (!options.allowed_uids.empty()) lines.add("allow-uid", options.allowed_uids);
  lines.add("device-kind", std::string(name_of(options.device_kind)));
  if (options.io_depth != 0) lines.add("io-depth", options.io_depth);
  lines.add("reserve", options.reserve_percent);
  if (options.fifo_visits) lines.add("scheduling", std::string("fifo"));
  lines.add_flag("wait-for-dir", options.wait_for_directory);
  if (!options.expected_file.empty()) lines.add("expect-file", options.expected_file);
  lines.add_flag("no-sandbox", !options.sandbox);
  if (!options.metrics.empty()) lines.add("metrics", options.metrics);
  lines.add("log-level", options.log_level);
  return lines.take();
}

}  // namespace nvr::daemon
