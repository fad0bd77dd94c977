#include "tools/slowdisk/options.h"

#include <functional>
#include <map>
#include <vector>

#include "tools/common/command_line.h"

namespace nvr::slowdisk {
namespace {

constexpr const char* kAbout =
    R"(Serves an image file, or a directory, as the spinning disk of your nightmares: with seeks, rotation, one head
and a queue, at the speed of a real disk, and with faults that are switched while it runs. No kernel module, no
real disk is touched.

  nvr-slowdisk serve disk.img /mnt/device --control /tmp/control &      # /mnt/device/disk is the disk
  losetup --direct-io=on --find --show /mnt/device/disk                 # a block device of it; mkfs, mount, ...
  nvr-slowdisk order /tmp/control stall                                 # nothing comes off the disk any more
  nvr-slowdisk order /tmp/control resume

tools/slow-disk does all of this, with ext4 on top, and takes it down again.)";

constexpr const char* kServeFooter =
    R"(An image is written to as well: writes take no time, unless --model-writes. A directory is read-only; its files
lie anywhere on a disk of --capacity, always at the same place for the same --seed.
One request in the log: when it came (seconds since the start), what, offset, length, how long it waited for the
head and took (ms), how late this program was with the answer (ms; if that is much, the machine is too busy for the
model to hold), how it ended, which faults struck. The same requests at the same times get the same times and
faults for the same --seed.
Ends on SIGTERM, SIGINT, or when it is unmounted; what hangs then fails.)";

// An option whose text one of the parse_ functions understands.
template <class T>
CLI::Option* add_parsed(CLI::App& app, const std::string& name, T& target,
                        Result<T> (*parse)(std::string_view), const std::string& description) {
  const CLI::callback_t read = [&target, parse, name](const std::vector<std::string>& words) {
    const auto value = parse(words.at(0));
    if (!value) throw CLI::ValidationError(name, value.error().message);
    target = *value;
    return true;
  };
  return app.add_option(name, read, description);
}

void add_model(CLI::App& app, DiskOptions& disk, std::uint64_t& capacity_bytes) {
  static const std::map<std::string, Policy> kPolicies = {
      {"elevator", Policy::kElevator}, {"nearest", Policy::kNearest}, {"fifo", Policy::kFifo}};
  MechanicsOptions& mechanics = disk.mechanics;
  const auto group = [](CLI::Option* option, const char* text) {
    option->group("The disk")->option_text(text);
  };
  group(add_parsed(app, "--seek", mechanics.seek_average, parse_time,
                   "Average seek, between two random places (8.5ms). Longer for longer ways"),
        "TIME");
  group(add_parsed(app, "--seek-shortest", mechanics.seek_shortest, parse_time, "To the next track (1ms)"),
        "TIME");
  group(add_parsed(app, "--rotation", mechanics.rotation_average, parse_time,
                   "Average wait for the sector after a seek (4.2ms: 7200/min); up to twice that"),
        "TIME");
  group(add_parsed(app, "--bandwidth", mechanics.bandwidth_bytes_per_s, parse_size,
                   "Bytes per second from under the head (160MB); 0: no limit"),
        "SIZE");
  group(add_parsed(app, "--lookahead", mechanics.lookahead_bytes, parse_size,
                   "What the drive reads on into its own buffer (1M)"),
        "SIZE");
  group(add_parsed(app, "--capacity", capacity_bytes, parse_size,
                   "Size of the disk, which seeks are measured by (image: its size; directory: 1T)"),
        "SIZE");
  group(app.add_option("--queue", disk.queue.policy, "Which request is next (default: elevator)")
            ->transform(CLI::Transformer(kPolicies))
            ->check(CLI::IsMember({Policy::kElevator, Policy::kNearest, Policy::kFifo})),
        "elevator|nearest|fifo");
  group(app.add_option("--queue-depth", disk.queue.depth, "Requests that it can choose from (32)")
            ->check(CLI::PositiveNumber),
        "N");
  group(add_parsed(app, "--longest-wait", disk.queue.longest_wait, parse_time,
                   "A request that has waited longer is next (1s)"),
        "TIME");
  group(app.add_option("--seed", mechanics.seed, "Of everything that is left to chance (1)"), "N");
  app.add_flag("--model-writes", disk.model_writes, "Writes take time and move the head as well")
      ->group("The disk");
}

}  // namespace

tl::expected<Options, int> parse_options(int argc, char** argv) {
  Options options;
  std::vector<std::string> words;
  CLI::App app(kAbout, "nvr-slowdisk");
  app.require_subcommand(1);
  app.footer(std::string(kOrderHelp) + "\nExit codes: 0 done, 1 it could not be done, 2 usage.");

  auto* const serve =
      app.add_subcommand("serve", "Serves an image file or a directory, until it is told to end");
  serve->add_option("SOURCE", options.source, "The image file, or the directory")->required();
  serve
      ->add_option("MOUNTPOINT", options.mountpoint,
                   "An empty directory: an image appears in it as the file \"disk\"")
      ->required();
  serve->add_option("--control", options.control, "Takes orders at this socket, which it makes")
      ->option_text("PATH");
  serve->add_option("--log", options.log, "Writes a line for each request to this file")->option_text("FILE");
  serve->add_flag("--direct-io", options.direct_io,
                  "Directory: nothing is cached, every read comes to the disk (an image never is)");
  serve->add_flag("--forget-at-open", options.forget_at_open,
                  "Directory: an open drops what is cached of the file, and waits for its reads under way");
  add_model(*serve, options.disk, options.capacity_bytes);
  serve->footer(kServeFooter);

  auto* const order = app.add_subcommand("order", "Tells a running one what to do wrong");
  order->add_option("CONTROL", options.control, "The socket that it was given with --control")->required();
  order->add_option("ORDER", words, "One order, see below")->required();
  order
      ->add_option("--mounted-at", options.mounted_at,
                   "Image: where its file system is mounted, so that orders can name files in it")
      ->option_text("DIR");
  order->footer(kOrderHelp);

  if (const auto code = tools::parse_command_line(app, argc, argv)) return tl::unexpected(*code);
  options.command = serve->parsed() ? Options::Command::kServe : Options::Command::kOrder;
  for (const std::string& word : words) {
    // One word is a whole order; of several, those with blanks in them are names.
    const bool is_name = words.size() > 1 && word.find(' ') != std::string::npos;
    options.order += (options.order.empty() ? "" : " ") + (is_name ? '"' + word + '"' : word);
  }
  return options;
}

}  // namespace nvr::slowdisk
