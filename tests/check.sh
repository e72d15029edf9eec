# Sourced by scripts that check something. They count with ok, bad and skip, take over the sum of
# another program with add_sum, and end with print_sum.
#
# The sum is the last line: N passed, N failed[, N skipped].

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok      $*"; }
bad() { failed=$((failed + 1)); echo "FAILED  $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }

check() {  # check NAME COMMAND...: the command must succeed; its output is shown if it does not
  name=$1
  shift
  if output=$("$@" 2>&1); then ok "$name"; else echo "$output"; bad "$name"; fi
}

# sum_of STATUS: the sum in a program's output, or in doctest's summary, as PASSED FAILED SKIPPED. A
# program that printed none, or ended with STATUS without a failure in its sum, crashed: one failure.
sum_of() {
  sed -n -e 's/^\([0-9]*\) passed, \([0-9]*\) failed,* *\([0-9]*\).*/\1 \2 \3/p' \
    -e 's/^\[doctest\] test cases:.*| *\([0-9]*\) passed *| *\([0-9]*\) failed *| *\([0-9]*\) skipped.*/\1 \2 \3/p' |
    tail -n 1 | awk -v status="$1" '
      {passed = $1; failed = $2; skipped = $3}
      END {if (NR == 0 || (status != 0 && failed == 0)) ++failed
           print passed + 0, failed + 0, skipped + 0}'
}
add_sum() {  # add_sum PASSED FAILED SKIPPED
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}
print_sum() {  # its status is 0 if nothing failed
  [ "$skipped" -eq 0 ] && tail= || tail=", $skipped skipped"
  echo "$passed passed, $failed failed$tail"
  [ "$failed" -eq 0 ]
}
