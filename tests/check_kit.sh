#!/bin/sh
# The learning kit as its users meet it: a student walks through lesson 01 in an empty folder, an
# instructor grades some. Last line: N passed, N failed.
#
#   tests/check_kit.sh KIT
set -u
kit=$PWD/${1:?which kit}
root=$PWD
here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
. tests/check.sh
log=$here/log
unset MAKEFLAGS MFLAGS MAKELEVEL GAP STEP ASK DIR LESSON JSON 2> /dev/null
fast="FLAGS_release=-O0"

expect() {  # expect STATUS PATTERN NAME COMMAND...: exit status, and a pattern that its output has
  wanted=$1 pattern=$2 name=$3
  shift 3
  "$@" > "$log" 2>&1
  status=$?
  if [ $status -eq "$wanted" ] && { [ -z "$pattern" ] || grep -q -- "$pattern" "$log"; }; then
    ok "$name"
  else
    cat "$log"; bad "$name: status $status, wanted $wanted and '$pattern'"
  fi
}

# --- a student ---
tree="$here/my tree"
gaps=$("$kit" hints 01 | awk -F'\t' '$2 == "place" {print $1}')
first=$(echo "$gaps" | head -n 1) count=$(echo "$gaps" | wc -l)
expect 0 "make test-01" "start-01 says what to do next" make start-01 DIR="$tree"
expect 2 "exists already and nothing in it was touched" "starting again stops" make start-01 DIR="$tree"
expect 2 "there is no lesson '99'" "an unknown lesson is named" "$kit" start 99 "$here/other"
check "nothing of lessons after it" sh -c "cd '$tree' && [ ! -e lessons/02-autograd ] && [ ! -e src/attention ] && [ ! -e .git ] && ! ls tests | grep -q stage_02"
check "no markers, no instructor's page" sh -c "cd '$tree' && ! grep -rn '//@\|^#@' src tests lessons Makefile && ! ls lessons/*/NOTES.md"
cd "$tree" || exit 2
expect 2 "the gap '$first' is empty; write it at src/" "test-01 is red and names the gap" make test-01 $fast
expect 2 "testing $tree/src/" "test-01 says which files it tests" make test-01 $fast
expect 0 "hint 1 of 3" "the first hint" make hint-01
expect 0 "hint 2 of 3" "the second" make hint-01
expect 0 "hint 3 of 3" "the third" make hint-01
expect 0 "hint 2 of 3" "a step again" make hint-01 STEP=2
expect 2 "has no gap 'x'" "a wrong gap is named" make hint-01 GAP=x
expect 2 "has not passed yet" "no solution before success" make solution-01
expect 0 "$first" "but on request" make solution-01 ASK=1 "GAP=$first"
expect 0 "0 of $count gaps filled, next: $first" "progress" make progress
for gap in $gaps; do "$kit" --root "$root" fill "$tree" "$gap" || bad "fill $gap"; done
expect 0 "not tested yet" "progress, filled" make progress
expect 0 "Lesson 01 is done" "filled with our code it is green" make test-01 $fast
check "and make has nothing to warn of" sh -c "! grep -q '^make.*warning' '$log'"
expect 0 "passed on" "progress, passed" make progress
expect 0 "$first" "the solution after success" make solution-01
sed -i 's/^  \/\/ ---- gap 01 softmax-row/  { volatile bool on = true; while (on) {} }\n&/' src/tensor/softmax.h
expect 2 "ENDLESS softmax: .*" "an endless loop names the test that runs" env FOCUS_SECONDS=2 make test-01 $fast
check "and where to ask for help" grep -q "next: make hint-01 GAP=softmax-row" "$log"
expect 0 "$first" "the solution after breaking what had passed" make solution-01
sed -i 's/{ volatile bool on = .*/{ std::vector<std::string> list; for (;;) list.emplace_back().reserve(1 << 20); }/; 1i #include <string>\n#include <vector>' src/tensor/softmax.h
expect 2 "std::bad_alloc" "a list that grows without end is a test's failure" make test-01 $fast
sed -i 's/{ std::vector<std::string> list.*/{ std::exit(0); }/' src/tensor/softmax.h
expect 2 "EXIT  softmax: .*" "so is a call of exit()" make test-01 $fast
sed -i '/std::exit(0)/d; s/return/retrun/' src/tensor/softmax.h
expect 2 "src/tensor/softmax.h:.*error" "what does not compile says where" make test-01 $fast
cd "$root" || exit 2

# --- a student's kernels on a GPU, played by two scripts ---
mkdir "$here/bin" && "$kit" start 08 "$here/kernels" > "$log" || exit 2
printf '#!/bin/sh\necho "NVIDIA H200"\n' > "$here/bin/nvidia-smi"
printf '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" != -o ] || echo object > "$2"; shift; done\n' > "$here/bin/nvcc"
chmod +x "$here"/bin/*
on_a_gpu() { PATH=$here/bin:$PATH make -C "$here/kernels" "NVCC=$here/bin/nvcc" "$@"; }
expect 2 "the gap 'grid' is empty; write it at cuda/attention/01_naive.cu:[0-9]" "gpu-08 names what is empty" on_a_gpu gpu-08
check "and builds nothing" sh -c "! grep -q '  CXX\|  NVCC' '$log'"
for gap in $("$kit" hints 08 | awk -F'\t' '$2 == "place" {print $1}'); do "$kit" fill "$here/kernels" "$gap"; done
expect 0 'NVCC cuda/attention/01_naive.cu' "else it compiles the tree's kernels with nvcc" on_a_gpu -n gpu-08
printf '#!/bin/sh\nexit 9\n' > "$here/bin/nvidia-smi"
expect 0 "no GPU here: make test-08" "without a GPU it says what to do" on_a_gpu gpu-08
rm -r "$here/kernels"
cd "$root" || exit 2

# A copy by `cp -r checkout/*` lacks some files: that is said, and no half of a tree is made.
mkdir "$here/copy" && cp -r Makefile LICENSE src cuda data tests lessons "$here/copy"
expect 2 "names .clang-format, which does not exist: the checkout is not whole" "a checkout without its dot files" "$kit" --root "$here/copy" start 01 "$here/half"
check "makes no tree" [ ! -e "$here/half" ]
cp .clang-format .gitignore .gitattributes "$here/copy"
expect 0 "make test-01" "an unpacked archive, without git, will do" "$kit" --root "$here/copy" start 01 "$here/half"
rm -r "$here/copy" "$here/half"

# --- an instructor ---
# The grader's own checks are in check_grader.sh; here it meets a real lesson.
all="$here/a class"
mkdir "$all"
for name in complete partial; do "$kit" start 01 "$all/$name" > "$log" || exit 2; done
for gap in $gaps; do "$kit" fill "$all/complete" "$gap"; done
"$kit" fill "$all/partial" softmax-row && "$kit" fill "$all/partial" softmax-backward
file=src/tensor/softmax.h
sed -i "s/scale \* (s\[j\] - top)/s[j] - top/; s/scale \* s\[j\]/s[j]/" "$all/partial/$file"
# A stage test that was not passed, whatever the file says outside of its gaps.
sed -i '1i #include <cstdlib>\nstatic int e = (std::exit(0), 0);\n#define CHECK(...)' "$all/partial/$file"
mkdir "$all/nothing"
make grade DIR="$all" LESSON=01 JSON="$here/the grades.json" CSV="$here/the grades.csv" > "$here/graded" 2>&1
if grep -q bwrap "$here/graded"; then
  skip "grading: $(grep bwrap "$here/graded")"
else
  graded() { expect 0 "$2" "graded: $1" sh -c "grep -A $count '^$1:' '$here/graded'"; }
  expect 0 "2 graded, 1 not" "grading a folder says how many" cat "$here/graded"
  graded complete "lesson 01, 20 of 20 points"
  graded partial "lesson 01, 6 of 20 points"
  graded partial "exponential .*empty"
  graded partial "softmax-row .*tests fail: "
  graded partial "softmax-backward .* passes"
  graded nothing "holds no file with gaps of lesson 01"
  expect 0 '"partial","","01","total","6","20"' "the table to import" cat "$here/the grades.csv"
  expect 0 '"result": "passes"' "the JSON report" cat "$here/the grades.json"
fi
expect 2 "is no folder" "a folder that is not there" "${kit%/*}/grader" "$here/nowhere"
expect 2 "there is no lesson '99'" "a lesson that is not there" "${kit%/*}/grader" "$all" --lesson 99
print_sum
