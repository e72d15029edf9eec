#!/bin/sh
# Runs test programs, as many at a time as there are processors, and adds up what they say.
#
#   tests/run.sh PROGRAM...
#
# A program named fuzz_* runs for a few seconds and counts as one test; a script *.sh adds up its own
# checks in its last line, or ends with status 77 where it cannot run; the others are doctest
# programs. Output is shown only where something failed. Last line: N passed, N failed[, N skipped].
set -u

one() {  # one PROGRAM OUT OPTION: says what came of it; OUT/counts is 'PASSED FAILED SKIPPED'
  program=$1 log=$2/log option=$3
  case $(basename "$program") in
    fuzz_*) "$program" "${FUZZ_SECONDS:-3}" > "$log" 2>&1 ;;
    *.sh) "$program" "${FOCUS:-build/focus}" > "$log" 2>&1 ;;
    *) "$program" ${option:+"$option"} > "$log" 2>&1 ;;
  esac
  status=$?
  case $(basename "$program") in
    fuzz_*)
      p=1 f=0 words=$(tail -n 1 "$log")
      [ $status -eq 0 ] || p=0 f=1 words=FAILED
      numbers="$p $f 0"
      ;;
    *.sh)
      numbers=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2 0/p' "$log" | tail -n 1)
      [ $status -ne 77 ] || numbers="0 0 1" words=skipped status=0
      ;;
    *)
      # [doctest] test cases: 138 | 138 passed | 0 failed | 0 skipped
      numbers=$(sed -n 's/^\[doctest\] test cases: *[0-9]* *| *\([0-9]*\) passed *| *\([0-9]*\) failed *| *\([0-9]*\) skipped.*/\1 \2 \3/p' "$log" | tail -n 1)
      ;;
  esac
  read -r p f s <<COUNTS
${numbers:-0 1 0}
COUNTS
  [ -z "$option" ] || s=0  # the other part runs them
  [ $status -eq 0 ] || [ "$f" -gt 0 ] || f=1  # it crashed after its summary, or before
  echo "$p $f $s" > "$2/counts"
  {
    # Tests that could not run here say so.
    if [ "$f" -eq 0 ]; then grep '^skipped: ' "$log"; else cat "$log"; fi
    printf '%-28s %s\n' "$(basename "$program")" "${words:-$p passed, $f failed}"
  } > "$2/said"
  cat "$2/said"  # at once: others are running
}
if [ "${1:-}" = --one ]; then
  one "$2" "$3" "$4"
  exit 0
fi

here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
# What takes longest, the emulated kernels, is run in two parts: tests that train, and the others.
training='*_bench_step.cpp,*_one_launch.cpp,*_precision.cpp,*_study.cpp,*_trainer.cpp'
n=0
for program; do
  case $program in
    *cuda-emulated-tests) set -- "-sf=$training" "-sfe=$training" ;;
    *) set -- "" ;;
  esac
  for option; do
    n=$((n + 1))
    mkdir "$here/$n"
    printf '%s\0%s\0%s\0' "$program" "$here/$n" "$option"
  done
done | xargs -0 -n 3 -P "$(nproc 2> /dev/null || echo 1)" "$0" --one

passed=0 failed=0 skipped=0
for part in "$here"/*; do
  read -r p f s <<COUNTS
$(cat "$part/counts" || echo 0 1 0)
COUNTS
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done

[ $skipped -eq 0 ] && tail= || tail=", $skipped skipped"
echo "$passed passed, $failed failed$tail"
[ $failed -eq 0 ]
