#!/bin/sh
# The grader against its submissions: what they try to touch, read, end and forge, and uploads as
# platforms deliver them. It grades the small checkout of tests/grader. Last line: N passed, N failed.
#
#   tests/check_grader.sh KIT
set -u
kit=$PWD/${1:?which kit}
grader=${kit%/*}/grader
here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
. tests/check.sh
unset MAKEFLAGS MFLAGS MAKELEVEL LESSON 2> /dev/null
export JOBS=1 FOCUS_TEST_SECRET=1

root="$here/check out" class="$here/a class"
mkdir "$root" "$class"
cp -r tests/grader/. Makefile "$root"
cp tests/stage_main.cpp tests/needs.sh "$root/tests"
cd "$root" || exit 2
file=src/numbers.cpp
tree() { "$kit" start 01 "$class/$1" > /dev/null || exit 2; }
# gaps NAME TWICE HALF: a tree with these bodies; - leaves a gap empty
gaps() {
  tree "$1"
  awk -v twice="$2" -v half="$3" '
    /GAP\("01", "twice"\)/ && twice != "-" {print twice; next}
    /GAP\("01", "half"\)/ && half != "-" {print half; next}
    {print}' "$class/$1/$file" > "$here/new" && cp "$here/new" "$class/$1/$file"
}
grade() {  # grade NAME...: only these of the class; $here/log gets what it says
  mkdir "$here/only"
  for name; do mv "$class/$name" "$here/only"; done
  timeout 300 "$grader" "$here/only" --json "$here/json" --csv "$here/csv" --seconds "${seconds:-20}" > "$here/log" 2>&1
  status=$?
  rm -rf "$here/only"
}
says() {  # says NAME PATTERN: in what the last grading said
  if grep -q -e "$2" "$here/log"; then ok "$1"; else cat "$here/log"; bad "$1: no '$2'"; fi
}
feedback() {
  if grep -q -e "$2" "$here/csv"; then ok "$1"; else cat "$here/csv"; bad "$1: no '$2' in the CSV"; fi
}
right_twice='return 2 * x;' right_half='return x / 2;'

# --- without a sandbox nothing is graded ---
gaps ada "$right_twice" "$right_half"
mkdir "$here/bin" && printf '#!/bin/sh\necho "bwrap: No permissions to create new namespace"; exit 1\n' > "$here/bin/bwrap"
chmod +x "$here/bin/bwrap"
PATH=$here/bin:$PATH "$grader" "$class" > "$here/log" 2>&1
[ $? -eq 2 ] && ok "no sandbox, no grading" || bad "no sandbox, no grading"
says "and it says what to do" "is not allowed here (bwrap: No permissions.*GRADING.md"

"$grader" "$class" --csv "$here/nowhere/csv" > "$here/log" 2>&1
says "no reports to nowhere" "cannot be written: .* in a folder that is not there\|bwrap"
grade ada
if [ $status -eq 2 ] && grep -q "bwrap" "$here/log"; then
  skip "the grader's sandbox: $(head -n 1 "$here/log")"
  print_sum
  exit
fi
says "right code has all points" "ada: lesson 01, 8 of 8 points"
[ $status -eq 0 ] && ok "status 0" || bad "status 0"
if command -v ccache > /dev/null; then
  gaps cached "return  2 * x;" "$right_half"
  CXX="ccache g++" grade cached
  says "… and so when g++ is behind ccache" "cached: lesson 01, 8 of 8 points"
fi

# --- what stands outside of the gaps has no effect ---
gaps outside "$right_twice" 'return x;'
{ printf '%s\n' '#include <cstdio>' '#include <cstdlib>' '#include "../tests/stage_01_twice.cpp"' '#define int long' '#define CHECK(...)' \
    'static int e = (std::puts("[doctest] test cases: 2 | 2 passed | 0 failed"), std::exit(0), 0);' \
    'void* operator new(unsigned long) { std::exit(0); }'; cat "$class/outside/$file"; } > "$here/new" && cp "$here/new" "$class/outside/$file"
printf 'all:\n\ttouch %s\n' "$here/made" > "$class/outside/Makefile"
echo 'int main() {}' > "$class/outside/tests/stage_main.cpp"
gaps casts 'int* p = (int*)&x; return 2 * *p;' "$right_half"
gaps include 'return std::accumulate(&x, &x + 1, x);' "$right_half"
sed -i '1i #include <numeric>' "$class/include/$file"
grade outside include casts
says "a pointer cast is marked" "twice  *5 /  5  passes (look at: pointer cast)"
says "macros, constructors, operators, tests outside of the gaps are not taken" "outside: lesson 01, 5 of 8 points"
says "what fails is named" "half  *0 /  3  1 of 2 tests fail: half"
says "headers of the standard library are" "include: lesson 01, 8 of 8 points"

# --- what a gap may not hold: none of these is compiled ---
n=0
names=
refused() {  # refused REASON TEXT
  n=$((n + 1))
  gaps "refused$n" "$2" -
  echo "refused$n	$1" >> "$here/reasons"
  names="$names refused$n"
}
nl='
'
refused "preprocessor" "#define CHECK(...)${nl}return 0;"
refused "preprocessor" "  %: include \"src/numbers.cpp\""
refused "preprocessor" "return 0; /* */ # include <cstdlib>"
refused "preprocessor" "#pragma unroll 4 weak"
refused "at the end of the line" "/* *\\\\${nl}/${nl}#define CHECK(...)${nl}/* */ return 0;"
refused "at the end of the line" "// \\\\ ${nl}return 0;"
refused "closes nothing" "return 0; } int evil = 1; int more() { return 0;"
refused "closes nothing" "return (0]);"
refused "stand for one bracket" "return 0; %> int more() <% return 0;"
refused "without its end" "if (x) {"
refused "comment without an end" "return 0; /* "
refused "quote without an end" "return x; \""
refused "raw string" 'const char* s = R"x(")x"; return 0;'
refused "the name asm" 'asm("int3"); return 0;'
refused "the name __asm__" '__asm__("int3"); return 0;'
refused "the name gnu" 'static void (*const f [[gnu::section(".init_array")]])() = +[] {}; return 0;'
refused "the name __attribute__" 'void f() __attribute__((constructor)); return 0;'
refused "the name doctest" 'doctest::getContextOptions(); return 0;'
refused "the name DOCTEST_CHECK" 'DOCTEST_CHECK(true); return 0;'
refused "the name write" 'return int(write(3, "2 0", 3));'
refused "the name write" 'auto f = ::write; return 0;'
refused "the name fdopen" 'auto f = fdopen; return 0;'
refused "the name execl" 'return execl("/bin/sh", "sh", 0);'
refused "the name _fileno" 'stdout->_fileno = 3; return 0;'
refused "the name syscall" 'return int(syscall(1));'
refused "the name const_cast" 'return const_cast<int&>(x);'
refused "the name test" 'return focus::test::reference(x);'
refused "the name namespace" 'using namespace focus::test; return reference(x);'
refused "longer than" "$(printf '%070000d' 0)"
grade $names
while read -r name reason; do
  grep -A 1 "^$name: lesson 01, 0 of 8" "$here/log" | grep -q "is not taken: .*$reason" ||
    { grep -A 1 "^$name:" "$here/log" | cut -c 1-200; bad "refused: $name, $reason"; continue; }
  ok "refused: $reason"
done < "$here/reasons"
gaps markers "$right_twice" "$right_half" && sed -i 's/end of gap 01 half/end of it/' "$class/markers/$file"
gaps doubled "$right_twice" "$right_half" && sed -i 's|^  // ---- end of gap 01 half ----|&\n&|' "$class/doubled/$file"
grade markers doubled
says "a marker line that is gone" "half  *0 /  3  the last marker line of this gap is gone"
says "marker lines that are doubled" "half  *0 /  3  the marker lines of this gap are not as they were"

# --- what code does that runs ---
for attack in calls parent verdict exec threads memory output text; do
  gaps "a_$attack" "return attack_$attack();" -
done
gaps b_crash 'return *(volatile int*)8;' -
gaps b_endless 'for (volatile int i = 0;; i = x) {}' -
gaps b_leaves 'std::exit(0);' - && sed -i '1i #include <cstdlib>' "$class/b_leaves/$file"
gaps b_syntax 'retrun 2 * x;' -
gaps c_good "$right_twice" "$right_half"
touch "$here/victim"
seconds=3 grade a_threads b_endless
cp "$here/log" "$here/limited"
grade a_calls a_parent a_verdict a_exec a_memory a_output a_text b_crash b_leaves b_syntax c_good
cat "$here/limited" >> "$here/log"
of() { grep -A 1 "^$1: lesson 01, 0 of 8 points" "$here/log" | tail -n 1; }
result() {  # result NAME SUBMISSION PATTERN
  if of "$2" | grep -q -e "$3"; then ok "$1"; else grep -A 1 "^$2:" "$here/log"; bad "$1: no '$3'"; fi
}
feedback "of 145 system calls none goes through" 'a_calls.*"FAIL  of 145 calls went through:\. / '
result "the process above cannot be ended or limited" a_parent "1 of 2 tests fail: twice"
feedback "nor its limits raised" 'a_parent.*"FAIL  of 3 calls went through:\. / '
result "a forged summary is none" a_verdict "ends before its tests do"
result "nor another run of the program" a_exec "ends before its tests do"
result "threads are limited" a_threads "starts more than 256 threads\|does not end within 3 s"
feedback "memory is" 'a_memory.*FAIL  got [01]\?[0-9]\?[0-9]\?[0-9] MB and [0-9]* pipes'
result "output is" a_output "prints more than 8 MB"
result "numbers, blanks and escapes harm nothing" a_text "1 of 2 tests fail: twice"
feedback "and are printed as text" 'a_text.*\\x1b\[2J\\x1b\[1;1H\\xe2\\x80\\xae=cmd ""quoted"", \\x0d<b>\\xff\\xfe'
check "no control characters in the reports" sh -c "! LC_ALL=C grep -q '[[:cntrl:]]' '$here/log' && ! tr -d '\r' < '$here/csv' | LC_ALL=C grep -q '[[:cntrl:]]'"
result "a crash" b_crash "crashes (Segmentation fault)"
result "an endless loop" b_endless "does not end within 3 s"
result "leaving early" b_leaves "ends before its tests do"
result "an error of the compiler, by the student's line" b_syntax "does not compile: src/numbers.cpp:10:.*error"
feedback "a known mistake is named" 'a_parent.*it returns 0 for every x'
says "and the next submission is graded as ever" "c_good: lesson 01, 8 of 8 points"
check "nothing is left of them" sh -c "[ -z \"\$(ls build/grade/01 | grep -v ours)\" ]"

# --- the grading is killed: what was graded is written, and nothing goes on ---
running() { pgrep -f '^/tree/build/stage-01' > /dev/null; }
if command -v pgrep > /dev/null && ! running; then
  gaps c_good "$right_twice" "$right_half"
  gaps d_endless 'for (volatile int i = 0;; i = x) {}' -
  rm "$here/json" "$here/csv"
  "$grader" "$class" --json "$here/json" --csv "$here/csv" --seconds 60 > "$here/log" 2>&1 &
  grading=$!
  for _ in $(seq 600); do running && [ -s "$here/csv" ] && break; sleep 0.1; done
  kill -9 $grading
  wait $grading 2> /dev/null
  feedback "killed: what was graded before is written" '"c_good","","01","total","8","8","graded"'
  for _ in $(seq 50); do running || break; sleep 0.1; done
  running && bad "killed: a test goes on" || ok "killed: no test goes on"
  rm -r "$class/c_good" "$class/d_endless"
else
  skip "a killed grading: pgrep is missing, or another grading goes on"
fi

# --- files ---
other=$class/other
gaps other "$right_twice" "$right_half"
cp -r "$other" "$here/precious"
for name in linked link_above hard fifo big; do cp -r "$other" "$class/$name"; done
rm "$class/linked/$file" && ln -s "$here/precious/$file" "$class/linked/$file"
mv "$class/link_above/src" "$class/link_above/code" && ln -s "$here/precious/src" "$class/link_above/src"
rm "$class/hard/$file" && ln "$here/precious/$file" "$class/hard/$file"
rm "$class/fifo/$file" && mkfifo "$class/fifo/$file"
head -c 2000000 /dev/zero >> "$class/big/$file"
ln -s loop "$class/loop" && ln -s "$here/precious" "$class/whole"
mkdir "$class/src" && mv "$other" "$class/src/01-twice"
touch "$class/notes.txt"
grade linked link_above hard fifo big loop whole src notes.txt
[ $status -eq 2 ] && ok "status 2: some are no submissions" || bad "status 2, not $status"
says "a symbolic link" "$file is a symbolic link"
says "a symbolic link above" "src is a symbolic link"
says "a hard link" "is a hard link"
says "a FIFO" "is no regular file"
says "a large file" "is larger than 1 MB"
says "a loop of links" "^loop: not graded: it is a symbolic link"
says "a link to another's tree" "^whole: not graded: it is a symbolic link"
says "a student called src" "^src: lesson 01, 8 of 8"
says "what is no submission is named" "^notes.txt: not graded: it is neither a folder nor an archive"
says "and counted" "6 graded, 3 not"

# --- uploads as platforms deliver them ---
gaps one "$right_twice" -
with() { mkdir -p "$class/$1" && cp -r "$class/one" "$class/$1/$2"; }
with "Ada Lovelace_12345_assignsubmission_file_" 01-twice
with "Bob_7_assignsubmission_file_" deep && mkdir "$class/Bob_7_assignsubmission_file_/a" && mv "$class/Bob_7_assignsubmission_file_/deep" "$class/Bob_7_assignsubmission_file_/a"
with "no lesson.txt" "" && rm -r "$class/no lesson.txt/one/lesson.txt" "$class/no lesson.txt/one/lessons"
mkdir "$class/$(printf 'x\033[2Jy\nz: lesson 01, 8 of 8 points')"
mkdir "$class/=1+1"
uploads="Ada*_ Bob*_ no*txt x*z* =1+1 one"
if command -v bsdtar > /dev/null; then
  (cd "$class" && bsdtar -a -cf zipped.zip one && bsdtar -a -cf 'odd [*?].zip' --exclude one/lessons -s ',^one,[o]*d?e,' one &&
    bsdtar -czf tarred.tgz -C one . && mkdir Cy_9_assignsubmission_file_ &&
    cp zipped.zip Cy_9_assignsubmission_file_/work.zip && head -c 3000 zipped.zip > cut.zip &&
    printf 'PK' > empty.zip && mkdir -p evil/a && ln -s /etc/passwd evil/a/lesson.txt &&
    printf 'lesson 01-twice\n' > evil/lesson.txt && mkdir -p evil/src && ln -s "$here/precious/$file" "evil/$file" &&
    bsdtar -a -cf links.zip evil && bsdtar -P -a -cf above.zip -s ',^one,../../../tmp/one,' one && rm -r evil)
  head -c 300000000 /dev/zero > "$here/zeros"
  mkdir -p "$here/bomb/src" && ln "$here/zeros" "$here/bomb/$file" && (cd "$here" && bsdtar -a -cf "$class/bomb.zip" bomb)
  rm -r "$here/zeros" "$here/bomb"
  uploads="$uploads zipped.zip odd*zip tarred.tgz Cy*_ cut.zip empty.zip links.zip above.zip bomb.zip"
fi
mkdir "$here/only"
for pattern in $uploads; do mv "$class"/$pattern "$here/only"; done
mv "$here/only" "$here/up loads"
timeout 300 "$grader" "$here/up loads" --json "$here/json" --csv "$here/csv" > "$here/log" 2>&1
[ $? -eq 2 ] && ok "status 2" || bad "status 2"
says "a platform's folder" "^Ada Lovelace: lesson 01, 5 of 8"
says "a tree deep in it" "^Bob: lesson 01, 5 of 8"
says "a tree without lesson.txt" "^no lesson.txt: lesson 01, 5 of 8"
says "escapes in a name" '^x\\x1b\[2Jy\\x0az: lesson 01, 8 of 8 points: not graded'
feedback "identity, points and hash" '^"Ada Lovelace","12345","01","twice","5","5","passes","","","[0-9a-f]\{16\}"'
feedback "a row to import" '^"Ada Lovelace","12345","01","total","5","8","graded"'
feedback "equal copies" '^"Bob".*"twice".*Ada Lovelace (12345), .*one'
feedback "no formula in a spreadsheet" "^\"'=1+1\""
check "the JSON is one" sh -c "grep -q '\"id\": \"12345\"' '$here/json' && tail -n 1 '$here/json' | grep -q '^}'"
if command -v bsdtar > /dev/null; then
  says "a zip" "^zipped: lesson 01, 5 of 8"
  says "odd names in a zip" "^odd \[\*?\]: lesson 01, 5 of 8"
  says "a tar" "^tarred: lesson 01, 5 of 8"
  says "a zip in a folder" "^Cy: lesson 01, 5 of 8"
  says "a zip cut short" "^cut: not graded: .*cannot be read as an archive"
  says "no zip" "^empty: not graded: .*cannot be read as an archive"
  says "links in a zip give nothing" "^links: lesson 01, 0 of 8"
  says "paths that lead out are only names" "^above: lesson 01, 5 of 8"
  says "a zip that unpacks to 300 MB" "is larger than 1 MB"
else
  skip "archives: bsdtar is missing"
fi
print_sum
