#!/bin/sh
# Do the stage tests catch what they should? Builds every mutant of every lesson at once (the tags
# are explained in tests/mutants.awk), then runs each lesson's stage test with no mutant, which must
# pass, and with each of its mutants, which must fail.
#
#   tests/run_mutants.sh [NN ...]      all lessons that have mutants, or those named
#
# Uses build/mutants: src there is the source with all mutants, and is compiled again only where it
# changed. A mutant that crashes or hangs the test is caught too, and said so. Exit status 0 if all
# is as it should be.
set -u
cd "$(dirname "$0")/.." || exit 2
here=build/mutants
mkdir -p "$here"

tagged=$(grep -rlE '^[[:space:]]*//@' src | LC_ALL=C sort)
[ -n "$tagged" ] || { echo "no mutants in src" >&2; exit 2; }
# shellcheck disable=SC2086
awk -v list=1 -f tests/mutants.awk $tagged > "$here/list" || exit 2
lessons=${*:-$(cut -f1 "$here/list" | LC_ALL=C sort -u)}

# --- the source with mutants: written only where it differs, so that make sees what is new ---
put() {  # put FILE: standard input becomes $here/FILE
  mkdir -p "$here/$(dirname "$1")"
  cat > "$here/new"
  cmp -s "$here/new" "$here/$1" || mv "$here/new" "$here/$1"
}
find src -name '*.h' -o -name '*.cpp' > "$here/sources"
while read -r file; do
  case " $(echo $tagged) " in
    *" $file "*) awk -f tests/mutants.awk "$file" | put "$file" ;;
    *) put "$file" < "$file" ;;
  esac
done < "$here/sources"
put src/focus_mutant.h <<'HEADER'
#pragma once
#include <cstdlib>
#include <cstring>
// Is this the mutant that the environment variable FOCUS_MUTANT names?
inline bool focus_mutant(const char* name) {
  static const char* const chosen = std::getenv("FOCUS_MUTANT");
  return chosen && std::strcmp(chosen, name) == 0;
}
HEADER
(cd "$here" && find src -name '*.h' -o -name '*.cpp') | while read -r file; do
  [ -e "$file" ] || [ "$file" = src/focus_mutant.h ] || rm "$here/$file"
done
ln -sfn ../../tests "$here/tests"

# --- one build for all ---
stages=
targets="build/libfocus.a build/obj/tests/main.o"
for nn in $lessons; do
  stage=$(echo tests/stage_"$nn"_*.cpp)
  [ -e "$stage" ] || { echo "lesson $nn has mutants but no tests/stage_${nn}_*.cpp" >&2; exit 2; }
  stages="$stages $stage"
  targets="$targets build/obj/${stage%.cpp}.o"
done
case "${MAKEFLAGS:-}" in
  *jobserver*) jobs= ;;
  *) jobs=-j$(nproc 2> /dev/null || echo 2) ;;
esac
# shellcheck disable=SC2086
${MAKE:-make} --no-print-directory $jobs -C "$here" -f ../../Makefile MODE=release WERROR= \
  FLAGS_release="-O1 -DNDEBUG -w" $targets || exit 2
for stage in $stages; do
  nn=${stage#tests/stage_}; nn=${nn%%_*}
  ${CXX:-g++} -pthread -o "$here/stage-$nn" "$here/build/obj/${stage%.cpp}.o" \
    "$here/build/obj/tests/main.o" "$here/build/libfocus.a" || exit 2
done

# --- run them ---
passed=0 failed=0
report() {  # report passed|failed TEXT
  if [ "$1" = passed ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  echo "$2"
}
run_stage() {  # run_stage NN MUTANT: sets status; the output is in $here/log
  (cd "$here" && FOCUS_MUTANT=$2 timeout 60 ./stage-"$1" --no-colors) > "$here/log" 2>&1
  status=$?
}
tab=$(printf '\t')
for nn in $lessons; do
  run_stage "$nn" ""
  if [ $status -eq 0 ]; then
    report passed "$(printf 'lesson %s  %-28s passes' "$nn" "(no mutant)")"
  else
    cat "$here/log"
    report failed "$(printf 'lesson %s  %-28s FAILS as it is' "$nn" "(no mutant)")"
    continue
  fi
  grep "^$nn$tab" "$here/list" > "$here/list-$nn"
  [ "$(wc -l < "$here/list-$nn")" -ge 3 ] ||
    report failed "$(printf 'lesson %s  has fewer than three mutants' "$nn")"
  while IFS=$tab read -r _ _ name place words; do
    run_stage "$nn" "$name"
    line=$(printf 'lesson %s  %-28s' "$nn" "$name")
    checks=$(sed -n 's/.*assertions:.*| *\([0-9]*\) failed.*/\1/p' "$here/log")
    if [ $status -eq 0 ]; then
      report failed "$line NOT CAUGHT: $words ($place)"
    elif [ $status -eq 124 ]; then
      report passed "$line caught: does not end"
    elif [ $status -ge 128 ]; then
      report passed "$line caught: crashes (signal $((status - 128)))"
    elif [ "${checks:-0}" -gt 0 ]; then
      report passed "$line caught by $checks checks"
    else
      report passed "$line caught by an exception"
    fi
  done < "$here/list-$nn"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
