// The disk thread: serves every connection of the daemon (disk_service.h), and is the only one that touches
// the disk. Here are its start, its mail, and its sleep.
//
// It waits for the disk and for work, never for a client. Everything private here belongs to it; the control
// thread talks to it through two mailboxes and reads the statistics.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "daemon/connection.h"
#include "daemon/device.h"
#include "daemon/disk_messages.h"
#include "daemon/disk_service.h"
#include "daemon/doorbells.h"
#include "daemon/engine.h"
#include "daemon/in_flight.h"
#include "daemon/mailbox.h"
#include "daemon/sample_dir.h"
#include "daemon/statistics.h"

namespace nvr::daemon {

struct DiskThreadOptions {
  std::string directory;
  std::string engine;
  DeviceKind device_kind = DeviceKind::kAuto;
  std::uint32_t io_depth = 0;  // 0: by the kind of device
  bool wait_for_directory = false;
  std::string expected_file = {};  // that the directory must have before it is served; empty: none
  bool sandbox = true;
  bool probes = false;                // while something is stuck, where the engine can
  bool fifo_visits = false;           // DiskService::Setup
  std::uint32_t reserve_percent = 0;  // likewise
  std::uint64_t slow_operation_ns = 0;
  std::uint32_t max_connections = 0;
};

// To the disk thread.
struct Attach {
  Connection* connection = nullptr;
};
struct Detach {
  Connection* connection = nullptr;
};
struct Stop {};
using ToDisk = std::variant<std::monostate, Attach, Detach, Stop>;

class DiskThread {
 public:
  // `control_wakeup`: an eventfd of the control thread, written when it should look at its mailbox.
  [[nodiscard]] static Result<std::unique_ptr<DiskThread>> create(DiskThreadOptions options,
                                                                  int control_wakeup);
  ~DiskThread();

  [[nodiscard]] Result<void> start();  // thread "r-<directory>"

  // Control thread.
  void post(const ToDisk& message);
  [[nodiscard]] std::optional<FromDisk> take_message() { return from_disk_.take(); }
  // For tests that do the thread's work in its place, without start(): what has been posted to it.
  [[nodiscard]] std::optional<ToDisk> take_posted() { return to_disk_.take(); }
  [[nodiscard]] const DiskStatistics& statistics() const { return statistics_; }
  [[nodiscard]] const InFlight& in_flight() const { return in_flight_; }
  // The control thread stops its heartbeat when nothing is open; an odd value here asks the disk thread to
  // write `control_wakeup` when something is opened. The control thread's side is a shm::Sleeper on this
  // word.
  [[nodiscard]] shm::Word& heartbeat_wanted() { return heartbeat_wanted_; }
  // seq_cst: pairs with that Sleeper.
  [[nodiscard]] bool has_open_streams() const { return active_.load() != 0; }

 private:
  DiskThread(DiskThreadOptions options, Doorbells doorbells, shm::UniqueFd mail_wakeup, int control_wakeup);

  void run();
  [[nodiscard]] bool open_directory();
  [[nodiscard]] bool set_up_engine();
  [[nodiscard]] bool serve();

  bool take_mail();
  void sleep();
  [[nodiscard]] int timeout_ms() const;
  [[nodiscard]] int rest_ms_at(std::uint64_t now_ns) const;
  bool spin();

  // Takes whatever there is from outside; the first half of serve(), and the look of one who is about to
  // sleep.
  bool take_all() {
    bool any = take_mail();
    any |= service_->take_commands();
    any |= service_->take_credit();
    if (any) update_activity();
    return any;
  }
  void attach(Connection& connection);
  void detach(Connection& connection);
  void on_ring(Connection& connection);
  void unmute_all();
  void tell(FromDisk message);
  void update_activity();

  DiskThreadOptions options_;
  Doorbells doorbells_;
  shm::UniqueFd mail_wakeup_;
  int control_wakeup_;
  Mailbox<ToDisk> to_disk_;
  Mailbox<FromDisk> from_disk_;
  DiskStatistics statistics_;
  InFlight in_flight_;
  shm::Word heartbeat_wanted_ = 0;
  shm::Waker heartbeat_{heartbeat_wanted_};
  std::atomic<std::uint32_t> active_ = 0;  // is any stream open?

  std::optional<SampleDir> directory_;
  std::unique_ptr<Engine> engine_;
  std::optional<DiskService> service_;
  std::vector<Connection*> by_doorbell_;  // by doorbell id; null where free
  std::uint32_t muted_ = 0;               // connections whose doorbell is not watched
  std::uint64_t next_unmute_ns_ = 0;      // when to watch them again
  std::uint64_t spin_ns_ = 0;             // how long the next spin lasts
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace nvr::daemon
