// nvr-lab: the soak and the demonstration of a disk that stalls, each on modelled disks that it brings up.
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <random>

#include "tools/demo/demo.h"
#include "tools/lab/failure.h"
#include "tools/lab/image_disk.h"
#include "tools/lab/interrupt.h"
#include "tools/soaker/soak.h"

namespace nvr::lab {
namespace {

std::atomic<bool> interrupted = false;

void add_soak(CLI::App& app, soak::Options& options) {
  app.description(
      "Hours of bad luck in minutes: daemons with both engines on a disk that stalls, delays and errs at "
      "random,\nclients that open, cancel, hold and are killed at random. Every byte is compared.\nExit 0 "
      "only if no byte was wrong, every error had its reason, all clients got on whenever the disk was "
      "well,\n"
      "and the daemons were in the end as before the first client: descriptors, threads, connections, "
      "memory.");
  app.add_option("--minutes", options.minutes)->check(CLI::Range(0.01, 1e5))->capture_default_str();
  app.add_option("--engine", options.engine, "both: on the same disk")
      ->check(CLI::IsMember({"mmap", "io_uring", "both"}))
      ->capture_default_str();
  app.add_option("--clients", options.clients, "Of each daemon")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of everything that is left to chance here");
}

void add_demo(CLI::App& app, demo::Options& options) {
  app.description(
      "Viewers on two disks, one of which stalls for a while.\nExit 0 only if every byte was right, all were "
      "told in time, disk B's viewers noticed nothing, and no client\nthread waited for the disk in "
      "uninterruptible sleep. Beside them a process reads disk A by itself, to show the difference.");
  app.add_option("--engine", options.engine, "Of both daemons")
      ->check(CLI::IsMember({"mmap", "io_uring"}))
      ->capture_default_str();
  const auto add_seconds = [&](const char* name, double& seconds, const char* text) {
    app.add_option(name, seconds, text)->check(CLI::Range(1, 600))->capture_default_str();
  };
  add_seconds("--before", options.before_s, "Seconds before the stall");
  add_seconds("--stall", options.stall_s, "Seconds that it lasts");
  add_seconds("--after", options.after_s, "Seconds after it");
  app.add_option("--viewers", options.viewers, "On each disk")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--rate", options.rate_mb_s, "MB/s that each plays")
      ->check(CLI::Range(0.1, 100.0))
      ->capture_default_str();
  app.add_option("--csv", options.csv_path, "Where to write the figures, for tools/demo/plot")
      ->capture_default_str();
}

int run(int argc, char** argv) {
  soak::Options soak = {.seed = std::random_device()()};
  demo::Options demo;
  CLI::App app("Trials of nvr-readerd on disks that fail. Root only.", "nvr-lab");
  app.require_subcommand(1);
  CLI::App* const soak_command = app.add_subcommand("soak");
  add_soak(*soak_command, soak);
  add_demo(*app.add_subcommand("stall-demo"), demo);
  CLI11_PARSE(app, argc, argv);
  try {
    if (const auto reason = ImageDisk::missing()) throw Failure(*reason);
    catch_interrupts();
    const bool good = soak_command->parsed() ? soak::run(soak) : demo::run(demo);
    return good && !has_late_failures() ? 0 : 1;
  } catch (const std::exception& failure) {
    fmt::print(stderr, "nvr-lab: {}\n", failure.what());
    return 1;
  }
}

}  // namespace

void catch_interrupts() {
  for (const int number : {SIGINT, SIGTERM}) signal(number, [](int) { interrupted = true; });
}

bool is_interrupted() {
  return interrupted;
}

}  // namespace nvr::lab

int main(int argc, char** argv) {
  return nvr::lab::run(argc, argv);
}
