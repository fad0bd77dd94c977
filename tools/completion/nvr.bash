# Completion in bash for nvr-readerd and its tools. It asks the program itself, by --help, so it has nothing to forget:
# options, commands, and the values of options whose help names them as {a,b,c} or a|b|c.

# The placeholder of an option's or positional's value in a help: "PATH", "ENGINE:{mmap,io_uring}=mmap". Nothing for flags.
_nvr_placeholder() {  # HELP NAME
  local line
  while IFS= read -r line; do
    line=${line#  } line=${line#-h,}
    if [[ $line == "$2 "[^\ ]* ]]; then
      line=${line#"$2 "}
      printf '%s' "${line%%  *}"
      return
    fi
  done <<< "$1"
}

# The values that a placeholder names; nothing if it is of another kind.
_nvr_values() {  # PLACEHOLDER
  local value values=()
  if [[ $1 =~ \{([^}]*)\} ]]; then
    IFS=, read -ra values <<< "${BASH_REMATCH[1]}"
  elif [[ $1 =~ ^[a-z][a-z0-9_|-]*\|[a-z0-9_|-]+ ]]; then
    IFS='|' read -ra values <<< "${BASH_REMATCH[0]}"
  fi
  for value in "${values[@]}"; do
    printf '%s ' "${value%%->*}"
  done
}

_nvr_names() {  # HELP SECTION: the first word of each line of it
  local line on=
  while IFS= read -r line; do
    case $line in
      "$2:") on=yes ;;
      '') on= ;;
      '  '[A-Za-z]*) [ -z "$on" ] || { line=${line#  } && printf '%s ' "${line%% *}"; } ;;
    esac
  done <<< "$1"
}

_nvr_options() {  # HELP
  local line
  while IFS= read -r line; do
    line=${line#  } line=${line#-h,}
    [[ ! $line =~ ^--[a-z][a-z-]* ]] || printf '%s ' "${BASH_REMATCH[0]}"
  done <<< "$1"
}

_nvr_offer() {  # PLACEHOLDER WORD
  local values
  values=$(_nvr_values "$1")
  if [ -n "$values" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$values" -- "$2")
    return
  fi
  case $1 in
    *DIR*) mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
    *PATH* | *FILE* | *TEXT*) mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
    *) return ;;
  esac
  compopt -o filenames
}

_nvr_complete() {
  local program=${1/#\~/$HOME} word=$2 before=() help commands command= value_of= i placeholder name
  COMPREPLY=()
  help=$("$program" --help 2> /dev/null) || return
  commands=$(_nvr_names "$help" Subcommands)

  # What stands before the cursor. Bash takes --name=value for three words.
  for ((i = 1; i < COMP_CWORD; i++)); do
    [ "${COMP_WORDS[i]}" = = ] || before+=("${COMP_WORDS[i]}")
  done
  if [ "$word" = = ]; then word=; fi
  for name in "${before[@]}"; do
    if [ -n "$value_of" ]; then
      value_of=
    elif [[ $name == --* ]]; then
      value_of=$(_nvr_placeholder "$help" "$name")
    elif [[ -z $command && " $commands" == *" $name "* ]]; then
      command=$name
      help=$("$program" "$command" --help 2> /dev/null) || return
    fi
  done

  if [ -n "$value_of" ]; then
    _nvr_offer "$value_of" "$word"
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_nvr_options "$help")" -- "$word")
  elif [ -n "$commands" ] && [ -z "$command" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
  else
    placeholder=
    for name in $(_nvr_names "$help" Positionals); do
      placeholder+=$(_nvr_placeholder "$help" "$name")
    done
    _nvr_offer "$placeholder" "$word"
  fi
}
