# What a program's --help says that it takes: the truth that manual pages and completion are compared with. To be sourced.

# commands_of PROGRAM
commands_of() {
  "$1" --help | awk '/^Subcommands:/ { on = 1; next } /^$/ { on = 0 } on && /^  [a-z]/ { print $1 }'
}
# options_of PROGRAM [COMMAND]: the long ones, in order; a command's own, without --help
options_of() {
  "$@" --help | sed -n 's/^  \(-[a-zA-Z],\)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p' |
    if [ $# -gt 1 ]; then grep -vx -- --help || :; else cat; fi
}
