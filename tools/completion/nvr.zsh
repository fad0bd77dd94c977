# Completion in zsh for nvr-readerd and its tools. As in bash (nvr.bash) it asks the program itself, by --help.
local help commands command= value_of= word name placeholder
local -a matches
help=$($words[1] --help 2> /dev/null) || return 1

_nvr_placeholder() {  # NAME: of its value, as "PATH" or "ENGINE:{mmap,io_uring}=mmap"; nothing for flags
  awk -v name="$1 " '{ sub(/^  (-h,)?/, "") } index($0, name) == 1 && substr($0, length(name) + 1, 1) != " " {
    $0 = substr($0, length(name) + 1); sub(/  .*/, ""); print; exit }' <<< $help
}
_nvr_names() {  # SECTION: the first word of each line of it
  awk -v section="$1:" '$0 == section { on = 1; next } /^$/ { on = 0 } on && /^  [A-Za-z]/ { print $1 }' <<< $help
}
_nvr_offer() {  # PLACEHOLDER
  if [[ $1 == *\{*\}* ]]; then
    matches=(${(s:,:)${${1#*\{}%%\}*}})
    compadd -- ${matches%%->*}
  elif [[ $1 == [a-z]*\|* ]]; then
    compadd -- ${(s:|:)${1%% *}}
  else
    case $1 in
      *DIR*) _files -/ ;;
      *PATH* | *FILE* | *TEXT*) _files ;;
    esac
  fi
}

commands=" ${(j: :)${(f)$(_nvr_names Subcommands)}} "
for word in ${words[2,CURRENT-1]}; do
  if [[ -n $value_of ]]; then
    value_of=
  elif [[ $word == --* ]]; then
    value_of=$(_nvr_placeholder $word)
  elif [[ -z $command && $commands == *" $word "* ]]; then
    command=$word
    help=$($words[1] $command --help 2> /dev/null) || return 1
  fi
done

if [[ -n $value_of ]]; then
  _nvr_offer $value_of
elif [[ $PREFIX == --*=* ]]; then
  name=${PREFIX%%=*}
  compset -P '*='
  _nvr_offer "$(_nvr_placeholder $name)"
elif [[ $PREFIX == -* ]]; then
  compadd -- ${(f)"$(sed -n 's/^  \(-h,\)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p' <<< $help)"}
elif [[ -n ${commands// } && -z $command ]]; then
  compadd -- ${=commands}
else
  placeholder=
  for name in ${(f)"$(_nvr_names Positionals)"}; do
    placeholder+=$(_nvr_placeholder $name)
  done
  _nvr_offer $placeholder
fi
