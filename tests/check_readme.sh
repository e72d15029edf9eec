#!/bin/sh
# The commands of README.md and of the lessons' pages: every `make TARGET` names a target that exists,
# and README's "The program" is run line by line as it is written. Training that would take hours is
# interrupted as soon as it has written what the lines after it need, as a user would with Ctrl-C.
# Then the paper.sh of lessons 13 and 14, in small. Last line: N passed, N failed.
#
#   tests/check_readme.sh FOCUS
set -u
focus=$PWD/${1:?which focus}
root=$PWD
here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
. tests/check.sh

unset MAKEFLAGS MFLAGS MAKELEVEL 2> /dev/null
# make's own list of its targets, without the files that are only mentioned.
make -pn help 2> /dev/null |
  awk '/^# Not a target/ {getline; next} /^[a-z][a-z0-9-]*:/ {sub(/:.*/, ""); print}' > "$here/targets"
# In code blocks (indented or fenced) and in `…`, comments and variables dropped.
for target in $(cat README.md data/README.md lessons/[0-9]*/README.md lessons/[0-9]*/NOTES.md |
  grep -oE '(^|`|    )(MODE=[a-z]+ )?make [a-z][^`#]*' | sed 's/.*make //' | tr ' ' '\n' |
  grep -E '^[a-z-]+(-[0-9]{2})?$' | sort -u); do
  check "make $target exists" grep -qxF "$target" "$here/targets"
done

# What FINDINGS.md names to be run: one command of each set of flags gets as far as its folder, which
# cannot be made.
grep -o 'build/focus train[^`]*' lessons/FINDINGS.md | sed 's/--out .*//; s/--device cuda//' |
  awk '{flags = ""; for (i = 1; i <= NF; ++i) if ($i ~ /^--/) flags = flags $i; if (!seen[flags]++) print}' |
  grep -v -- --text-data > "$here/findings"
while read -r command; do
  said=$(sh -c "$focus ${command#* } --out /dev/null/x" 2>&1 < /dev/null)
  case $said in
    *'/dev/null'*) ok "$command" ;;
    *) bad "FINDINGS.md: $command: $said" ;;
  esac
done < "$here/findings"

sed -n '/^## The program/,/^## /p' README.md | sed -n '/^```sh/,/^```/p' | grep -v '^```' |
  sed 's/ *#.*//' > "$here/commands"
[ -s "$here/commands" ] || bad "README.md has no commands under 'The program'"
mkdir "$here/build" && ln -s "$focus" "$here/build/focus" && ln -s "$root/tests" "$root/lessons" "$root/data" "$here"
cd "$here" || exit 2
while read -r command; do
  case $command in
    *" train "* | *" resume "*)
      touch begun
      sh -c "exec timeout -s INT 300 $command" > log 2>&1 < /dev/null &
      # The lines after it use this seed's.
      while kill -0 $! 2> /dev/null &&
        [ -z "$(find runs -path '*/seed-153476998/last.safetensors' -newer begun 2> /dev/null)" ]; do
        sleep 0.2
      done
      kill -INT $! 2> /dev/null
      wait $!
      ;;
    *) sh -c "$command" > log 2>&1 < /dev/null ;;
  esac
  status=$?
  case $status in
    0 | 124 | 130) ok "$command" ;;
    *) cat log; bad "$command: status $status" ;;
  esac
done < commands

# The scripts of lessons 13 and 14, with small models.
small() {  # small LESSON PART FOLDER N: it makes N files there
  DEVICE=cpu SEEDS=140439608 ALONE=1 ROWS=20 \
    TRAIN="--length 6 --train-size 25 --val-size 10 --epochs 2 --blocks 1 --d-model 8 --d-mlp 8" \
    lessons/"$1"/paper.sh small "$2" > log 2>&1 && [ "$(find small/"$3" -name '*.json' | wc -l)" -eq "$4" ]
}
check "lesson 13's paper.sh" small 13-loss-surface even-pairs.relu.seeds surfaces 5
check "lesson 14's paper.sh" small 14-conditions even-pairs stability 1
print_sum
