// The steps of the model's threads. Each is one access to what other threads know, with the private work that
// follows it, and stands for one place of the sources (steps.cpp); a test holds that these places exist.
#pragma once

#include <cstdint>
#include <string>

namespace nvr::model {

enum class Step : std::uint8_t {
  kDone,
  // The disk thread: take_all()
  kDiskMail,
  kDiskCommands,
  kDiskCommand,
  kDiskOpenCredit,
  kDiskStarved,
  kDiskCredit,
  kDiskTaken,
  // submit_operation(), reap_completions()
  kDiskSubmit,
  kDiskSubmitCredit,
  kDiskReap,
  kDiskEndWithError,
  // sleep()
  kDiskAnnounce,
  kDiskSleep,
  kDiskDrain,
  kDiskRetire,
  // ServedStream::publish()
  kDiskPublish,
  kDiskPublishQuietly,
  kDiskShow,
  kDiskWaiting,
  kDiskFutexWake,
  kDiskWantByte,
  kDiskSend,
  // The control thread
  kControlAttach,
  kControlRingAttach,
  kControlWait,
  kControlDetach,
  kControlRingDetach,
  kControlDetached,
  // The user of the client library
  kUserOpen,
  kUser,
  kUserNext,
  kUserWait,
  kUserLeaves,
  kUserEnded,
  kUserCloses,
  kUserDrops,
  kHelperDrops,
  // claim_channel(), try_keep_promise(), abandon_channel()
  kClaim,
  kClaimed,
  kDrain,
  kDrainPut,
  // post_open(), post_close(), ring()
  kStart,
  kStarted,
  kPost,
  kPosted,
  kRing,
  kRingCompare,
  kRingWrite,
  // give_back(), ring_for_credit()
  kGivePut,
  kGiveHeld,
  kGiveCount,
  kGiveIsWaiting,
  kCreditLoad,
  kCreditZero,
  // next(), advance()
  kNext,
  kAdvance,
  kLook,
  // wait(), sleep()
  kMustGiveBack,
  kAnnounce,
  kSetWaiting,
  kWaitNews,
  kStopSeen,
  kStopCheck,
  kFutexHead,
  kFutexStop,
  kAsleep,
  kSliceNews,
  kClearWaiting,
  kRetire,
  kWaited,
  // has_news()
  kNewsStopped,
  kNewsLook,
  kNewsPromise,
  kNewsKept,
  // poll()
  kPoll,
  kPollNews,
  kPollCredit,
  kPollAlive,
  kPollDead,
  // leave_channel()
  kLeave,
  kLeaveChannel,
  kLeft,
  // dispatch(), and the event loop around it
  kDispatch,
  kDispatchHungUp,
  kDispatchAnnounce,
  kDispatched,
  kLoopNext,
  kLoopWait,
  // stop(), by another thread
  kStop,
  kStopWord,
  kStopWake,
  kSteps,
};

// The place of the sources that a step stands for.
struct SourcePlace {
  Step step;
  const char* file;  // from the root of the tree; empty: the user's program, or nothing but a jump
  const char* code;  // as it stands there, or what happens
};
[[nodiscard]] const SourcePlace& place_of(Step step);

// "client/src/connection.cpp: channel.returns.put(slot);"
[[nodiscard]] std::string to_string(Step step);

}  // namespace nvr::model
