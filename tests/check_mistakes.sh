#!/bin/sh
# Do the lessons' tests catch what they should? Builds every mistake of every gap (their form:
# lessons/kit/gaps.h) into one set of stage tests, runs each lesson's test as it is, which must pass,
# and with each of its mistakes, which must fail, and fail the test cases that lessons/NN-*/mistakes.tsv
# names: by them a student's mistake is recognised (tests/stage_main.cpp). Likewise with gaps empty:
# filled one at a time, the test stays red until the last one, because of the empty gaps and nothing
# else.
#
#   tests/check_mistakes.sh KIT [NN ...]            all lessons, or those named
#   UPDATE=1 tests/check_mistakes.sh KIT [NN ...]   also writes mistakes.tsv anew
#
# A mistake that crashes or never ends, or fails other cases from run to run, cannot be recognised:
# mistakes.tsv says so in place of its cases. Works in build/mistakes. Last line: N passed, N failed.
set -u
tab=$(printf '\t')
# What is read of memory that nobody wrote is the same in every run: glibc fills new memory.
export MALLOC_PERTURB_=85

run_stage() {  # run_stage NN MISTAKE OUT: its status; OUT/cases is what failed, tab-separated
  rm -f "$3/failed"
  # 60 s of a processor, however busy it is; what waits without end takes none.
  (cd build/mistakes && ulimit -t 60 &&
    FOCUS_MISTAKE=$2 FOCUS_FAILED=$3/failed timeout 900 build/stage-"$1" --no-colors) > "$3/log" 2>&1
  status=$?
  case $status in
    0) : ;;
    124 | 137 | 152) echo "(does not end)" ;;
    1) paste -s "$3/failed" ;;
    *) echo "(crashes)" ;;
  esac > "$3/cases"
  return $status
}

# one NN GAP MISTAKE PLACE WORDS: in build/mistakes/run/NN-MISTAKE, `line` is what came of it, and
# `row` the row for mistakes.tsv. No MISTAKE: the sources as they are. 2of5: the gaps in WORDS are
# empty.
one() {
  nn=$1 gap=$2 name=$3 place=$4 words=$5
  out=$PWD/build/mistakes/run/$nn-$name
  mkdir -p "$out"
  case $name in [0-9]*of*)
    export FOCUS_EMPTY="$words"
    if run_stage "$nn" "" "$out"; then verdict="bad is green"
    elif grep -q '^  FAIL\|^  ENDLESS' "$out/log" || ! grep -q "^  EMPTY lesson $nn: the gap '" "$out/log"; then
      cat "$out/log" >&2
      verdict="bad is red for another reason"
    else verdict="ok is red"
    fi
    echo "$verdict with $name gaps filled, empty: $words" > "$out/line"
    return ;;
  esac
  run_stage "$nn" "$name" "$out"
  status=$?
  if [ -z "$name" ]; then
    [ $status -eq 0 ] || cat "$out/log" >&2
    [ $status -eq 0 ] && echo "ok as it is" > "$out/line" || echo "bad fails as it is" > "$out/line"
    return
  fi
  cases=$(cat "$out/cases")
  if [ -n "${UPDATE:-}" ]; then
    run_stage "$nn" "$name" "$out"
    [ "$cases" = "$(cat "$out/cases")" ] || cases="(differs from run to run)"
    printf '%s\t%s\t%s\t%s\n' "$gap" "$name" "$words" "$cases" > "$out/row"
  else
    recorded=$(grep "^$gap$tab$name$tab" lessons/"$nn"-*/mistakes.tsv | cut -f4-)
  fi
  if [ $status -eq 0 ]; then
    echo "bad $name is NOT CAUGHT: $words ($place)"
  else case ${recorded:-$cases} in
    "("*) echo "ok $name is caught, not recognised: ${recorded:-$cases}" ;;
    "$cases")
      if [ -n "${UPDATE:-}" ] || grep -qF "$words" "$out/log"; then echo "ok $name is caught and recognised"
      else echo "bad $name is caught, but its words are not in the report"
      fi ;;
    *) echo "bad $name fails other cases than recorded: UPDATE=1 tests/check_mistakes.sh build/kit $nn" ;;
  esac fi > "$out/line"
}
if [ "${1:-}" = --one ]; then
  shift
  one "$@"
  exit 0
fi

cd "$(dirname "$0")/.." || exit 2
. tests/check.sh
kit=${1:?which kit}
shift
here=build/mistakes
mkdir -p "$here"
"$kit" mistakes > "$here/list" && "$kit" with-mistakes "$here" || exit 2
lessons=${*:-$(cut -f1 "$here/list" | LC_ALL=C sort -u)}
ln -sfn ../../tests "$here/tests"
ln -sfn ../../lessons "$here/lessons"
tests/reuse_objects.sh "$here"

# --- one build for all ---
targets=
for nn in $lessons; do targets="$targets build/stage-$nn"; done
# shellcheck disable=SC2086
${MAKE:-make} --no-print-directory -C "$here" -f ../../Makefile MODE=release NVCC= WERROR= \
  FLAGS_release="-O3 -DNDEBUG -w" $targets || exit 2

# --- run them, as many at a time as there are processors ---
rm -rf "$here/run"
for nn in $lessons; do
  printf '%s\t\t\t\t\n' "$nn"
  grep "^$nn$tab" "$here/list"
  [ -n "${UPDATE:-}" ] || "$kit" hints "$nn" | awk -F"$tab" -v nn="$nn" '
    $2 == "place" {gap[count++] = $1}
    END {
      for (filled = 0; filled < count; ++filled) {
        empty = gap[filled]
        for (i = filled + 1; i < count; ++i) empty = empty " " gap[i]
        printf "%s\t\t%dof%d\t\t%s\n", nn, filled, count, empty
      }
    }'
done > "$here/runs"
tr '\t\n' '\0\0' < "$here/runs" | xargs -0 -n 5 -P "$(nproc 2> /dev/null || echo 2)" tests/check_mistakes.sh --one

for nn in $lessons; do
  : > "$here/rows"
  for name in "" $(grep "^$nn$tab" "$here/runs" | cut -f3); do
    read -r verdict words < "$here/run/$nn-$name/line" || verdict=bad words="$name: no result"
    $verdict "lesson $nn: $words"
    [ -z "$name" ] || [ -z "${UPDATE:-}" ] || cat "$here/run/$nn-$name/row" >> "$here/rows"
  done
  table=$(echo lessons/"$nn"-*)/mistakes.tsv
  if [ -n "${UPDATE:-}" ] && ! cmp -s "$here/rows" "$table"; then
    cp "$here/rows" "$table"
    echo "written: $table"
  fi
done
print_sum
