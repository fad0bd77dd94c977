// SIGTERM and SIGINT are for the event loop. Any thread.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace nvr::streamer {

// From now on they do not reach this thread.
inline void block_signals() {
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGTERM);
  sigaddset(&ours, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ours, nullptr);
}

}  // namespace nvr::streamer
