// What a build with NVR_STEPS does at a step: counts it, and ends the process where the plan says so.
//
// The plan of a process comes from its environment, NVR_KILL_AT=NAME:COUNT, or from plan_kill(). With
// NVR_STEP_CENSUS=FILE each step's name is appended to the file when it is reached first.
#pragma once

#include <string>
#include <vector>

namespace nvr::test {

// From now on the process is killed (SIGKILL) when it has reached this step so often. 0: never.
void plan_kill(const std::string& step, unsigned count);

}  // namespace nvr::test
