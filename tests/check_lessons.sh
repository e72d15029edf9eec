#!/bin/sh
# For every lesson: the tree after it builds with nothing of later lessons and passes its tests; with
# its gaps empty it builds and its test is red because of the gaps and nothing else; filled with our
# code one gap at a time it stays red until the last one, then it is green.
#
#   tests/check_lessons.sh KIT [NN ...]      all lessons, or those named
#
# Works in build/check-lessons, which grows from lesson to lesson, so that what has not changed is
# not compiled again, nor what is as in the whole project. Last line: N passed, N failed.
set -u
kit=$PWD/${1:?which kit}
shift
root=$PWD
tree=$root/build/check-lessons
# Lesson 00 is one file: no tree is made for it.
all=$(sed -n 's/.*"folder": *"\([0-9]*\)-.*/\1/p' lessons/manifest.json | grep -v 00)
lessons=${*:-$all}
. tests/check.sh
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

failing() { tail -n 30 "$log"; bad "$@"; }

build() {  # build TARGET...: libraries anew, so that they hold nothing of another lesson
  (cd "$tree" && rm -f build/*.a build/stage-* build/lesson-* &&
    ${MAKE:-make} --no-print-directory NVCC= WERROR=1 "$@") > "$log" 2>&1
}
run() { (cd "$tree" && timeout 300 build/stage-"$1" --no-colors) > "$log" 2>&1; }

for nn in $lessons; do
  "$kit" snapshot "$nn" "$tree" && tests/reuse_objects.sh "$tree" || { failing "lesson $nn: no snapshot"; continue; }
  stages=
  for n in $all; do [ "$n" -gt "$nn" ] || stages="$stages build/stage-$n"; done
  # shellcheck disable=SC2086
  if build all $stages; then
    red=
    for n in $all; do [ "$n" -gt "$nn" ] || run "$n" || red="$red $n"; done
    [ -z "$red" ] && ok "lesson $nn: builds with earlier lessons only and passes" || failing "lesson $nn: its snapshot fails stage$red"
  else
    failing "lesson $nn: its snapshot does not build"
    continue
  fi

  "$kit" snapshot --stubs "$nn" "$tree" || { failing "lesson $nn: no stubs"; continue; }
  gaps=$("$kit" hints "$nn" | awk -F'\t' '$2 == "place" {print $1}')
  count=$(echo "$gaps" | wc -l)
  step=0
  for gap in $gaps ""; do
    build "build/stage-$nn" || { failing "lesson $nn: with $step of $count gaps filled it does not build"; break; }
    if [ $step -eq "$count" ]; then
      run "$nn" && ok "lesson $nn: is green with all $count gaps filled" || failing "lesson $nn: filled with our code it is red"
      break
    fi
    if run "$nn"; then
      failing "lesson $nn: is green with only $step of $count gaps filled"
    elif grep -q '^  FAIL' "$log" || ! grep -q "^  EMPTY lesson $nn: the gap '" "$log"; then
      failing "lesson $nn: with $step of $count gaps filled it is red for another reason than an empty gap"
    else
      ok "lesson $nn: with $step of $count gaps filled is red: $(sed -n "s/^  EMPTY .*the gap '\([^']*\)'.*/\1/p" "$log" | sort -u | tr '\n' ' ')"
    fi
    (cd "$root" && "$kit" fill "$tree" "$gap") || failing "lesson $nn: cannot fill $gap"
    step=$((step + 1))
  done
done
print_sum
