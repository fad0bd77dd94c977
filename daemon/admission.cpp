#include "daemon/admission.h"

#include <errno.h>

#include <algorithm>
#include <cassert>
#include <string>

#include "shm/clock.h"

namespace nvr::daemon {
namespace {

std::string in_mib(std::uint64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

}  // namespace

void Admission::bound_descriptors(const DescriptorLimits& limits) {
  assert(clients_ == 0 && handshakes_ == 0);
  limits_.max_handshakes = limits.max_handshakes;
  limits_.max_controls = limits.max_controls;
  descriptors_ = std::make_unique<DescriptorBudget>(limits.of_clients);
}

Result<void> Admission::check_uid(std::uint32_t uid) const {
  if (is_privileged(uid) || std::ranges::find(allowed_uids_, uid) != allowed_uids_.end()) return {};
  return fail(Code::kPermissionDenied, "uid " + std::to_string(uid) +
                                           " may not connect: start the daemon with --allow-uid " +
                                           std::to_string(uid));
}

Result<void> Admission::check_rate(std::uint32_t uid, std::uint64_t now_ns) {
  if (limits_.connects_per_second == 0 || is_privileged(uid)) return {};
  const std::uint64_t price_ns = shm::kSecond / limits_.connects_per_second;
  const std::uint64_t most_ns = price_ns * (kConnectsAtOnce + std::uint64_t{2} * limits_.max_clients_per_uid);
  std::uint64_t& earned_ns = connects_earned_ns_[uid];
  const std::uint64_t then_ns = std::max(earned_ns, now_ns) + price_ns;
  if (then_ns > now_ns + most_ns)
    return fail(Code::kResourceExhausted, "uid " + std::to_string(uid) + " connects too often: more than " +
                                              std::to_string(limits_.connects_per_second) +
                                              " times a second (--connects-per-second)");
  earned_ns = then_ns;
  return {};
}

Result<void> Admission::admit_client(std::uint32_t uid, std::uint32_t streams, std::uint32_t slots) {
  const shm::Geometry geometry{.streams = streams, .slots = slots};
  if (!geometry.is_valid())
    return fail(Code::kInvalidArgument,
                std::to_string(streams) + " streams of " + std::to_string(slots) +
                    " slots: a connection has 1 to " + std::to_string(shm::kMaxStreams) +
                    " streams, each with a power of two of slots from " + std::to_string(shm::kMinSlots) +
                    " to " + std::to_string(shm::kMaxSlots));
  const std::uint64_t bytes = geometry.read_bytes() + geometry.write_bytes();
  if (bytes > limits_.client_memory_bytes)
    return fail(Code::kResourceExhausted,
                std::to_string(streams) + " streams of " + std::to_string(slots) + " slots need " +
                    in_mib(bytes) + " of shared memory, and a connection gets " +
                    in_mib(limits_.client_memory_bytes) +
                    " at most: ask for less, or raise the daemon's --client-memory");
  if (clients_ >= limits_.max_clients)
    return fail(Code::kResourceExhausted, "all " + std::to_string(limits_.max_clients) +
                                              " connections are taken: raise the daemon's --max-clients");
  Share& share = shares_[uid];
  if (share.clients >= limits_.max_clients_per_uid) {
    forget_if_empty(uid);
    return fail(Code::kResourceExhausted,
                "uid " + std::to_string(uid) + " has all the " + std::to_string(limits_.max_clients_per_uid) +
                    " connections it may have: raise the daemon's --max-clients-per-uid");
  }
  if (share.kept >= limits_.max_clients_per_uid)
    return fail(
        Code::kResourceExhausted,
        "uid " + std::to_string(uid) + " keeps the memory of " + std::to_string(share.kept) +
            " connections that have ended, as many as it may: unmap it (drop their chunks), or raise the "
            "daemon's --max-clients-per-uid");
  const std::uint64_t bound = memory_bound(uid);
  const std::uint64_t in_use = bound == limits_.total_memory_bytes ? memory_bytes_ : share.memory_bytes;
  if (bytes > bound - std::min(in_use, bound) || bytes > limits_.total_memory_bytes - memory_bytes_) {
    forget_if_empty(uid);
    return fail(Code::kResourceExhausted,
                in_mib(in_use) + " of the " + in_mib(bound) + " of shared memory that uid " +
                    std::to_string(uid) + " can have are in use, and " + in_mib(bytes) +
                    " more do not fit: close connections, or raise the daemon's --total-memory");
  }
  auto& descriptors = descriptors_of(uid);
  if (const auto verdict = descriptors.take(DescriptorBudget::kOfConnection); verdict != Verdict::kTaken) {
    forget_if_empty(uid);
    const std::string most = std::to_string(descriptors.most(verdict));
    return fail_errno(
        EMFILE,
        verdict == Verdict::kUserHasAll
            ? "uid " + std::to_string(uid) + " uses all of the " + most +
                  " descriptors that one user may, for connections, memory kept of ended ones, and open files"
            : "all of the " + most + " descriptors for clients are in use");
  }
  ++share.clients;
  ++clients_;
  share.memory_bytes += bytes;
  memory_bytes_ += bytes;
  return {};
}

void Admission::release_client(std::uint32_t uid) {
  --shares_[uid].clients;
  ++shares_[uid].kept;
  --clients_;
  descriptors_of(uid).give_back(DescriptorBudget::kOfConnection - DescriptorBudget::kOfKeptMemory);
  forget_if_empty(uid);
}

void Admission::release_memory(std::uint32_t uid, std::uint64_t bytes) {
  --shares_[uid].kept;
  shares_[uid].memory_bytes -= bytes;
  memory_bytes_ -= bytes;
  descriptors_of(uid).give_back(DescriptorBudget::kOfKeptMemory);
  forget_if_empty(uid);
}

Result<void> Admission::admit_handshake(std::uint32_t uid) {
  const PlacesFor places = places_for(uid, limits_.max_handshakes);
  switch (take_place(uid, places, &Share::handshakes, handshakes_)) {
    case Verdict::kTaken:
      return {};
    case Verdict::kUserHasAll:
      return fail(
          Code::kResourceExhausted,
          "uid " + std::to_string(uid) + " has " + std::to_string(places.one) +
              " connections that have not said HELLO, as many as it may: close them, or send HELLO at once");
    case Verdict::kNoneLeft:
      break;
  }
  return fail(Code::kResourceExhausted,
              std::to_string(handshakes_) + " connections have not said HELLO, as many as may be: try again");
}

void Admission::release_handshake(std::uint32_t uid) {
  give_back_place(uid, &Share::handshakes, handshakes_);
}

Result<void> Admission::admit_control(std::uint32_t uid) {
  const PlacesFor places = places_for(uid, limits_.max_controls);
  switch (take_place(uid, places, &Share::controls, controls_)) {
    case Verdict::kTaken:
      return {};
    case Verdict::kUserHasAll:
      return fail(Code::kResourceExhausted, "uid " + std::to_string(uid) + " has all the " +
                                                std::to_string(places.one) +
                                                " control connections it may have: close one");
    case Verdict::kNoneLeft:
      break;
  }
  return fail(Code::kResourceExhausted,
              "all " + std::to_string(places.all) + " control connections are taken: try again");
}

void Admission::release_control(std::uint32_t uid) {
  give_back_place(uid, &Share::controls, controls_);
}

Admission::Verdict Admission::take_place(std::uint32_t uid, PlacesFor places, std::uint32_t Share::*own,
                                         std::uint32_t& all) {
  std::uint32_t& of_user = shares_[uid].*own;
  if (of_user < places.one && all < places.all) {
    ++of_user;
    ++all;
    return Verdict::kTaken;
  }
  const Verdict refusal = of_user >= places.one ? Verdict::kUserHasAll : Verdict::kNoneLeft;
  forget_if_empty(uid);
  return refusal;
}

void Admission::give_back_place(std::uint32_t uid, std::uint32_t Share::*own, std::uint32_t& all) {
  --(shares_[uid].*own);
  --all;
  forget_if_empty(uid);
}

// Of a single place everybody has a chance.
PlacesFor Admission::places_for(std::uint32_t uid, std::uint32_t places) const {
  const auto all_but = [places](std::uint32_t part) {
    return std::max(1U, places - std::max(1U, places / part));
  };
  if (uid == 0) return {.one = places, .all = places};
  if (uid == own_uid_) return {.one = all_but(8), .all = all_but(8)};
  return {.one = std::max(1U, places / 4), .all = all_but(4)};
}

// One user's clients cannot take everything from the others'.
std::uint64_t Admission::memory_bound(std::uint32_t uid) const {
  return is_privileged(uid) ? limits_.total_memory_bytes : limits_.total_memory_bytes / 2;
}

void Admission::forget_if_empty(std::uint32_t uid) {
  const auto share = shares_.find(uid);
  if (share != shares_.end() && share->second == Share{}) shares_.erase(share);
}

}  // namespace nvr::daemon
