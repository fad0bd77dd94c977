// Who may connect, and how much everybody may have: pure book-keeping. Control thread only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "daemon/descriptor_budget.h"
#include "nvr/error.h"
#include "shm/protocol.h"

namespace nvr::daemon {

// Besides the clients: peers whose HELLO is due, and control connections (status).
inline constexpr std::uint32_t kMaxHandshakes = 128;
inline constexpr std::uint32_t kMaxControlConnections = 32;

struct Limits {
  std::uint32_t max_clients = 0;  // connections with segments
  std::uint32_t max_clients_per_uid = 0;
  std::uint32_t connects_per_second = 0;  // of a uid that is neither root nor the daemon's; 0: any number
  std::uint64_t client_memory_bytes = 0;  // of one connection
  std::uint64_t total_memory_bytes = 0;   // of all; a uid other than the daemon's and root has half
  // Fewer than these where the process may have few descriptors.
  std::uint32_t max_handshakes = kMaxHandshakes;
  std::uint32_t max_controls = kMaxControlConnections;
};

// The limit on open files, shared out between accept and control, and clients.
struct DescriptorLimits {
  std::uint32_t max_handshakes = kMaxHandshakes;
  std::uint32_t max_controls = kMaxControlConnections;
  DescriptorBudget::Bounds of_clients;
};

// How many of `places` a user may take: one other than the daemon's and root a quarter, all such users three
// quarters, the daemon's own all but an eighth. So an operator always gets in, and root before all.
struct PlacesFor {
  std::uint32_t one = 0;  // of its own
  std::uint32_t all = 0;  // with those that anybody has taken already
};
// Connects of one user that --connects-per-second does not count, besides two for each client that it may
// have: so all can come back after a restart.
inline constexpr std::uint64_t kConnectsAtOnce = 64;

class Admission {
 public:
  Admission(Limits limits, std::uint32_t own_uid, std::vector<std::uint32_t> allowed_uids)
      : limits_(limits), own_uid_(own_uid), allowed_uids_(std::move(allowed_uids)) {}

  // Once the daemon has all descriptors of its own. Precondition: nobody has connected.
  void bound_descriptors(const DescriptorLimits& limits);

  [[nodiscard]] const Limits& limits() const { return limits_; }

  // PermissionDenied, naming the uid and the remedy.
  [[nodiscard]] Result<void> check_uid(std::uint32_t uid) const;

  // Root and the daemon's own user.
  [[nodiscard]] bool may_disconnect(std::uint32_t uid) const { return is_privileged(uid); }

  // Counts one more connect. ResourceExhausted for a user who connects too often.
  [[nodiscard]] Result<void> check_rate(std::uint32_t uid, std::uint64_t now_ns);

  // Counts a connection of this geometry in. ResourceExhausted or InvalidArgument, naming the bound, and
  // nothing counted.
  [[nodiscard]] Result<void> admit_client(std::uint32_t uid, std::uint32_t streams, std::uint32_t slots);
  // The connection has ended. Its memory, and the descriptors of that, go on counting until release_memory().
  void release_client(std::uint32_t uid);
  void release_memory(std::uint32_t uid, std::uint64_t bytes);

  // Takes a place for a peer that has yet to say HELLO; from then on the bounds on clients and on control
  // connections hold.
  [[nodiscard]] Result<void> admit_handshake(std::uint32_t uid);
  void release_handshake(std::uint32_t uid);
  [[nodiscard]] Result<void> admit_control(std::uint32_t uid);
  void release_control(std::uint32_t uid);

  // Where the client's open files count. Lives as long as this.
  [[nodiscard]] DescriptorBudget::Share& descriptors_of(std::uint32_t uid) {
    return descriptors_->share_of(uid, is_privileged(uid));
  }

  [[nodiscard]] std::uint32_t clients() const { return clients_; }
  [[nodiscard]] std::uint64_t memory_bytes() const { return memory_bytes_; }

 private:
  struct Share {
    std::uint32_t clients = 0;
    std::uint32_t kept = 0;  // connections that have ended, whose memory still counts
    std::uint64_t memory_bytes = 0;
    std::uint32_t handshakes = 0;
    std::uint32_t controls = 0;
    friend bool operator==(const Share&, const Share&) = default;
  };
  using Verdict = DescriptorBudget::Verdict;
  // Of places of one kind: `own` are the user's, `all` everybody's.
  [[nodiscard]] Verdict take_place(std::uint32_t uid, PlacesFor places, std::uint32_t Share::*own,
                                   std::uint32_t& all);
  void give_back_place(std::uint32_t uid, std::uint32_t Share::*own, std::uint32_t& all);
  [[nodiscard]] PlacesFor places_for(std::uint32_t uid, std::uint32_t places) const;
  [[nodiscard]] bool is_privileged(std::uint32_t uid) const { return uid == 0 || uid == own_uid_; }
  [[nodiscard]] std::uint64_t memory_bound(std::uint32_t uid) const;
  void forget_if_empty(std::uint32_t uid);

  Limits limits_;
  std::uint32_t own_uid_;
  std::vector<std::uint32_t> allowed_uids_;
  std::unique_ptr<DescriptorBudget> descriptors_ =
      std::make_unique<DescriptorBudget>(DescriptorBudget::Bounds());
  std::map<std::uint32_t, Share> shares_;
  // When all of a uid's connects will have been earned: it runs ahead of the clock by what was used up. There
  // are no more than uids that may connect.
  std::map<std::uint32_t, std::uint64_t> connects_earned_ns_;
  std::uint32_t clients_ = 0;
  std::uint32_t handshakes_ = 0;
  std::uint32_t controls_ = 0;
  std::uint64_t memory_bytes_ = 0;
};

}  // namespace nvr::daemon
