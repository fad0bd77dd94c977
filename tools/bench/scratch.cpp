#include "tools/bench/scratch.h"

#include <errno.h>
#include <stdlib.h>

#include <string>
#include <system_error>

namespace nvr::bench {

Result<ScratchDirectory> ScratchDirectory::create(const std::filesystem::path& parent) {
  std::string name = (parent / "nvr-bench-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr)
    return fail_errno(errno, "cannot make a directory in " + parent.string());
  return ScratchDirectory(name);
}

ScratchDirectory::~ScratchDirectory() {
  if (path_.empty()) return;
  std::error_code ignored;  // what is left is in a directory for temporary files
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace nvr::bench
