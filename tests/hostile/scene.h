// Where an attack takes place: a daemon, a well-behaved client that streams beside the attacker, and the
// daemon's footprint before. Every attack ends with the same questions: problem_after(). Test thread only.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "tests/hostile/raw_client.h"
#include "tests/support/client_process.h"
#include "tests/support/daemon_process.h"
#include "tests/support/proc.h"

namespace nvr::test {

// A well-behaved client in a process of its own: reads a recording over and over with the library, checks
// every byte, and counts chunks where the test can see them.
class Bystander {
 public:
  Bystander(const std::string& socket, const RecordingFile& file);
  ~Bystander();
  Bystander(const Bystander&) = delete;
  Bystander& operator=(const Bystander&) = delete;

  [[nodiscard]] std::uint64_t chunks() const;
  // Waits until it has read this many more.
  [[nodiscard]] bool goes_on(std::uint64_t chunks = 100) const;
  // Ends it: what went wrong, an error or a wrong byte. Empty if nothing.
  [[nodiscard]] std::string problem();

 private:
  struct Shared;
  Shared* shared_;
  std::optional<ClientProcess> process_;
};

class Scene {
 public:
  // The attacker runs as this user, who is neither the daemon's nor root, where the test runs as root.
  explicit Scene(std::vector<std::string> arguments = {}, std::optional<rlim_t> max_descriptors = {});

  [[nodiscard]] const std::string& socket() const { return daemon_->socket(); }
  [[nodiscard]] const RecordingFile& file() const { return file_; }
  [[nodiscard]] RecordingFile record(RecordingId id, std::uint64_t size) const {
    return site_.record(id, size);
  }
  [[nodiscard]] DaemonProcess& daemon() { return *daemon_; }
  [[nodiscard]] const DaemonProcess& daemon() const { return *daemon_; }
  [[nodiscard]] Bystander& bystander() { return *bystander_; }

  // Runs `attack` in an attacker's process to its end: what went wrong there. Empty if nothing.
  [[nodiscard]] std::string attack(const ClientProcess::Body& attack) const;
  // For attacks that cost the daemon time. Runs `step` over and over in an attacker's process until the
  // bystander has read many chunks beside it. Empty if it has; how fast it does depends on the machine.
  [[nodiscard]] std::string held_up_by(const std::function<void()>& step) const;

  // With the attackers gone: does the daemon live, is the bystander unharmed, can somebody new come, and is
  // the daemon's footprint what it was? Empty if so.
  [[nodiscard]] std::string problem_after();

 private:
  Site site_;
  RecordingFile file_;
  std::optional<DaemonProcess> daemon_;
  std::optional<Baseline> baseline_;
  std::optional<Bystander> bystander_;
};

}  // namespace nvr::test
