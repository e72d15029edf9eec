#!/bin/sh
# `make check-authors`: the checks of those who change the project, beside the tests.
#   - the sources are formatted as .clang-format says
#   - what is generated is current: README's table of lessons, figures, verdicts, known mistakes
#   - every mistake of the gaps' pages is caught by its lesson's stage test, and recognised; with
#     gaps empty the test is red
#   - every lesson's tree builds and passes with earlier lessons only
#   - an nvcc or a driver that is of no use
#   - the student's and the instructor's commands; the grader against hostile submissions
#   - the commands of README and lessons; what a lesson's page and hints name is in its student tree
#   - measured numbers in the texts stand in a recording
#   - recordings: which are stale (they are listed, and fail `make report STRICT=1` only)
#   - the book, in a browser
#   - studies under a real Slurm: `make setup` leaves it to the authors' packages
# They run side by side, those that take longest first. Last line: N passed, N failed[, N skipped].
# ONLY="mistakes book" runs some of them.
set -u
cd "$(dirname "$0")/.." || exit 2
# The makes below take all processors again; a recipe that runs this script has no say in it.
unset MAKEFLAGS MFLAGS MAKELEVEL 2> /dev/null
. tests/check.sh
kit=build/kit

formatted() {
  find src cuda tests lessons \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) |
    xargs clang-format --dry-run -Werror
}
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
generated() {
  if command -v clang-format > /dev/null; then check "the sources are formatted as .clang-format says" formatted
  else skip "the format check needs clang-format"
  fi
  check "the tables are those of the recorded results" build/tables --check
  check "figures and verdicts are those of the recorded results" report
  check "the paper's scale says how long it takes, runs and judges" paper_scale
  print_sum
}
# make lesson-NN SCALE=paper with a table of small runs: what it says first, and what it ends with.
paper_scale() {
  lesson=lessons/05-semantic-focus copy=$(mktemp -d)
  mkdir "$copy/lessons" && cp -r lessons/paper_scale.sh $lesson "$copy/lessons" && ln -s "$PWD/build" "$copy/build" &&
    printf '%s\n' 'task,attention,k,length,train-size,val-size,d-model,d-mlp,blocks,epochs,seeds' \
      'even-pairs,topk|full,5,8,50,30,8,8,1,3,2' > "$copy/$lesson/paper.csv" || return 1
  said=$(cd "$copy" && timeout 60 lessons/paper_scale.sh 05 2>&1)
  rm -rf "$copy"
  echo "$said"
  case $said in *"4 to do, "*"at the paper's scale, verdict: "*) ;; *) return 1 ;; esac
}
recordings() { tests/recordings.sh check; tests/recordings.sh selftest; }
one() {  # one NAME: a check that adds up its own in its last line
  case $1 in
    lessons) tests/check_lessons.sh $kit ;;
    mistakes) tests/check_mistakes.sh $kit ;;
    kit) tests/check_kit.sh $kit ;;
    grader) tests/check_grader.sh $kit ;;
    book) KIT=$kit ATTENTION=build/attention lessons/book/check_book.sh ;;
    readme) tests/check_readme.sh build/focus ;;
    pages) python3 tests/check_pages.py $kit build/focus ;;
    slurm) tests/slurm/run_slurm_test.sh build/focus ;;
    generated) generated ;;
    machines) tests/check_machines.sh ;;
    numbers) python3 tests/check_numbers.py ;;
    recordings) recordings ;;
    *) bad "there is no check '$1'"; print_sum ;;
  esac
}

if [ "${1:-}" = --run ]; then  # --run FOLDER "NAME…": one after the other; FOLDER/NAME gets the sum
  for name in $3; do
    begin=$(date +%s)
    (one "$name") > "$2/$name.log" 2>&1  # check() has a name of its own
    sum_of $? < "$2/$name.log" > "$2/$name"
    { echo "--- $name, $(($(date +%s) - begin)) s" && cat "$2/$name.log"; } > "$2/$name.said"
    cat "$2/$name.said"
  done
  exit 0
fi

here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
wanted=" ${ONLY:-lessons mistakes kit grader readme book pages slurm generated machines numbers recordings} "
# The grader's check looks for the tests of a grading that was killed: no other may go on.
for names in lessons mistakes "kit grader" readme book pages slurm generated machines numbers recordings; do
  chosen=
  for name in $names; do
    case $wanted in *" $name "*) chosen="$chosen $name" ;; esac
  done
  [ -z "$chosen" ] || printf '%s\0' "$chosen"
done | xargs -0 -n 1 -P "$(nproc 2> /dev/null || echo 1)" "$0" --run "$here"
for name in $wanted; do
  # shellcheck disable=SC2046
  add_sum $(cat "$here/$name" 2> /dev/null || echo 0 1 0)
done
print_sum
