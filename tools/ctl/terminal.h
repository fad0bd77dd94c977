// A terminal that a program paints: its alternate screen, without echo and line editing. The destructor gives
// the terminal back as it was.
#pragma once

#include <termios.h>

#include <cstddef>
#include <memory>
#include <string>

namespace nvr::tools {

class Terminal {
 public:
  // Of standard input and output. Null where they are no terminal, or one that cannot be painted
  // (TERM=dumb).
  [[nodiscard]] static std::unique_ptr<Terminal> take();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal();

  struct Size {
    std::size_t columns = 80;
    std::size_t rows = 24;
  };
  [[nodiscard]] Size size() const;
  // Replaces what is shown. `lines`: at most as many and as long as size() says, but for colours.
  void show(const std::string& lines) const;
  // A key that was pressed, without waiting; 0: none. False in `is_there`: the terminal has gone.
  [[nodiscard]] char key(bool& is_there) const;

  // For as long as somebody else has the terminal (job control).
  void leave() const;
  void enter() const;

 private:
  explicit Terminal(const termios& before) : before_(before) {}

  termios before_;
};

}  // namespace nvr::tools
