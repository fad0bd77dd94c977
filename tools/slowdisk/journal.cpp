#include "tools/slowdisk/journal.h"

#include <errno.h>
#include <fmt/format.h>

#include <utility>

namespace nvr::slowdisk {
namespace {

double seconds(Time time) {
  return std::chrono::duration<double>(time).count();
}
double milliseconds(Time time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::create(const std::string& path, Time start) {
  File file(path.empty() ? nullptr : std::fopen(path.c_str(), "we"));
  if (!path.empty() && !file) return fail_errno(errno, "cannot write the log " + path);
  auto journal = std::unique_ptr<Journal>(new Journal(std::move(file), start));
  journal->line("# arrived_s operation offset length wait_ms service_ms late_ms result faults file");
  return journal;
}

void Journal::request(const Service& service, Time answered) {
  if (!file_) return;
  const Request& request = service.request;
  const Verdict& verdict = service.verdict;
  std::string result = "ok";
  if (verdict.error != 0) {
    result = verdict.error == EIO ? "EIO" : fmt::format("errno={}", verdict.error);
  } else if (verdict.length < request.length) {
    result = fmt::format("short={}", verdict.length);
  }
  line(fmt::format("{:.6f} {} {} {} {:.3f} {:.3f} {:.3f} {} {} {}", seconds(request.arrived - start_),
                   name_of(request.operation), request.offset, request.length,
                   milliseconds(service.begun - request.arrived),
                   milliseconds(service.finishes - service.begun), milliseconds(answered - service.finishes),
                   result, verdict.faults.empty() ? "-" : verdict.faults,
                   request.file.empty() ? "-" : request.file));
}

void Journal::order(std::string_view text, Time now) {
  line(fmt::format("# {:.6f} order: {}", seconds(now - start_), text));
}

// Flushed line by line, so that a log can be followed, and is whole after a crash.
void Journal::line(const std::string& text) {
  if (!file_) return;
  const std::scoped_lock lock(mutex_);
  std::fputs((text + '\n').c_str(), file_.get());
  std::fflush(file_.get());
}

}  // namespace nvr::slowdisk
