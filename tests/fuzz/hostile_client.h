// A whole daemon without threads, disk or time, and around it a client that keeps to the rules and others
// that do what a program of bytes says: connect, say anything on the socket, write anything into W, ring,
// post commands that are right, nearly right or nonsense. The daemon's own parts (the control thread's Peers,
// Connection, the disk thread's DiskService) run over a simulated engine, a step at a time, as the program
// says too. Every string of bytes is a program. One thread.
//
// What must hold whatever the program is: the well-behaved client gets every byte and keeps its connection,
// nothing is written to memory that was let go of, and when all have left nothing is left over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nvr::test {

struct Verdict {
  std::string problem;                // empty if all held
  std::uint64_t chunks = 0;           // that the well-behaved client took
  std::vector<std::string> offences;  // for which hostile connections were ended
  std::uint64_t served = 0;           // hostile connections that got as far as the disk thread
};

// `spoil`: damages what the well-behaved client reads. The harness must notice.
[[nodiscard]] Verdict run_program(std::span<const std::byte> program, bool spoil = false);

}  // namespace nvr::test
