#!/bin/sh
# Do the stage tests catch what they should? Builds every mutant of every lesson at once (the markers
# are explained in lessons/kit/gaps.h), then runs each lesson's stage test with no mutant, which must
# pass, and with each of its mutants, which must fail, and be recognised: the report names the mistake
# by its words (lessons/NN-*/mistakes.tsv holds the marks of each mutant's failures).
#
#   tests/run_mutants.sh KIT [NN ...]            all lessons that have mutants, or those named
#   UPDATE=1 tests/run_mutants.sh KIT [NN ...]   also writes mistakes.tsv anew
#
# Uses build/mutants: src there is the source with all mutants, and is compiled only where it changed
# and is not as in the project. A mutant that crashes or hangs the test is caught too, and said so; it leaves no marks. Nor
# does one whose failures differ from run to run: its line in mistakes.tsv ends with none.
# Exit status 0 if all is as it should be.
set -u
cd "$(dirname "$0")/.." || exit 2
kit=${1:?which kit}
shift
here=build/mutants
mkdir -p "$here"
tab=$(printf '\t')

"$kit" mistakes > "$here/list" || exit 2
lessons=${*:-$(cut -f1 "$here/list" | LC_ALL=C sort -u)}
doubles=$(cut -f3 "$here/list" | sort | uniq -d)
[ -z "$doubles" ] || { echo "mutants of the same name: $doubles" >&2; exit 2; }

# --- the source with mutants: written only where it differs, so that make sees what is new ---
put() {  # put FILE: standard input becomes $here/FILE
  mkdir -p "$here/$(dirname "$1")"
  cat > "$here/unsaved"
  cmp -s "$here/unsaved" "$here/$1" || mv "$here/unsaved" "$here/$1"
}
# The kernels too, which run on the CPU here.
sources() {
  find src -name '*.h' -o -name '*.cpp'
  [ ! -d cuda ] || find cuda/cuda.mk cuda/attention cuda/device cuda/fast cuda/lesson cuda/one_launch cuda/ops cuda/simt -type f
}
sources > "$here/sources"
while read -r file; do
  if grep -q '^ *//@ gap' "$file"; then "$kit" with-mistakes "$file" | put "$file"
  else put "$file" < "$file"
  fi
done < "$here/sources"
put src/focus_mistake.h <<'HEADER'
#pragma once
#include <cstdlib>
#include <cstring>
// Is this the mutant that the environment variable FOCUS_MISTAKE names?
inline bool focus_mistake(const char* name) {
  static const char* const chosen = std::getenv("FOCUS_MISTAKE");
  return chosen && std::strcmp(chosen, name) == 0;
}
HEADER
(cd "$here" && sources) | while read -r file; do
  [ -e "$file" ] || [ "$file" = src/focus_mistake.h ] || rm "$here/$file"
done
ln -sfn ../../tests "$here/tests"
ln -sfn ../../lessons "$here/lessons"
tests/reuse_objects.sh "$here"

# --- one build for all ---
stages=
targets="build/libfocus.a build/obj/tests/stage_main.o"
kernels=$(sed -n 's/^KERNEL_LESSONS *:= //p' cuda/cuda.mk)
library() {  # library NN: what lesson NN's test links with besides
  case " $kernels " in *" $1 "*) echo build/libfocus-emulated.a ;; esac
}
for nn in $lessons; do
  targets="$targets $(library "$nn")"
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
${MAKE:-make} --no-print-directory $jobs -C "$here" -f ../../Makefile MODE=release NVCC= WERROR= \
  FLAGS_release="-O3 -DNDEBUG -w" $targets || exit 2
for stage in $stages; do
  nn=${stage#tests/stage_}; nn=${nn%%_*}
  kernels_too=$(library "$nn")
  ${CXX:-g++} -pthread -o "$here/stage-$nn" "$here/build/obj/${stage%.cpp}.o" \
    "$here/build/obj/tests/stage_main.o" ${kernels_too:+"$here/$kernels_too"} \
    "$here/build/libfocus.a" || exit 2
done

# --- run them, as many at a time as there are processors ---
rm -rf "$here/run" && mkdir "$here/run"
for nn in $lessons; do
  printf '%s\t\t\t\t\n' "$nn"
  grep "^$nn$tab" "$here/list"
done | tr '\t\n' '\0\0' | xargs -0 -n 5 -P "$(nproc 2> /dev/null || echo 2)" tests/run_mutant.sh

. tests/check.sh
report() {  # report 'passed TEXT' or 'failed TEXT'
  case $1 in passed*) ok "${1#?????? }" ;; *) bad "${1#?????? }" ;; esac
}
for nn in $lessons; do
  report "$(cat "$here/run/$nn-/line" || echo "failed lesson $nn: no result")"
  : > "$here/mistakes"
  [ "$(grep -c "^$nn$tab" "$here/list")" -ge 5 ] ||
    report "failed $(printf 'lesson %s  has fewer than five mutants' "$nn")"
  for name in $(grep "^$nn$tab" "$here/list" | cut -f3); do
    report "$(cat "$here/run/$nn-$name/line" || echo "failed lesson $nn  $name: no result")"
    cat "$here/run/$nn-$name/mistake" >> "$here/mistakes" 2> /dev/null
  done
  mistakes=$(echo lessons/"$nn"-*)/mistakes.tsv
  if [ -n "${UPDATE:-}" ] && ! cmp -s "$here/mistakes" "$mistakes"; then
    cp "$here/mistakes" "$mistakes"
    echo "written: $mistakes"
  fi
done
print_sum
