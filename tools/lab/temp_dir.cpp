#include "tools/lab/temp_dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <filesystem>

#include "tools/lab/failure.h"

namespace nvr::lab {

TempDir::TempDir(std::string parent) {
  const char* const usual = getenv("TMPDIR");
  if (parent.empty()) parent = usual != nullptr && *usual == '/' ? usual : "/tmp";
  path_ = parent + "/nvr-lab-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) throw Failure("cannot create " + path_ + ": " + strerror(errno));
  if (chmod(path_.c_str(), 0755) != 0) throw Failure("cannot chmod " + path_);
}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
  if (error) report_late_failure("cannot remove " + path_ + ": " + error.message());
}

}  // namespace nvr::lab
