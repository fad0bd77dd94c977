// The control thread: accepts clients, shakes hands, notices their death, keeps the heartbeat and the
// watchdog, answers for status, and ends the daemon. It is the process's main thread. It never touches the
// disk, never waits for a client, and shares no lock with the disk thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "daemon/circuit_breaker.h"
#include "daemon/device.h"
#include "daemon/directory_watch.h"
#include "daemon/disk_thread.h"
#include "daemon/metrics_server.h"
#include "daemon/options.h"
#include "daemon/peers.h"
#include "daemon/service_manager.h"
#include "daemon/stall_clock.h"
#include "daemon/stall_log.h"
#include "daemon/watchdog.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

class ControlThread {
 public:
  // `signals`: from set_up_signals().
  [[nodiscard]] static Result<std::unique_ptr<ControlThread>> create(Options options, shm::UniqueFd signals);

  // Serves until a signal asks for the end, then ends the process with 0 (by _exit: nothing waits for a
  // thread that may be stuck on the disk). Returns only when it could not start, with the reason.
  [[nodiscard]] Error run();

 private:
  ControlThread(Options options, shm::UniqueFd signals, shm::UniqueFd epoll, shm::UniqueFd mail_wakeup);

  [[nodiscard]] Result<void> watch(int fd, std::uint64_t tag) const;
  [[nodiscard]] int timeout_ms() const;
  void take_signals();
  [[nodiscard]] std::optional<Error> take_mail();
  void confine(const DirectoryOpened& opened);
  [[nodiscard]] Result<void> on_directory_opened(const DirectoryOpened& opened);
  // To systemd, which then also wants to hear that the daemon lives.
  void tell_ready(const std::string& status);
  [[nodiscard]] Result<void> serve_metrics();
  void count_peers();
  void beat();
  void look_at_disk(std::uint64_t now_ns);
  void on_report(const OperationReport& report);
  [[nodiscard]] std::vector<const Connection*> connections() const;
  [[nodiscard]] std::string status() const;
  [[nodiscard]] std::string streams() const;
  [[nodiscard]] std::string stall_log() const;
  [[nodiscard]] std::string metrics();
  void watch_directory(const DirectoryOpened& opened);
  [[noreturn]] void stop(const std::string& why);
  [[noreturn]] void give_up(const std::string& why, int exit_status);

  Options options_;
  std::uint64_t started_ns_;
  std::uint64_t instance_ = 0;
  shm::UniqueFd signals_;
  shm::UniqueFd epoll_;
  shm::UniqueFd mail_wakeup_;
  std::unique_ptr<DiskThread> disk_;
  std::optional<Peers> peers_;
  ControlStatistics statistics_;
  std::optional<Metrics> metrics_;  // from when the directory is open
  std::unique_ptr<MetricsServer> metrics_server_;
  std::unique_ptr<DirectoryWatch> directory_watch_;  // none where nothing can be watched

  std::string_view engine_;
  Device device_;
  ServiceManager manager_;
  Watchdog watchdog_;
  std::uint64_t last_slow_end_ns_ = 0;
  StallClock stall_clock_;
  StallLog stall_log_;
  CircuitBreaker breaker_;
  shm::OldestOperation stall_;                   // as last written to the clients
  std::optional<shm::Sleeper> heartbeat_sleep_;  // announced while there is no heartbeat
  bool beating_ = false;
  std::uint64_t next_beat_ns_ = 0;
  std::uint64_t next_systemd_ns_ = 0;
  std::uint64_t systemd_period_ns_ = 0;  // 0: systemd does not watch
};

}  // namespace nvr::daemon
