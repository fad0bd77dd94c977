// What is explored: who takes part and what they do, and what is broken on purpose.
#pragma once

#include "tests/model/state.h"

namespace nvr::model {

struct Scenario {
  const char* name;
  Byte streams = 1;
  Byte window = 2;            // slots of a stream
  Byte threshold = 1;         // slots given back before the daemon is rung; in the product half of the window
  Byte chunks = 3;            // of each recording
  Byte generations = 1;       // streams opened one after the other on each channel
  Byte keep = 0;              // chunks that the user holds on to
  Byte fails_at = 0;          // the read of this chunk (from 1) fails; 0: none
  bool shows_early = false;   // each chunk is there to be seen before its reader is woken for it
  bool attaches = true;       // in the beginning; otherwise it has happened
  bool event_loop = false;    // one thread for all streams, with dispatch() and try_next()
  bool helper_drops = false;  // chunks are dropped by another thread
  bool cancels = false;       // another thread cancels the first stream, at any time
  bool abandons = false;      // the first stream may be destroyed after any chunk
  bool detaches = false;      // the client closes the connection in the end, while it holds chunks
  bool disk_is_stuck = false;  // no operation completes
  bool daemon_dies = false;    // at any time
  bool client_dies = false;    // at any time
};

// Each breaks one thing that the protocol stands on, but for the last three.
enum class Mutant : Byte {
  kNone,
  kHeadRelease,
  kNeedDoorbellRelease,
  kCommandRelease,
  kReturnRelease,
  kNoSecondLook,
  kDrainAfterLook,
  kWaitingCleared,
  kShownIsPublished,
  kNoValueCompare,
  kVainRingCounts,
  kWantByteRelease,
  kNoNewEpoch,
  kNoRingForCredit,
  kWaitingSetLate,
  kStopSeenLate,
  kTerminalEarly,
  kDispatchAnnouncesFirst,
  kNoLookAfterDeath,
  // Harmless: the kernel's barrier and compare, or the next announcement, do the same.
  kWaitingRelease,
  kNoClientSecondLook,
  kNoDiskRetire,
};

}  // namespace nvr::model
