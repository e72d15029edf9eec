#!/bin/sh
# One mutant for tests/run_mutants.sh: runs its lesson's stage test and judges.
#
#   tests/run_mutant.sh NN GAP NAME PLACE WORDS      NAME "": the sources as they are
#
# In build/mutants/run/NN-NAME: `line` is 'passed TEXT' or 'failed TEXT'; `log` what the test printed;
# with UPDATE=1, `mistake` the mutant's line of mistakes.tsv.
set -u
nn=$1 name=$3 place=$4 words=$5
here=build/mutants
out=$here/run/$nn-$name
mkdir -p "$out"
# What is read of memory that nobody wrote is the same in every run: glibc fills new memory.
export MALLOC_PERTURB_=85

run_stage() {  # sets status
  rm -f "$out/marks"
  (cd $here && FOCUS_MISTAKE=$name FOCUS_MARKS=run/$nn-$name/marks timeout 60 ./stage-"$nn" --no-colors) > "$out/log" 2>&1
  status=$?
}
run_stage
if [ -z "$name" ]; then
  if [ $status -eq 0 ]; then
    printf 'passed lesson %s  %-28s passes\n' "$nn" "(no mutant)"
  else
    cat "$out/log" >&2
    printf 'failed lesson %s  %-28s FAILS as it is\n' "$nn" "(no mutant)"
  fi > "$out/line"
  exit 0
fi
# A mistake whose failures differ from run to run, or that crashes, leaves no marks.
recorded=$(sed -n "s/^$name$(printf '\t')[^\t]*$(printf '\t')//p" lessons/"$nn"-*/mistakes.tsv 2> /dev/null)
known=$(grep -c "^$name$(printf '\t')" lessons/"$nn"-*/mistakes.tsv 2> /dev/null)
marks_of_runs() {  # marks_of_runs N: so many more runs; empty `marks` unless all are alike
  [ $status -lt 124 ] || : > "$out/marks"
  cp "$out/marks" "$out/marks-before" 2> /dev/null || : > "$out/marks-before"
  for _ in $(seq "$1"); do
    run_stage
    [ $status -lt 124 ] && cmp -s "$out/marks" "$out/marks-before" || : > "$out/marks-before"
  done
  mv "$out/marks-before" "$out/marks"
}
if [ -n "${UPDATE:-}" ]; then
  marks_of_runs 3
  printf '%s\t%s\t%s\n' "$name" "$words" "$(tr '\n' ' ' < "$out/marks")" > "$out/mistake"
fi
tests=$(sed -n 's/.*test cases:.*| *\([0-9]*\) failed.*/\1/p' "$out/log")
line=$(printf 'lesson %s  %-28s' "$nn" "$name")
if [ $status -eq 0 ]; then
  echo "failed $line NOT CAUGHT: $words ($place)"
elif [ $status -eq 124 ]; then
  echo "passed $line caught: does not end"
elif [ $status -ge 128 ]; then
  echo "passed $line caught: crashes (signal $((status - 128)))"
elif [ -n "${UPDATE:-}" ] || grep -qF "$words" "$out/log"; then
  echo "passed $line caught by ${tests:-?} tests"
elif [ "$known" = 1 ] && [ -z "$recorded" ]; then
  echo "passed $line caught by ${tests:-?} tests, differently each time"
else
  echo "failed $line caught, but not recognised: UPDATE=1 tests/run_mutants.sh build/kit $nn"
fi > "$out/line"
