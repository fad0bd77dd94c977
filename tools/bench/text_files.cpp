#include "tools/bench/text_files.h"

#include <errno.h>

#include <fstream>
#include <sstream>

namespace nvr::bench {

std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

Result<void> write_text(std::string_view text, const std::filesystem::path& path) {
  errno = 0;
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) return fail_errno(errno, "cannot write " + path.string());
  return {};
}

}  // namespace nvr::bench
