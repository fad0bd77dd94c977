#include "daemon/build_facts.h"

#include <linux/version.h>

#include "daemon/sandbox.h"
#include "daemon/version.h"
#include "shm/protocol.h"

namespace nvr::daemon {
namespace {

// Of the kernel whose headers it was built with: newer ones are asked for by their numbers at run time.
std::string kernel_headers() {
  return std::to_string(LINUX_VERSION_MAJOR) + "." + std::to_string(LINUX_VERSION_PATCHLEVEL) + "." +
         std::to_string(LINUX_VERSION_SUBLEVEL);
}

}  // namespace

std::string build_facts() {
  std::string text = std::string("nvr-readerd ") + kVersion;
  text += "\nprotocol: " + std::to_string(shm::kVersionMajor) + "." + std::to_string(shm::kVersionMinor);
  text += std::string("\ncompiler: ") + kCompiler;
  text += std::string("\nbuild type: ") + kBuildType;
  if (*kSanitizers != '\0') text += std::string(", sanitizers: ") + kSanitizers;
  text += std::string("\nlibraries: liburing ") + kLiburingVersion + ", libseccomp " + kLibseccompVersion +
          ", libsystemd " + kLibsystemdVersion + ", prometheus-cpp " + kPrometheusCppVersion;
  text += "\nkernel headers: " + kernel_headers();
  text += "\nkernel features: mmap engine, io_uring engine and its restrictions, capabilities, ";
  text += sandbox_is_whole() ? "seccomp, Landlock" : "no seccomp, no Landlock (sanitizers)";
  return text;
}

}  // namespace nvr::daemon
