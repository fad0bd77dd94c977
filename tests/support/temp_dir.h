// A directory of its own for each test, removed with all that is in it. Others may search it (mode 0755), so
// that daemons and clients of other users can be tested.
#pragma once

#include <string>

namespace nvr::test {

class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace nvr::test
