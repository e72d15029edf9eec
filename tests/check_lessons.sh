#!/bin/sh
# For every lesson: the tree after it builds with nothing of later lessons and passes its tests; with
# its gaps empty it builds and its test is red because of the gaps and nothing else; our code in all
# of them makes the tree that passed. (With some gaps filled: tests/check_mistakes.sh, which needs not
# compile for that.)
#
#   tests/check_lessons.sh KIT [NN ...]      all lessons, or those named
#
# Works in build/check-lessons, which grows from lesson to lesson, so that what has not changed is
# not compiled again, nor what is as in the whole project; a test that is the same program as in the
# lesson before is not run again. Last line: N passed, N failed.
set -u
kit=$PWD/${1:?which kit}
shift
root=$PWD
tree=$root/build/check-lessons
# Lesson 00 is one file: no tree is made for it.
all=$(sed -n 's/.*"folder": *"\([0-9]*\)-.*/\1/p' lessons/manifest.json | grep -v 00)
lessons=${*:-$all}
. tests/check.sh
here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
log=$here/log
once=  # as in the checkout: where they are, the Makefile uses them
[ ! -e build/obj/std.h.gch ] || once="build/obj/std.h.gch build/obj/calm.h.gch"

failing() { tail -n 30 "$log"; bad "$@"; }

build() {  # build TARGET...: libraries anew, so that they hold nothing of another lesson
  (cd "$tree" && rm -f build/*.a &&
    ${MAKE:-make} --no-print-directory NVCC= WERROR=1 "$@") > "$log" 2>&1
}
run() { (cd "$tree" && timeout 300 build/stage-"$1" --no-colors) > "$log" 2>&1; }
passes() {  # passes NN: as run, but for a program that has passed before
  program=$(sha1sum < "$tree/build/stage-$1")
  grep -qsxF "$program" "$here/passed" || { run "$1" && echo "$program" >> "$here/passed"; }
}
# The files with gaps, without the lines that are in students' trees only.
gap_files() {  # gap_files FOLDER
  for file in $files; do
    echo "$file"
    grep -v '^ *// ---- \(end of \)\{0,1\}gap \|^#include "gap.h"$' "$1/$file"
  done
}

for nn in $lessons; do
  "$kit" snapshot "$nn" "$tree" && tests/reuse_objects.sh "$tree" || { failing "lesson $nn: no snapshot"; continue; }
  stages=
  for n in $all; do [ "$n" -gt "$nn" ] || stages="$stages build/stage-$n"; done
  # shellcheck disable=SC2086
  if { [ -z "$once" ] || build $once; } && build all $stages; then
    red=
    for n in $all; do [ "$n" -gt "$nn" ] || passes "$n" || red="$red $n"; done
    [ -z "$red" ] && ok "lesson $nn: builds with earlier lessons only and passes" || failing "lesson $nn: its snapshot fails stage$red"
  else
    failing "lesson $nn: its snapshot does not build"
    continue
  fi

  gaps=$("$kit" hints "$nn" | awk -F'\t' '$2 == "place" {print $1}')
  files=$("$kit" hints "$nn" | awk -F'\t' '$2 == "place" {print $3}' | sort -u)
  gap_files "$tree" > "$here/complete"
  "$kit" snapshot --stubs "$nn" "$tree" || { failing "lesson $nn: no stubs"; continue; }
  # What is empty is seen just as well in code that is not optimised, and compiles in half the time.
  if ! build "build/stage-$nn" ONCE= FLAGS_release="-O0 -DNDEBUG"; then failing "lesson $nn: with its gaps empty it does not build"
  elif run "$nn"; then failing "lesson $nn: is green with its gaps empty"
  elif grep -q '^  FAIL' "$log" || ! grep -q "^  EMPTY lesson $nn: the gap '" "$log"; then
    failing "lesson $nn: with its gaps empty it is red for another reason"
  else ok "lesson $nn: with its gaps empty is red: $(sed -n "s/^  EMPTY .*the gap '\([^']*\)'.*/\1/p" "$log" | sort -u | tr '\n' ' ')"
  fi
  for gap in $gaps; do "$kit" fill "$tree" "$gap" > "$log" 2>&1 || failing "lesson $nn: cannot fill $gap"; done
  gap_files "$tree" > "$here/filled"
  check "lesson $nn: our code in its gaps makes the tree that passed" cmp "$here/complete" "$here/filled"
done
print_sum
