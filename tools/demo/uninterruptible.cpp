#include "tools/demo/uninterruptible.h"

#include <filesystem>
#include <fstream>
#include <string>

namespace nvr::demo {
namespace {

// The state is the letter after the name in parentheses, which may contain anything.
char state_of(const std::filesystem::path& stat) {
  std::ifstream file(stat);
  std::string line;
  std::getline(file, line);
  const auto end = line.rfind(')');
  return end == std::string::npos || end + 2 >= line.size() ? '?' : line[end + 2];
}

}  // namespace

void UninterruptibleSleep::sample() {
  const auto now = Clock::now();
  std::map<pid_t, Clock::time_point> in_d;
  std::error_code gone;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/task", gone)) {
    ++samples_;
    if (state_of(task.path() / "stat") != 'D') continue;
    const pid_t thread = std::stoi(task.path().filename());
    const auto before = since_.find(thread);
    const auto since = before == since_.end() ? last_ : before->second;
    in_d.emplace(thread, since);
    longest_ = std::max(longest_, std::chrono::ceil<std::chrono::milliseconds>(now - since));
  }
  since_ = std::move(in_d);
  last_ = now;
}

}  // namespace nvr::demo
