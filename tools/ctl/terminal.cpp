#include "tools/ctl/terminal.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace nvr::tools {
namespace {

// Alternate screen, no cursor; and back.
constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l\x1b[2J";
constexpr std::string_view kLeave = "\x1b[0m\x1b[?25h\x1b[?1049l";

void put(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // the terminal has gone
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace

std::unique_ptr<Terminal> Terminal::take() {
  const char* const kind = std::getenv("TERM");
  if (kind == nullptr || *kind == '\0' || std::string_view(kind) == "dumb") return nullptr;
  termios before = {};
  if (isatty(STDOUT_FILENO) == 0 || tcgetattr(STDIN_FILENO, &before) != 0) return nullptr;
  std::unique_ptr<Terminal> terminal(new Terminal(before));
  terminal->enter();
  return terminal;
}

Terminal::~Terminal() {
  leave();
}

void Terminal::enter() const {
  termios quiet = before_;
  quiet.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);  // ^C and ^Z go on being signals
  quiet.c_cc[VMIN] = 0;
  quiet.c_cc[VTIME] = 0;
  tcsetattr(STDIN_FILENO, TCSADRAIN, &quiet);
  put(kEnter);
}

void Terminal::leave() const {
  put(kLeave);
  tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
}

Terminal::Size Terminal::size() const {
  winsize window = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0 || window.ws_row == 0) return {};
  return {.columns = window.ws_col, .rows = window.ws_row};
}

// Line by line, each erased behind its end: a terminal that is far away does not flicker.
void Terminal::show(const std::string& lines) const {
  std::string frame = "\x1b[H";
  for (const char c : lines) frame += c == '\n' ? std::string("\x1b[K\r\n") : std::string(1, c);
  put(frame + "\x1b[K\x1b[J");
}

char Terminal::key(bool& is_there) const {
  pollfd entry = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  is_there = true;
  if (poll(&entry, 1, 0) <= 0) return 0;
  char pressed = 0;
  const ssize_t count = read(STDIN_FILENO, &pressed, 1);
  is_there = count > 0 || (count < 0 && errno == EINTR);
  return count > 0 ? pressed : '\0';
}

}  // namespace nvr::tools
