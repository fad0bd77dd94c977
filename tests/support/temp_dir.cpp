#include "tests/support/temp_dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/support/environment.h"

namespace nvr::test {

TempDir::TempDir() {
  const char* const base = getenv("TMPDIR");
  path_ = std::string(base != nullptr && *base == '/' ? base : "/tmp") + "/nvr-test-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) throw TestFailure("cannot create " + path_ + ": " + strerror(errno));
  if (chmod(path_.c_str(), 0755) != 0) throw TestFailure("cannot chmod " + path_);
}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
  if (error) report_late_failure("cannot remove " + path_ + ": " + error.message());
}

}  // namespace nvr::test
