// A new directory, removed with all that is in it. Other users may search it (mode 0755).
#pragma once

#include <string>

namespace nvr::lab {

class TempDir {
 public:
  explicit TempDir(std::string parent = {});  // empty: TMPDIR or /tmp
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace nvr::lab
