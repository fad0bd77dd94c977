#include "daemon/memory_budget.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <utility>

#include "daemon/mount_info.h"

namespace nvr::daemon {
namespace {

// A cgroup file system that limits memory.
struct Hierarchy {
  std::string root;         // of the file system, what is mounted: "/", or a container's cgroup
  std::string mount_point;  // where
  bool is_v2 = false;
};

std::optional<Hierarchy> hierarchy_of(const MountInfo& mount) {
  const bool is_v2 = mount.type == "cgroup2";
  const bool is_v1 =
      mount.type == "cgroup" && ("," + mount.options + ",").find(",memory,") != std::string::npos;
  if (!is_v2 && !is_v1) return std::nullopt;
  return Hierarchy{.root = mount.root, .mount_point = mount.mount_point, .is_v2 = is_v2};
}

// Where the process is in the hierarchy: "0::/user.slice" (v2), "4:memory:/docker/1" (v1).
std::optional<std::string> path_in(const Hierarchy& hierarchy, const std::string& proc) {
  std::ifstream cgroups(proc + "/cgroup");
  for (std::string line; std::getline(cgroups, line);) {
    const auto controllers = line.find(':');
    const auto path = line.find(':', controllers + 1);
    if (controllers == std::string::npos || path == std::string::npos) continue;
    const std::string names = "," + line.substr(controllers + 1, path - controllers - 1) + ",";
    if (hierarchy.is_v2 ? names == ",," : names.find(",memory,") != std::string::npos)
      return line.substr(path + 1);
  }
  return std::nullopt;
}

std::uint64_t limit_in(const std::string& directory, bool is_v2) {
  std::ifstream file(directory + (is_v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  std::uint64_t bytes = 0;
  return file >> bytes ? bytes : UINT64_MAX;  // "max", or none
}

// Of the process's cgroup and its ancestors, as far as they can be seen.
std::uint64_t least_limit(const Hierarchy& hierarchy, std::string path) {
  // Without a cgroup namespace of its own a container sees its own cgroup mounted, and its path from the
  // host's root.
  if (hierarchy.root != "/" && path.starts_with(hierarchy.root)) path.erase(0, hierarchy.root.size());
  std::uint64_t least = UINT64_MAX;
  for (;;) {
    least = std::min(least, limit_in(hierarchy.mount_point + path, hierarchy.is_v2));
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return least;
    path.erase(slash);
  }
}

}  // namespace

std::uint64_t available_memory_bytes(const std::string& proc) {
  std::uint64_t bytes =
      static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  std::ifstream mounts(proc + "/mountinfo");
  for (std::string line; std::getline(mounts, line);)
    if (const auto hierarchy = hierarchy_of(parse_mount_info(line)))
      if (auto path = path_in(*hierarchy, proc))
        bytes = std::min(bytes, least_limit(*hierarchy, std::move(*path)));
  return bytes;
}

}  // namespace nvr::daemon
