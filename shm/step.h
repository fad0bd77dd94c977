// Steps at which a test can end the process (tests/kill_steps): each names a moment between two things that
// the other side can see. In any other build there is nothing.
#pragma once

#ifdef NVR_STEPS
namespace nvr::shm {
void reached_step(const char* name);
}
#define NVR_STEP(name) ::nvr::shm::reached_step(name)
#else
#define NVR_STEP(name) static_cast<void>(0)
#endif
