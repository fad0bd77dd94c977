// A daemon under soak: started, asked how it is, ended.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace nvr::soak {

// What must be as it was before when all clients have gone.
struct Baseline {
  std::uint64_t descriptors = 0;
  std::uint64_t threads = 0;
  std::uint64_t connections = 0;
  std::uint64_t streams = 0;
  std::uint64_t shared_bytes = 0;
  std::uint64_t held_bytes = 0;
  std::uint64_t quarantined_bytes = 0;

  friend bool operator==(const Baseline&, const Baseline&) = default;
};
[[nodiscard]] std::string to_string(const Baseline& baseline);

class Daemon {
 public:
  // `programs`: the build's directory. Its log goes to `log`.
  Daemon(std::string programs, std::string engine, std::string directory, std::string socket,
         std::string log);
  ~Daemon();  // by SIGKILL, if it still runs
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Waits until it is ready.
  [[nodiscard]] bool start();
  [[nodiscard]] const std::string& engine() const { return engine_; }
  [[nodiscard]] const std::string& socket() const { return socket_; }
  [[nodiscard]] std::optional<Baseline> baseline() const;  // nothing: it does not answer
  [[nodiscard]] bool is_running() const;
  // SIGTERM. Its exit status, or nothing when it does not end.
  [[nodiscard]] std::optional<int> end();

 private:
  std::string programs_, engine_, directory_, socket_, log_;
  pid_t pid_ = -1;
};

}  // namespace nvr::soak
