#include "daemon/mount_info.h"

#include <sstream>

namespace nvr::daemon {
namespace {

std::string unescape(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && text.find_first_not_of("01234567", i + 1) >= i + 4 && i + 3 < text.size()) {
      plain += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

}  // namespace

// "36 35 0:31 /root /mount/point options optional... - type source super-options"
MountInfo parse_mount_info(const std::string& line) {
  MountInfo mount;
  std::istringstream fields(line);
  std::string skipped;
  fields >> mount.id >> skipped >> mount.device >> mount.root >> mount.mount_point;
  while (fields >> skipped && skipped != "-") continue;
  fields >> mount.type >> mount.source >> mount.options;
  for (std::string* const text : {&mount.root, &mount.mount_point, &mount.source, &mount.options})
    *text = unescape(*text);
  return mount;
}

}  // namespace nvr::daemon
