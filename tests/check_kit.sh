#!/bin/sh
# The learning kit as its users meet it: a student walks through lesson 01 in an empty folder, an
# instructor grades submissions of every kind. Last line: N passed, N failed.
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
tree=$here/mine
gaps=$("$kit" hints 01 | awk -F'\t' '$2 == "place" {print $1}')
first=$(echo "$gaps" | head -n 1) count=$(echo "$gaps" | wc -l)
expect 0 "make test-01" "start-01 says what to do next" make start-01 DIR="$tree"
expect 2 "exists already and nothing in it was touched" "starting again stops" make start-01 DIR="$tree"
expect 2 "there is no lesson '99'" "an unknown lesson is named" "$kit" start 99 "$here/other"
check "nothing of lessons after it" sh -c "cd $tree && [ ! -e lessons/02-autograd ] && [ ! -e src/attention ] && [ ! -e .git ] && ! ls tests | grep -q stage_02"
check "no markers, no instructor's page" sh -c "cd $tree && ! grep -rn '//@\|^#@' src tests lessons Makefile && ! ls lessons/*/NOTES.md"
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
expect 0 "passed on" "progress, passed" make progress
expect 0 "$first" "the solution after success" make solution-01
sed -i 's/^  \/\/ ---- gap 01 softmax-row/  for (volatile int i = 0; i >= 0; i = 0) {}\n&/' src/tensor/softmax.h
expect 2 "ENDLESS softmax: .*" "an endless loop names the test that runs" env FOCUS_SECONDS=2 make test-01 $fast
check "and where to ask for help" grep -q "next: make hint-01 GAP=softmax-row" "$log"
expect 0 "$first" "the solution after breaking what had passed" make solution-01
sed -i '/volatile int i = 0/d; s/return/retrun/' src/tensor/softmax.h
expect 2 "src/tensor/softmax.h:.*error" "what does not compile says where" make test-01 $fast
cd "$root" || exit 2

# --- an instructor ---
all=$here/class
mkdir "$all"
submit() {  # submit NAME: a tree of lesson 01 filled with our code
  "$kit" start 01 "$all/$1" > "$log" || exit 2
  for gap in $gaps; do "$kit" fill "$all/$1" "$gap"; done
}
file=src/tensor/softmax.h
start='^  \/\/ ---- gap 01 softmax-row'
for name in complete cheater crasher deleter empty liar linked loop no-compile partial truncated writer; do submit $name; done
"$kit" start 01 "$here/fresh" > /dev/null && cp "$here/fresh/$file" "$all/empty/$file"
sed -i 's/^namespace focus {/namespace focus {\n  this is no code/' "$all/no-compile/$file"
sed -i "s/$start/  for (volatile int i = 0; i >= 0; i = 0) {}\n&/" "$all/loop/$file"
sed -i "s/$start/  *(volatile int*)8 = 1;\n&/" "$all/crasher/$file"
sed -i "s/$start/  std::exit(0);\n&/; 1i #include <cstdlib>" "$all/liar/$file"
sed -i "s/$start/  { std::FILE* f = std::fopen(\"big\", \"w\"); if (!f) f = std::fopen(\"scratch\/big\", \"w\"); while (f) std::fputs(\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\", f); }\n&/; 1i #include <cstdio>" "$all/writer/$file"
touch "$here/precious"
sed -i "s/$start/  std::remove(\"$(echo "$here" | sed 's/\//\\\//g')\/precious\");\n&/; 1i #include <cstdio>" "$all/deleter/$file"
sed -i "s/scale \* (s\[j\] - top)/s[j] - top/; s/scale \* s\[j\]/s[j]/" "$all/partial/$file"
rm -r "$all/cheater/tests" && echo 'int main() {}' > "$all/cheater/stage.cpp" && cp "$here/fresh/$file" "$all/cheater/$file"
rm "$all/linked/$file" && ln -s /etc/passwd "$all/linked/$file"
head -c 3000 "$all/truncated/$file" > "$here/cut" && cp "$here/cut" "$all/truncated/$file"
mkdir "$all/no-lesson" && touch "$all/no-lesson/x"

expect 0 "complete: lesson 01, 20 of 20 points" "grading a folder survives all of it" \
  "$kit" grade "$all" --json "$here/grades.json" --seconds 10
cp "$log" "$here/graded"
graded() { expect 0 "$2" "graded: $1" sh -c "grep -A $((count + 1)) '/$1:' '$here/graded' | head -n $((count + 1))"; }
graded empty "0 of 20 points"
graded empty "  0 / .*empty"
graded no-compile "does not compile: .*error"
graded loop "does not end within 10 s"
graded crasher "crashes (Segmentation fault)"
graded liar "ends before its tests do"
graded writer "writes a file of more than\|does not end within"
graded cheater "0 of 20 points"
graded linked "is no regular file"
graded no-lesson "no lesson.txt that names a lesson"
graded partial "tests fail: "
graded partial " passes"
if grep -q "note: student code could change your files" "$here/graded"; then
  skip "this kernel cannot keep student code from changing files"
else
  check "what is not the student's was not deleted" test -e "$here/precious"
fi
check "the JSON report has them all" sh -c "[ \$(grep -c '\"submission\"' $here/grades.json) -eq $(ls "$all" | wc -l) ]"
expect 2 "is no folder" "a folder that is not there" "$kit" grade "$here/nowhere"
print_sum
