// The log of what the disk did: one line for each request, in the order they were answered, and one for each
// order. For people, awk and plots. Any thread.
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "tools/slowdisk/disk.h"

namespace nvr::slowdisk {

class Journal {
 public:
  // `path` empty: nothing is written. Times in the log count from `start`.
  static Result<std::unique_ptr<Journal>> create(const std::string& path, Time start);

  // `answered`: when the answer really went out, which a busy machine makes later than the model's instant.
  void request(const Service& service, Time answered);
  void order(std::string_view text, Time now);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, Close>;
  Journal(File file, Time start) : file_(std::move(file)), start_(start) {}
  void line(const std::string& text);

  std::mutex mutex_;
  File file_;
  Time start_;
};

}  // namespace nvr::slowdisk
