// The daemon's configuration file: whatever it accepts keeps to the documented bounds, and --print-config
// writes a file that means the same.
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/metrics_address.h"
#include "daemon/options.h"
#include "daemon/options_text.h"
#include "shm/unique_fd.h"
#include "tests/fuzz/target.h"

namespace nvr::test {
namespace {

Result<daemon::Options> read_text(std::string_view text) {
  const shm::UniqueFd file(memfd_create("configuration", MFD_CLOEXEC));
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail(Code::kInternal, "cannot write the file");
  return daemon::read_config("/proc/self/fd/" + std::to_string(file.get()));
}

bool is_within(std::uint64_t value, std::uint64_t low, std::uint64_t high) {
  return value >= low && value <= high;
}

void check_bounds(const daemon::Options& options, Judgement& judgement) {
  const auto& o = options;
  judgement.require(!o.directory.empty() && !o.socket_path.empty(), "without --dir or --socket");
  judgement.require(o.engine == "mmap" || o.engine == "io_uring" || o.engine == "auto", "an unknown engine");
  judgement.require(is_within(o.slow_operation_ms, 1, 3'600'000), "--slow-op-ms");
  judgement.require(o.fail_fast_s <= 3'600, "--fail-fast");
  judgement.require(is_within(o.max_clients, 1, 4096), "--max-clients");
  judgement.require(is_within(o.max_clients_per_uid, 1, o.max_clients), "--max-clients-per-uid");
  judgement.require(o.connects_per_second <= 1'000'000, "--connects-per-second");
  judgement.require(o.client_memory_bytes > 0 && o.total_memory_bytes > 0, "no memory");
  judgement.require(o.io_depth <= 64 && o.reserve_percent <= 90, "--io-depth or --reserve");
  judgement.require(o.metrics.empty() || daemon::MetricsAddress::parse(o.metrics).has_value(), "--metrics");
}

void run(std::span<const std::byte> input, Judgement& judgement) {
  const auto options = read_text(text_of(input));
  if (!options) {
    judgement.require(!options.error().message.empty(), "refused without a word");
    return judgement.reach("refused");
  }
  judgement.reach("accepted");
  if (!options->allowed_uids.empty()) judgement.reach("allow-uid");
  if (!options->metrics.empty()) judgement.reach("metrics");
  if (options->client_memory_bytes != daemon::Options().client_memory_bytes) judgement.reach("a size");
  if (!options->sandbox) judgement.reach("a flag");
  if (options->device_kind != daemon::DeviceKind::kAuto) judgement.reach("a word of several");
  check_bounds(*options, judgement);
  const std::string printed = daemon::as_config(*options);
  const auto again = read_text(printed);
  if (!again)
    judgement.object("what is printed is refused: " + again.error().message + "\n" + printed);
  else if (daemon::as_config(*again) != printed)
    judgement.object("what is printed means something else:\n" + printed + "---\n" +
                     daemon::as_config(*again));
}

}  // namespace

const FuzzTarget configuration_target = {
    "configuration",
    run,
    {"refused", "accepted", "allow-uid", "metrics", "a size", "a flag", "a word of several"}};

}  // namespace nvr::test
