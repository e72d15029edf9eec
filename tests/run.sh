#!/bin/sh
# Runs test programs and adds up what they say.
#
#   tests/run.sh PROGRAM...
#
# A program named fuzz_* runs for a few seconds and counts as one test; a script *.sh adds up its own
# checks in its last line, or ends with status 77 where it cannot run; the others are doctest
# programs. Output is shown only where something failed. Last line: N passed, N failed[, N skipped].
set -u
passed=0 failed=0 skipped=0
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

for program; do
  name=$(basename "$program")
  case $name in
    fuzz_*)
      if "$program" "${FUZZ_SECONDS:-3}" > "$log" 2>&1; then
        passed=$((passed + 1)) counts="$(tail -n 1 "$log")"
      else
        failed=$((failed + 1)) counts="FAILED"
        cat "$log"
      fi
      ;;
    *.sh)
      "$program" "${FOCUS:-build/focus}" > "$log" 2>&1
      status=$?
      if [ $status -eq 77 ]; then
        skipped=$((skipped + 1)) counts="skipped"
        grep '^skipped: ' "$log"
      else
        numbers=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p' "$log" | tail -n 1)
        read -r p f <<EOF
${numbers:-0 1}
EOF
        [ $status -eq 0 ] || [ "$f" -gt 0 ] || f=1
        passed=$((passed + p)) failed=$((failed + f))
        counts="$p passed, $f failed"
        [ "$f" -eq 0 ] || cat "$log"
      fi
      ;;
    *)
      "$program" > "$log" 2>&1
      status=$?
      # [doctest] test cases: 138 | 138 passed | 0 failed | 0 skipped
      numbers=$(sed -n 's/^\[doctest\] test cases: *[0-9]* *| *\([0-9]*\) passed *| *\([0-9]*\) failed *| *\([0-9]*\) skipped.*/\1 \2 \3/p' "$log" | tail -n 1)
      if [ -z "$numbers" ]; then  # it crashed before its summary
        numbers="0 1 0"
      fi
      read -r p f s <<EOF
$numbers
EOF
      [ $status -eq 0 ] || [ "$f" -gt 0 ] || f=1
      passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
      counts="$p passed, $f failed"
      [ "$f" -eq 0 ] || cat "$log"
      # Tests that could not run here say so.
      grep '^skipped: ' "$log"
      ;;
  esac
  printf '%-28s %s\n' "$name" "$counts"
done

[ $skipped -eq 0 ] && tail= || tail=", $skipped skipped"
echo "$passed passed, $failed failed$tail"
[ $failed -eq 0 ]
