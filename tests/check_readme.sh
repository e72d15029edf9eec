#!/bin/sh
# The commands of README.md and of the lessons' pages: every `make TARGET` names a target that exists,
# and README's "The program" is run line by line as it is written. Training that would take hours is
# interrupted after a while, as a user would with Ctrl-C; the lines after it must work with what it
# left. Last line: N passed, N failed.
#
#   tests/check_readme.sh FOCUS
set -u
focus=$PWD/${1:?which focus}
root=$PWD
here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
. tests/check.sh

unset MAKEFLAGS MFLAGS MAKELEVEL 2> /dev/null
# In code blocks (indented or fenced) and in `…`, comments and variables dropped.
for target in $(cat README.md data/README.md lessons/[0-9]*/README.md lessons/[0-9]*/NOTES.md |
  grep -oE '(^|`|    )(MODE=[a-z]+ )?make [a-z][^`#]*' | sed 's/.*make //' | tr ' ' '\n' |
  grep -E '^[a-z-]+(-[0-9]{2})?$' | sort -u); do
  if make -n "$target" > "$here/log" 2>&1 || ! grep -q 'No rule to make target' "$here/log"; then
    ok "make $target exists"
  else
    bad "make $target: $(cat "$here/log")"
  fi
done

sed -n '/^## The program/,/^## /p' README.md | sed -n '/^```sh/,/^```/p' | grep -v '^```' |
  sed 's/ *#.*//' > "$here/commands"
[ -s "$here/commands" ] || bad "README.md has no commands under 'The program'"
mkdir "$here/build" && ln -s "$focus" "$here/build/focus" && ln -s "$root/tests" "$root/lessons" "$root/data" "$here"
cd "$here" || exit 2
while read -r command; do
  case $command in
    *" train "* | *" resume "*) sh -c "exec timeout -s INT 25 $command" > log 2>&1 < /dev/null ;;
    *) sh -c "$command" > log 2>&1 < /dev/null ;;
  esac
  status=$?
  case $status in
    0 | 124 | 130) ok "$command" ;;
    *) cat log; bad "$command: status $status" ;;
  esac
done < commands
print_sum
