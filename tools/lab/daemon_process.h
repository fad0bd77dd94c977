// nvr-readerd as a real process.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/lab/server.h"

namespace nvr::lab {

struct DaemonCommand {
  std::string program;
  std::string directory;
  std::string socket;
  std::string engine;
  std::vector<std::string> arguments = {};  // more of them
  std::optional<uid_t> uid = {};
  std::optional<rlim_t> max_descriptors = {};
  std::function<bool()> before_exec = {};  // see Command
  bool wait_until_ready = true;
};

class DaemonProcess : public Server {
 public:
  // Starts it and waits for the line that says "ready". Throws, with its log, when that does not come.
  explicit DaemonProcess(const DaemonCommand& command);

  [[nodiscard]] const std::string& socket() const { return socket_; }
  [[nodiscard]] bool wait_until_ready() { return wait_for_log("ready"); }

  // What `nvr-readerctl status --json` says, asked for by this process. Throws when there is no answer.
  [[nodiscard]] nlohmann::json status() const;
  // status()["totals"][name]
  [[nodiscard]] std::uint64_t total(const std::string& name) const;
  [[nodiscard]] bool wait_for_total(const std::string& name, std::uint64_t value) const;

 private:
  std::string socket_;
};

}  // namespace nvr::lab
