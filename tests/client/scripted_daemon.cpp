#include "tests/client/scripted_daemon.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>

#include "shm/clock.h"
#include "shm/futex.h"
#include "shm/socket.h"
#include "tests/support/environment.h"
#include "tests/support/wait.h"

namespace nvr::test {
namespace {

std::uint64_t in_a_while_ns() {
  return shm::now_ns() + static_cast<std::uint64_t>(std::chrono::nanoseconds(kLongEnough).count());
}

template <class T>
T must(Result<T> result) {
  if (!result) throw TestFailure(result.error().message);
  return std::move(*result);
}

}  // namespace

ScriptedDaemon::ScriptedDaemon(Welcoming welcoming)
    : welcoming_(std::move(welcoming)),
      listener_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)),
      r_(must(shm::OwnedSegment::create(shm::SegmentKind::kRead, geometry_.read_bytes()))),
      w_(must(shm::OwnedSegment::create(shm::SegmentKind::kWrite, geometry_.write_bytes()))),
      doorbell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  const shm::WritableView r(r_.mapping().data(), geometry_);
  const shm::ReadableView w(w_.mapping().data(), geometry_);
  descriptors_.emplace(r.publication(0), r.descriptors(0), geometry_.descriptor_capacity(), shm::kFirstIndex);
  command_ring_.emplace(w.write_header(), w.commands(), geometry_.command_capacity(), shm::kFirstIndex);
  return_ring_.emplace(w.credit(0), w.returns(0), geometry_.slots, shm::kFirstIndex);
  sleeper_.emplace(r.read_header().need_doorbell);
  if (welcoming_.socket.empty()) welcoming_.socket = root_ / "socket";
  unlink(socket().c_str());
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  socket().copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener_.get(), 1) != 0)
    throw TestFailure("cannot listen");
  thread_ = std::thread([this] { greet_one(); });
}

ScriptedDaemon::~ScriptedDaemon() {
  shutdown(listener_.get(), SHUT_RDWR);  // ends an accept() that nobody came for
  wait_for_client();
}

void ScriptedDaemon::wait_for_client() {
  if (thread_.joinable()) thread_.join();
}

void ScriptedDaemon::greet_one() {
  socket_.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket_) return;
  std::array<std::byte, 256> buffer;
  if (!shm::wait_readable(socket_.get(), in_a_while_ns()) || !shm::receive_message(socket_.get(), buffer))
    return;
  shm::Welcome welcome;
  welcome.streams = geometry_.streams;
  welcome.slots_per_stream = geometry_.slots;
  welcome.first_index = shm::kFirstIndex;
  welcome.read_bytes = r_.bytes();
  welcome.write_bytes = w_.bytes();
  welcoming_.edit(welcome);
  const auto r = r_.descriptor_for_client();
  const auto w = w_.descriptor_for_client();
  if (!r || !w) return;
  const auto either = [](int given, int real) { return given >= 0 ? given : real; };
  const std::array descriptors = {either(welcoming_.r, r->get()), either(welcoming_.w, w->get()),
                                  either(welcoming_.doorbell, doorbell_.get())};
  if (!shm::send_message(socket_.get(), welcome, std::span(descriptors).first(welcoming_.descriptors)))
    return;
  if (shm::wait_readable(socket_.get(), in_a_while_ns()))  // READY
    static_cast<void>(shm::receive_message(socket_.get(), buffer).has_value());
}

void ScriptedDaemon::publish(const shm::Descriptor& content, std::uint32_t nth) {
  shm::Descriptor descriptor = content;
  if (descriptor.generation == 0) descriptor.generation = shm::kFirstIndex + nth;
  publish_unseen(descriptor);
  shm::futex_wake_one(descriptors_->futex_word());
}

void ScriptedDaemon::publish_unseen(const shm::Descriptor& content) {
  wait_for_client();
  shm::Descriptor descriptor = content;
  if (descriptor.generation == 0) descriptor.generation = shm::kFirstIndex + 1;
  descriptors_->put(descriptor);
  descriptors_->publish();
}

void ScriptedDaemon::show_disk(const shm::OldestOperation& oldest, bool refuses_opens) {
  wait_for_client();
  const shm::WritableView r(r_.mapping().data(), geometry_);
  shm::write_disk_state(r.read_header().disk, oldest, refuses_opens);
}

void ScriptedDaemon::beat() {
  wait_for_client();
  const shm::WritableView r(r_.mapping().data(), geometry_);
  r.read_header().heartbeat.fetch_add(1);
}

void ScriptedDaemon::announce_sleep() {
  wait_for_client();
  static_cast<void>(rings());
  sleeper_->announce();
}

std::uint64_t ScriptedDaemon::rings() {
  std::uint64_t count = 0;
  return read(doorbell_.get(), &count, sizeof(count)) == sizeof(count) ? count : 0;
}

const std::vector<shm::Command>& ScriptedDaemon::commands() {
  wait_for_client();
  const auto keep = [this](const shm::Command& command) {
    commands_.push_back(command);
    return true;
  };
  if (!command_ring_->take(keep)) throw TestFailure("the command ring overflowed");
  return commands_;
}

const std::vector<std::uint32_t>& ScriptedDaemon::returned() {
  wait_for_client();
  const auto keep = [this](std::uint32_t slot) {
    returned_.push_back(slot);
    return true;
  };
  if (!return_ring_->take(keep)) throw TestFailure("the return ring overflowed");
  return returned_;
}

bool ScriptedDaemon::is_reader_asleep() {
  wait_for_client();
  return shm::is_asleep(shm::ReadableView(w_.mapping().data(), geometry_).credit(0).waiting.load());
}

void ScriptedDaemon::corrupt_head() {
  wait_for_client();
  const shm::WritableView r(r_.mapping().data(), geometry_);
  r.publication(0).head.fetch_add(geometry_.descriptor_capacity() + 1);
}

int ScriptedDaemon::flood(int most) {
  wait_for_client();
  int sent = 0;
  while (sent < most && shm::send_message(socket_.get(), shm::Published{})) ++sent;
  return sent;
}

void ScriptedDaemon::say_goodbye(const std::string& text, std::uint32_t code) {
  wait_for_client();
  shm::Goodbye goodbye;
  goodbye.code = code;
  text.copy(goodbye.text, sizeof(goodbye.text) - 1);
  static_cast<void>(shm::send_message(socket_.get(), goodbye).has_value());
  shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace nvr::test
