#!/bin/sh
# `make check-authors`: the checks of those who change the project, beside the tests.
#   - the sources are formatted as .clang-format says
#   - what is generated is current: README's table of lessons, figures, verdicts, known mistakes
#   - every mistake of the gaps' pages is caught by its lesson's stage test, and recognised
#   - every lesson's tree builds and passes with earlier lessons only; its gaps are red, then green
#   - an nvcc or a driver that is of no use
#   - the student's and the instructor's commands; the grader against hostile submissions
#   - the commands of README and lessons; what a lesson's page and hints name is in its student tree
#   - measured numbers in the texts stand in a recording
#   - recordings: which are stale (they are listed, and fail `make report STRICT=1` only)
#   - the book, in a browser
#   - studies under a real Slurm: `make setup` leaves it to the authors' packages
# Last line: N passed, N failed[, N skipped]. ONLY="mistakes book" runs some of them.
set -u
cd "$(dirname "$0")/.." || exit 2
# The makes below take all processors again; a recipe that runs this script has no say in it.
unset MAKEFLAGS MFLAGS MAKELEVEL 2> /dev/null
. tests/check.sh
kit=build/kit
log=$(mktemp) || exit 2
trap 'rm -f "$log" "$log-lessons"' EXIT

wanted() { [ -z "${ONLY:-}" ] || case " $ONLY " in *" $1 "*) ;; *) return 1 ;; esac; }
one() {  # one NAME WORDS COMMAND...: a check that is right or wrong
  wanted "$1" || return 0
  echo "--- $1"
  shift
  check "$@"
}
many() {  # many NAME COMMAND...: a script whose last line adds up its own checks
  wanted "$1" || return 0
  echo "--- $1"
  shift
  "$@" > "$log" 2>&1
  status=$?
  cat "$log"
  # shellcheck disable=SC2046
  add_sum $(sum_of $status < "$log")
}

formatted() {
  find src cuda tests lessons \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) |
    xargs clang-format --dry-run -Werror
}
if command -v clang-format > /dev/null; then one format "the sources are formatted as .clang-format says" formatted
else skip "the format check needs clang-format"
fi
one tables "the tables are those of the recorded results" build/tables --check
# What is recorded is what `make report` makes of it (in a copy: a mistake leaves the tree alone).
report() {
  copy=$(mktemp -d) && git ls-files -z README.md lessons cuda/results | xargs -0 cp --parents -t "$copy" || return 1
  bin=$PWD/build
  (cd "$copy" && for lesson in lessons/[0-9][0-9]-*/lesson.cpp; do
    n=${lesson#lessons/}
    "$bin/lesson-${n%%-*}" --redraw > /dev/null || exit 1
  done && "$bin/findings" > /dev/null)
  drawn=$?
  same=0
  for file in $(git ls-files lessons | grep '/results/\|FINDINGS'); do
    cmp "$file" "$copy/$file" || same=1
  done
  rm -rf "$copy"
  [ $drawn -eq 0 ] && [ $same -eq 0 ]
}
one report "figures and verdicts are those of the recorded results" report
# The lessons' check goes from step to step, mostly on one processor: the others run beside it.
if wanted lessons; then tests/check_lessons.sh $kit > "$log-lessons" 2>&1 & beside=$!; fi
lessons() { wait $beside; status=$?; cat "$log-lessons"; return $status; }
many mistakes tests/check_mistakes.sh $kit
many machines tests/check_machines.sh
many kit tests/check_kit.sh $kit
many grader tests/check_grader.sh $kit
many readme tests/check_readme.sh build/focus
many pages python3 tests/check_pages.py $kit build/focus
many numbers python3 tests/check_numbers.py
many recordings tests/recordings.sh selftest
wanted recordings && tests/recordings.sh check
many slurm tests/slurm/run_slurm_test.sh build/focus
many book env KIT=$kit ATTENTION=build/attention lessons/book/check_book.sh
many lessons lessons

print_sum
