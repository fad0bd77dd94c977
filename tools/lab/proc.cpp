#include "tools/lab/proc.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tools/lab/failure.h"
#include "tools/lab/wait.h"

namespace nvr::lab {
namespace {

constexpr std::uint64_t kPrivateSlackKib = scaled(16u << 10, 512u << 10);  // sanitizers keep what was freed
constexpr std::size_t kMappingSlack = scaled(8u, 100000u);

std::string of(pid_t pid, std::string_view file) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(file);
}

std::vector<std::string> entries_of(const std::string& directory) {
  std::vector<std::string> names;
  DIR* const dir = opendir(directory.c_str());
  if (dir == nullptr) return names;
  const std::string own = directory == of(getpid(), "fd") ? std::to_string(dirfd(dir)) : "";
  while (const dirent* const entry = readdir(dir)) {
    if (entry->d_name[0] != '.' && entry->d_name != own) names.emplace_back(entry->d_name);
  }
  closedir(dir);
  return names;
}

bool is_beneath(std::string_view path, std::string_view directory) {
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

bool is_shared(const MapEntry& entry) {
  return entry.permissions.ends_with('s');
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::map<int, std::string> descriptors_of(pid_t pid) {
  std::map<int, std::string> descriptors;
  for (const std::string& name : entries_of(of(pid, "fd"))) {
    char target[PATH_MAX];
    const ssize_t length = readlink(of(pid, "fd/" + name).c_str(), target, sizeof(target));
    if (length < 0) continue;  // closed meanwhile
    descriptors[std::atoi(name.c_str())] = std::string(target, static_cast<std::size_t>(length));
  }
  return descriptors;
}

std::size_t descriptors_beneath(pid_t pid, std::string_view directory) {
  const auto descriptors = descriptors_of(pid);
  return static_cast<std::size_t>(std::ranges::count_if(
      descriptors, [&](const auto& descriptor) { return is_beneath(descriptor.second, directory); }));
}

std::vector<MapEntry> mappings_of(pid_t pid) {
  std::vector<MapEntry> entries;
  std::istringstream maps(read_file(of(pid, "maps")));
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    MapEntry entry;
    std::string offset, device, inode;
    char dash = 0;
    fields >> std::hex >> entry.begin >> dash >> entry.end >> entry.permissions >> offset >> device >> inode;
    std::getline(fields >> std::ws, entry.name);
    entries.push_back(entry);
  }
  return entries;
}

std::size_t mappings_beneath(pid_t pid, std::string_view directory) {
  const auto mappings = mappings_of(pid);
  return static_cast<std::size_t>(std::ranges::count_if(
      mappings, [&](const MapEntry& entry) { return is_beneath(entry.name, directory); }));
}

std::vector<pid_t> thread_ids_of(pid_t pid) {
  std::vector<pid_t> threads;
  for (const std::string& name : entries_of(of(pid, "task"))) threads.push_back(std::atoi(name.c_str()));
  std::ranges::sort(threads);
  return threads;
}

char state_of_thread(pid_t pid, pid_t thread) {
  const std::string stat = read_file(of(pid, "task/" + std::to_string(thread) + "/stat"));
  const auto end_of_name = stat.rfind(')');  // the name may contain anything
  return end_of_name == std::string::npos || end_of_name + 2 >= stat.size() ? '?' : stat[end_of_name + 2];
}

std::vector<std::string> threads_of(pid_t pid) {
  std::vector<std::string> names;
  for (const pid_t thread : thread_ids_of(pid)) {
    std::string name = read_file(of(pid, "task/" + std::to_string(thread) + "/comm"));
    while (name.ends_with('\n')) name.pop_back();
    if (!name.starts_with("iou-")) names.push_back(name);
  }
  return names;
}

std::uint64_t status_number(pid_t pid, std::string_view key) {
  std::istringstream status(read_file(of(pid, "status")));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(std::string(key) + ":"))
      return std::strtoull(line.c_str() + key.size() + 1, nullptr, 10);
  }
  return 0;
}

bool has_runnable_thread(pid_t pid) {
  return std::ranges::any_of(thread_ids_of(pid),
                             [pid](pid_t thread) { return state_of_thread(pid, thread) == 'R'; });
}

Footprint footprint_of(pid_t pid) {
  const auto mappings = mappings_of(pid);
  return {.descriptors = descriptors_of(pid).size(),
          .shared_mappings = static_cast<std::size_t>(std::ranges::count_if(mappings, is_shared)),
          .mappings = mappings.size(),
          .threads = threads_of(pid).size(),
          .shared_kib = status_number(pid, "RssShmem"),
          .private_kib = status_number(pid, "RssAnon")};
}

Baseline::Baseline(pid_t pid) : pid_(pid) {
  int times_equal = 0;
  const auto is_quiet = [&] {
    const Footprint now = footprint_of(pid_);
    // On a busy machine a thread with work to do may not run for long: then nothing changes, and it is not
    // over.
    times_equal = now == at_start_ && !has_runnable_thread(pid_) ? times_equal + 1 : 0;
    at_start_ = now;
    return times_equal >= 5;
  };
  if (!wait_until(is_quiet)) throw Failure("the process does not come to rest");
}

std::string Baseline::difference() const {
  const Footprint now = footprint_of(pid_);
  std::ostringstream text;
  const auto exactly = [&](const char* what, std::uint64_t before, std::uint64_t after) {
    if (before != after) text << what << " " << before << " -> " << after << "; ";
  };
  const auto at_most = [&](const char* what, std::uint64_t before, std::uint64_t after, std::uint64_t slack) {
    if (after > before + slack) text << what << " " << before << " -> " << after << "; ";
  };
  exactly("descriptors", at_start_.descriptors, now.descriptors);
  // Fewer are well: a recording's map may have been kept for its next reader at the start.
  at_most("shared mappings", at_start_.shared_mappings, now.shared_mappings, 0);
  exactly("threads", at_start_.threads, now.threads);
  exactly("resident shared KiB", at_start_.shared_kib, now.shared_kib);
  at_most("mappings", at_start_.mappings, now.mappings, kMappingSlack);
  at_most("resident private KiB", at_start_.private_kib, now.private_kib, kPrivateSlackKib);
  return text.str();
}

std::string Baseline::difference_after_waiting() const {
  std::string last;
  static_cast<void>(wait_until([&] { return (last = difference()).empty(); }));
  return last;
}

}  // namespace nvr::lab
