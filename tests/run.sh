#!/bin/sh
# Runs test programs, as many at a time as there are processors, and adds up what they say.
#
#   tests/run.sh PROGRAM... [-- PROGRAM...]
#
# Those after -- are made and run only if the first ones pass.
# A program named fuzz_* runs for a few seconds and counts as one test. Scripts (*.sh) print a sum in
# their last line; the others are doctest programs. Output is shown only where something failed.
# Last line: N passed, N failed[, N skipped].
set -u
. "$(dirname "$0")/check.sh"

one() {  # one PROGRAM OUT OPTION: OUT/log gets its output, OUT/sum its sum
  name=$(basename "$1") log=$2/log
  case $name in
    fuzz_*) "$1" "${FUZZ_SECONDS:-3}" && echo "1 passed, 0 failed" ;;
    *.sh) "$1" "${FOCUS:-build/focus}" ;;
    *) "$1" ${3:+"$3"} ;;
  esac > "$log" 2>&1
  sum_of $? < "$log" > "$2/sum"
  read -r passed failed skipped < "$2/sum"
  [ -z "$3" ] || skipped=0  # the other part runs them
  echo "$passed $failed $skipped" > "$2/sum"
  {
    # Tests that could not run here say so.
    if [ "$failed" -eq 0 ]; then grep '^skipped: ' "$log"; else cat "$log"; fi
    printf '%-28s %s\n' "$name" "$(print_sum)"
  } > "$2/said"
  cat "$2/said"  # at once: others are running
}
if [ "${1:-}" = --one ]; then
  one "$2" "$3" "$4"
  exit 0
fi

here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
n=0
run() {
  for program; do
    case $program in
      # The emulated kernels take longest: the suite "training" and the others, side by side.
      *cuda-emulated-tests) set -- --test-suite=training --test-suite-exclude=training ;;
      *) set -- "" ;;
    esac
    for option; do
      n=$((n + 1))
      mkdir "$here/$n"
      printf '%s\0%s\0%s\0' "$program" "$here/$n" "$option" >> "$here/list"
    done
  done
  xargs -0 -n 3 -P "$(nproc 2> /dev/null || echo 1)" "$0" --one < "$here/list"
  rm "$here/list"
  passed=0 failed=0 skipped=0
  for part in "$here"/*; do
    # shellcheck disable=SC2046
    add_sum $(cat "$part/sum" || echo 0 1 0)
  done
}

first=
while [ $# -gt 0 ] && [ "$1" != -- ]; do first="$first $1" && shift; done
# shellcheck disable=SC2086
run $first
if [ $# -gt 1 ] && [ "$failed" -eq 0 ]; then
  shift
  ${MAKE:-make} --no-print-directory "$@" && run "$@" || failed=$((failed + 1))
fi
print_sum
