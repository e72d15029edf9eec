#!/bin/sh
# `make check-authors`: the checks of those who change the project, beside the tests.
#   - the sources are formatted as .clang-format says (skipped without clang-format)
#   - every wrong version tagged in the source is caught by its lesson's stage test
# Last line: N passed, N failed[, N skipped].
set -u
cd "$(dirname "$0")/.." || exit 2
passed=0 failed=0 skipped=0

if command -v clang-format > /dev/null; then
  if find src tests lessons -name '*.h' -o -name '*.cpp' | xargs clang-format --dry-run -Werror; then
    passed=$((passed + 1))
    echo "formatted as .clang-format says"
  else
    failed=$((failed + 1))
  fi
else
  skipped=$((skipped + 1))
  echo "skipped: the format check needs clang-format"
fi

log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT
tests/run_mutants.sh build/kit > "$log" 2>&1
status=$?
cat "$log"
counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p' "$log" | tail -n 1)
read -r p f <<EOF
${counts:-0 1}
EOF
[ $status -eq 0 ] || [ "$f" -gt 0 ] || f=1
passed=$((passed + p)) failed=$((failed + f))

[ $skipped -eq 0 ] && tail= || tail=", $skipped skipped"
echo "$passed passed, $failed failed$tail"
[ $failed -eq 0 ]
