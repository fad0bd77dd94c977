#include "daemon/control_thread.h"

#include <errno.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "daemon/limits.h"
#include "daemon/log.h"
#include "daemon/signals.h"
#include "daemon/status.h"
#include "daemon/streams_report.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

enum Tag : std::uint64_t { kSignals = Peers::kFirstFreeTag, kMail };

// Exit status.
constexpr int kDiskLost = 1;
constexpr int kDirectoryChanged = 3;

constexpr std::uint64_t kHeartbeatNs = shm::kHeartbeatMs * shm::kMillisecond;
constexpr int kSignalBatch = 16;  // a storm of signals leaves the others their turn

}  // namespace

Result<std::unique_ptr<ControlThread>> ControlThread::create(Options options, shm::UniqueFd signals) {
  shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "cannot create an epoll set");
  shm::UniqueFd mail_wakeup(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!mail_wakeup) return fail_errno(errno, "cannot create an eventfd");
  std::unique_ptr<ControlThread> control(
      new ControlThread(std::move(options), std::move(signals), std::move(epoll), std::move(mail_wakeup)));
  auto disk =
      DiskThread::create({.directory = control->options_.directory,
                          .engine = control->options_.engine,
                          .device_kind = control->options_.device_kind,
                          .io_depth = control->options_.io_depth,
                          .wait_for_directory = control->options_.wait_for_directory,
                          .expected_file = control->options_.expected_file,
                          .sandbox = control->options_.sandbox,
                          .probes = control->options_.fail_fast_s > 0,
                          .fifo_visits = control->options_.fifo_visits,
                          .reserve_percent = control->options_.reserve_percent,
                          .slow_operation_ns = control->options_.slow_operation_ms * shm::kMillisecond,
                          .max_connections = control->options_.max_clients},
                         control->mail_wakeup_.get());
  if (!disk) return tl::unexpected(disk.error());
  control->disk_ = std::move(*disk);
  control->heartbeat_sleep_.emplace(control->disk_->heartbeat_wanted());
  control->heartbeat_sleep_->announce();
  const Options& o = control->options_;
  control->peers_.emplace(control->epoll_.get(), *control->disk_,
                          Peers::Setup{.admission = Admission({.max_clients = o.max_clients,
                                                               .max_clients_per_uid = o.max_clients_per_uid,
                                                               .connects_per_second = o.connects_per_second,
                                                               .client_memory_bytes = o.client_memory_bytes,
                                                               .total_memory_bytes = o.total_memory_bytes},
                                                              geteuid(), o.allowed_uids),
                                       .instance = control->instance_,
                                       .directory = o.directory,
                                       .status = [self = control.get()] { return self->status(); },
                                       .streams = [self = control.get()] { return self->streams(); },
                                       .stall_log = [self = control.get()] { return self->stall_log(); },
                                       .metrics = [self = control.get()] { return self->metrics(); },
                                       .disk_state =
                                           [self = control.get()](shm::DiskState& shared) {
                                             write_disk_state(shared, self->stall_, self->breaker_.refuses());
                                           }});
  if (auto watched = control->watch(control->signals_.get(), kSignals); !watched)
    return tl::unexpected(watched.error());
  if (auto watched = control->watch(control->mail_wakeup_.get(), kMail); !watched)
    return tl::unexpected(watched.error());
  return control;
}

ControlThread::ControlThread(Options options, shm::UniqueFd signals, shm::UniqueFd epoll,
                             shm::UniqueFd mail_wakeup)
    : options_(std::move(options)),
      started_ns_(shm::now_ns()),
      signals_(std::move(signals)),
      epoll_(std::move(epoll)),
      mail_wakeup_(std::move(mail_wakeup)),
      watchdog_(options_.slow_operation_ms * shm::kMillisecond),
      breaker_(options_.fail_fast_s * shm::kSecond) {
  if (getrandom(&instance_, sizeof(instance_), GRND_NONBLOCK) != sizeof(instance_)) instance_ = started_ns_;
}

Result<void> ControlThread::watch(int fd, std::uint64_t tag) const {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno(errno, "cannot watch a descriptor");
  return {};
}

Error ControlThread::run() {
  if (auto started = disk_->start(); !started) return started.error();
  std::array<epoll_event, 64> events;
  for (;;) {
    const int wait_ms = peers_->populate_some() ? 0 : timeout_ms();
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_ms);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kSignals) {
        take_signals();
      } else if (event.data.u64 == kMail) {
        std::uint64_t rings = 0;
        static_cast<void>(!read(mail_wakeup_.get(), &rings, sizeof(rings)));
      } else {
        peers_->on_event(event.data.u64, event.events);
      }
    }
    if (auto error = take_mail()) return *error;
    if (directory_watch_ && directory_watch_->has_changed())
      give_up(options_.directory +
                  " is another directory now: its disk came back, or something was mounted there. "
                  "A daemon that is started anew serves it",
              kDirectoryChanged);
    peers_->check_deadlines();
    beat();
    if (metrics_server_) count_peers();
    log_left_out();
  }
}

int ControlThread::timeout_ms() const {
  std::uint64_t next_ns = std::min(peers_->next_deadline_ns(), next_left_out_ns());
  next_ns = std::min(next_ns, manager_.next_ns());
  if (beating_) next_ns = std::min(next_ns, next_beat_ns_);
  if (systemd_period_ns_ != 0) next_ns = std::min(next_ns, next_systemd_ns_);
  if (next_ns == UINT64_MAX) return -1;
  const std::uint64_t now = shm::now_ns();
  return next_ns <= now ? 0 : static_cast<int>((next_ns - now) / shm::kMillisecond + 1);
}

Result<void> ControlThread::on_directory_opened(const DirectoryOpened& opened) {
  engine_ = opened.engine;
  device_ = opened.device;
  if (!opened.note.empty()) spdlog::warn("{}; serving with engine {}", opened.note, opened.engine);
  if (opened.is_empty)
    spdlog::warn("the directory {} is empty: is its disk mounted? (--expect-file tells)", options_.directory);
  if (const std::string doubts = doubts_about(opened.device, options_.reserve_percent); !doubts.empty())
    spdlog::warn("{}: {}", options_.directory, doubts);
  if (const std::string advice = advice_for(opened.device); !advice.empty()) spdlog::warn("{}", advice);
  auto listening =
      options_.passed_listener >= 0
          ? peers_->listen(Listener::adopt(shm::UniqueFd(std::exchange(options_.passed_listener, -1))))
          : peers_->listen(options_.socket_path, !options_.allowed_uids.empty());
  if (!listening) return listening;
  if (auto serving = serve_metrics(); !serving) return serving;
  watch_directory(opened);
  const auto descriptors = share_out_descriptors(options_.max_clients, !options_.metrics.empty());
  if (!descriptors) return tl::unexpected(descriptors.error());
  if (!descriptors->note.empty()) spdlog::warn("{}", descriptors->note);
  peers_->bound_descriptors(descriptors->limits);
  if (options_.sandbox) confine(opened);
  statistics_.is_serving.set(1);
  spdlog::info("ready: serving {} at {} (engine {}, {} disk)", options_.directory, options_.socket_path,
               engine_, to_string(device_));
  tell_ready("Serving " + options_.directory);
  return {};
}

void ControlThread::tell_ready(const std::string& status) {
  std::uint64_t systemd_us = 0;
  if (sd_watchdog_enabled(0, &systemd_us) > 0) systemd_period_ns_ = systemd_us * 1000 / 2;
  manager_.tell("READY=1\nSTATUS=" + status);
}

void ControlThread::watch_directory(const DirectoryOpened& opened) {
  auto watch =
      DirectoryWatch::start(options_.directory, opened.identity, mail_wakeup_.get(), options_.sandbox);
  if (watch)
    directory_watch_ = std::move(*watch);
  else
    spdlog::warn("another directory in the place of {} will not be noticed: {}", options_.directory,
                 watch.error().message);
}

// Once what it tells of the engine is known.
Result<void> ControlThread::serve_metrics() {
  metrics_.emplace(MetricsSources{.engine = engine_,
                                  .directory = options_.directory,
                                  .device_kind = to_string(device_),
                                  .has_visits = device_.rotational,
                                  .slow_operation_ns = options_.slow_operation_ms * shm::kMillisecond,
                                  .disk = disk_->statistics(),
                                  .control = statistics_,
                                  .in_flight = disk_->in_flight()});
  if (options_.metrics.empty()) return {};
  auto server = MetricsServer::start(options_.metrics, options_.sandbox, *metrics_);
  if (!server) return tl::unexpected(server.error());
  metrics_server_ = std::move(*server);
  spdlog::info("metrics: {}", metrics_server_->url());
  return {};
}

// For the metrics, which other threads may read.
void ControlThread::count_peers() {
  const Peers::Totals totals = peers_->totals();
  statistics_.clients.set(peers_->admission().clients());
  statistics_.controls.set(totals.controls);
  statistics_.accepted.set(totals.accepted);
  statistics_.refused.set(totals.refused);
  statistics_.violations.set(totals.violations);
  statistics_.shared_bytes.set(peers_->admission().memory_bytes());
  statistics_.held_bytes.set(totals.held_bytes);
  statistics_.stalled_ns.set(stall_clock_.stalled_ns());
  statistics_.refuses_opens.set(breaker_.refuses() ? 1 : 0);
  statistics_.lost_lines.set(lost_lines());
}

// Everything that this needs has been opened, and no client has been heard yet.
void ControlThread::confine(const DirectoryOpened& opened) {
  Confinement control = weaker_of(confine_control_thread(peers_->owned_path()), log_confinement());
  if (metrics_server_) control = weaker_of(control, metrics_server_->confinement());
  const int error = filter_system_calls(
      {.io_uring = opened.engine == "io_uring", .notifies = getenv("NOTIFY_SOCKET") != nullptr});
  spdlog::info("sandbox: {}",
               describe_sandbox(control, opened.confinement, opened.engine_confinement, error));
}

// Ends with every client told: the kernel keeps the memory that it may still write to, and a daemon that is
// started anew has an engine that works.
void ControlThread::give_up(const std::string& why, int exit_status) {
  spdlog::error("{}", why);
  manager_.tell("STATUS=" + why);
  peers_->end_all({.code = Code::kUnavailable, .message = why});
  finish_log();
  _exit(exit_status);
}

void ControlThread::stop(const std::string& why) {
  spdlog::info("stopping on {}", why);
  manager_.tell("STOPPING=1\nSTATUS=Stopping");
  peers_->end_all({.code = Code::kUnavailable, .message = "the daemon is stopping"});
  finish_log();
  _exit(0);
}

// ---- Heartbeat, watchdog, status
// -----------------------------------------------------------------------------------------

void ControlThread::take_signals() {
  signalfd_siginfo signal = {};
  for (int i = 0; i < kSignalBatch && read(signals_.get(), &signal, sizeof(signal)) == sizeof(signal); ++i) {
    const auto number = static_cast<int>(signal.ssi_signo);
    const std::string what = name_of_signal(number) + " from pid " + std::to_string(signal.ssi_pid) +
                             " uid " + std::to_string(signal.ssi_uid);
    if (is_end(number)) stop(what);
    log_some(LogKind::kSignal, spdlog::level::warn, "{}: {}", what, answer_to(number));
  }
}

std::optional<Error> ControlThread::take_mail() {
  while (auto message = disk_->take_message()) {
    if (const auto* const opened = std::get_if<DirectoryOpened>(&*message)) {
      if (auto listening = on_directory_opened(*opened); !listening) return listening.error();
    } else if (const auto* const missing = std::get_if<DirectoryMissing>(&*message)) {
      spdlog::warn("{}; trying until it is there (--wait-for-dir)", missing->error.message);
      tell_ready("Waiting for " + options_.directory);  // or the machine would not have booted until then
    } else if (const auto* const failed = std::get_if<StartFailed>(&*message)) {
      return failed->error;
    } else if (const auto* const detached = std::get_if<Detached>(&*message)) {
      peers_->on_detached(*detached->connection);
    } else if (const auto* const broken = std::get_if<EngineFailed>(&*message)) {
      give_up("the daemon can no longer read its disk: " + broken->error.message, kDiskLost);
    } else if (const auto* const note = std::get_if<EngineNote>(&*message)) {
      log_some(LogKind::kEngine, spdlog::level::warn, "{}", note->text);
    } else if (const auto* const violation = std::get_if<Violation>(&*message)) {
      peers_->on_violation(*violation->connection, violation->offence);
    } else if (const auto* const report = std::get_if<OperationReport>(&*message)) {
      on_report(*report);
    }
  }
  return std::nullopt;
}

void ControlThread::on_report(const OperationReport& report) {
  stall_log_.add(report, std::chrono::duration_cast<std::chrono::milliseconds>(
                             std::chrono::system_clock::now().time_since_epoch())
                             .count());
  const double took_s = static_cast<double>(report.duration_ns) / 1e9;
  if (report.is_slow) {
    // Once per episode: what began before the last one ended was stuck with it.
    const bool is_new = report.operation.since_ns >= last_slow_end_ns_;
    stall_clock_.record(report.operation.since_ns, report.operation.since_ns + report.duration_ns);
    last_slow_end_ns_ = std::max(last_slow_end_ns_, report.operation.since_ns + report.duration_ns);
    log_some(LogKind::kSlow, is_new ? spdlog::level::warn : spdlog::level::debug,
             "{} took {:.1f} s (client pid {} uid {})", to_string(report.operation), took_s, report.peer.pid,
             report.peer.uid);
  }
  if (report.error != 0)
    log_some(LogKind::kDiskError, spdlog::level::warn, "{} failed after {:.3f} s: {} (client pid {} uid {})",
             to_string(report.operation), took_s, std::generic_category().message(report.error),
             report.peer.pid, report.peer.uid);
}

// Keeps the heartbeat while streams are open, and stops it when none is: an idle daemon sleeps for good.
void ControlThread::beat() {
  const std::uint64_t now = shm::now_ns();
  if (now >= manager_.next_ns()) manager_.go_on();
  if (systemd_period_ns_ != 0 && now >= next_systemd_ns_) {
    manager_.tell_alive();
    next_systemd_ns_ = now + systemd_period_ns_;
  }
  // Woken, perhaps by a stream that has gone by now. It counts as rung for all the same, so the next one
  // would not ring in this epoch, and its client wants a sign of life: hence a beat, and a new epoch after
  // it.
  const bool woken = !beating_;
  if (woken) {
    heartbeat_sleep_->retire();
    beating_ = true;
    next_beat_ns_ = now;
  }
  if (now < next_beat_ns_) return;
  next_beat_ns_ = now + kHeartbeatNs;

  look_at_disk(now);
  // For one period at least, or each of many short streams would wake this thread; and until the clients have
  // been told that a stall is over.
  if (woken || disk_->has_open_streams() || stall_.operation != shm::DiskOperation::kNone) return;
  // S1 and S2 of shm/wake.h: the disk thread wakes us when a stream is opened.
  heartbeat_sleep_->announce();
  beating_ = disk_->has_open_streams();
  if (beating_) heartbeat_sleep_->retire();
}

// Writes to every client how the disk is doing, and warns of what is stuck.
void ControlThread::look_at_disk(std::uint64_t now_ns) {
  const DiskStatistics& disk = disk_->statistics();
  const shm::OldestOperation oldest =
      find_stuck(disk_->in_flight().oldest(), disk.answered_ns.value(), kHeartbeatNs, now_ns);
  if (oldest.stuck_ns >= options_.slow_operation_ms * shm::kMillisecond)
    stall_clock_.record(oldest.since_ns, now_ns);
  if (watchdog_.should_warn(oldest, now_ns))
    spdlog::warn("{} has been stuck for {:.1f} s; {}; {} of {} open streams wait for the disk",
                 to_string(oldest), static_cast<double>(oldest.stuck_ns) / 1e9, answers_beside(oldest),
                 disk.streams_waiting.value(), disk.streams_served());
  if (breaker_.update(oldest))
    spdlog::warn("{}", breaker_.refuses()
                           ? "the disk has not answered for " + std::to_string(options_.fail_fast_s) +
                                 " s (" + to_string(oldest) + "): new opens are refused (--fail-fast)"
                           : "the disk answers again: new opens are served");
  const bool has_news = !(oldest == stall_);
  stall_ = oldest;
  peers_->for_each_serving([&](const Connection& connection) {
    shm::ReadHeader& header = connection.read_view().read_header();
    if (has_news) write_disk_state(header.disk, stall_, breaker_.refuses());
    header.heartbeat.store(header.heartbeat.load() + 1);  // sole writer
  });
}

std::vector<const Connection*> ControlThread::connections() const {
  std::vector<const Connection*> serving;
  peers_->for_each_serving([&](const Connection& connection) { serving.push_back(&connection); });
  return serving;
}

std::string ControlThread::status() const {
  const std::uint64_t now = shm::now_ns();
  const StatusSources sources{.engine = engine_,
                              .directory = options_.directory,
                              .device_kind = to_string(device_),
                              .has_visits = device_.rotational,
                              .instance = instance_,
                              .uptime_ns = now - started_ns_,
                              .now_ns = now,
                              .stall = stall_,
                              .refuses_opens = breaker_.refuses(),
                              .operations_in_flight = disk_->in_flight().count(),
                              .peers = peers_->totals(),
                              .leaving = peers_->leaving(),
                              .lost_lines = lost_lines(),
                              .admission = peers_->admission(),
                              .disk = disk_->statistics(),
                              .connections = connections()};
  return status_json(sources);
}

std::string ControlThread::streams() const {
  return streams_json(connections(), shm::now_ns());
}

std::string ControlThread::metrics() {
  count_peers();
  return metrics_->text();  // nobody asks before the directory is open
}

std::string ControlThread::stall_log() const {
  return stall_log_.json({.stuck = stall_,
                          .now_ns = shm::now_ns(),
                          .slow_ns = options_.slow_operation_ms * shm::kMillisecond,
                          .reports_lost = disk_->statistics().reports_lost.value()});
}

}  // namespace nvr::daemon
