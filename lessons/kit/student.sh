#!/bin/sh
# The student's side, in a tree made by `make start-NN` (in the full checkout hint and solution work
# too):
#
#   student.sh files NN       the files under test and the gaps in them
#   student.sh filled NN      fails and names the gaps that are empty
#   student.sh hint NN        the next step of help for the first gap that is empty; GAP= chooses one,
#                             STEP=1..3 repeats a step
#   student.sh passed NN      remembers that the stage test passed, and says what to notice
#   student.sh progress       a bar for each lesson begun
#   student.sh solution NN    our code, once the test passes or with ASK=1; GAP= chooses one
#   student.sh watch NN       builds and tests at each save
#
# progress.txt, in the tree, is all that is remembered; it is plain text and can be carried along:
#   LESSON passed DATE HASH       the hash of the files with gaps when the test passed
#   LESSON hint GAP STEP          how far the help went
set -u
do=${1:-help} nn=${2:-}
make=${MAKE:-make}
unset MAKEFLAGS MFLAGS  # the makes below share no processors with the one that runs this
tab=$(printf '\t')
state=progress.txt

fail() { echo "$*" >&2; exit 2; }

# One line of the table of gaps: NAME KIND TEXT (lessons/kit/tree.h).
folder=
[ -z "$nn" ] || folder=$(echo lessons/"$nn"-*)
[ -z "$nn" ] || [ -d "$folder" ] || fail "there is no lesson $nn here"
lesson=${folder#lessons/}
table() {
  if [ -e "$folder/gaps.tsv" ]; then cat "$folder/gaps.tsv"
  elif [ -x build/kit ]; then build/kit hints "$nn"
  fi
}
field() { table | awk -F"$tab" -v name="$1" -v kind="$2" '$1 == name && $2 == kind {print $3}'; }
gaps() { table | awk -F"$tab" '$2 == "place" {print $1}'; }
is_empty() { grep -q "^[^/]*GAP(\"$nn\", \"$1\")" "$(field "$1" place)" 2> /dev/null; }
hash() { table | awk -F"$tab" '$2 == "place" {print $3}' | sort -u | xargs cat | cksum | cut -d' ' -f1; }
passed_on() { awk -v l="$lesson" '$1 == l && $2 == "passed" {print $3}' "$state" 2> /dev/null; }
is_as_passed() { grep -q "^$lesson passed .* $(hash)\$" "$state" 2> /dev/null; }
need_gaps() { [ -n "$(gaps)" ] || { echo "lesson $nn has nothing to fill in here: it is complete"; exit 0; }; }
remember() {  # remember LINE: replaces the lines that begin with its first $1 words
  { [ ! -e "$state" ] || awk -v n="$1" -v line="$2" '
      BEGIN {split(line, own, " ")}
      {same = 1; for (i = 1; i <= n; ++i) if ($i != own[i]) same = 0; if (!same) print}' "$state"
    echo "$2"; } > "$state.new" && mv "$state.new" "$state"
}

case $do in
  files)
    [ -e "$folder/gaps.tsv" ] || exit 0
    table | awk -F"$tab" '$2 == "place" {print $3}' | sort -u |
      while read -r file; do echo "testing $PWD/$file"; done
    ;;

  filled)
    none=
    for name in $(gaps); do
      is_empty "$name" || continue
      place=$(field "$name" place)
      line=$(grep -n "^[^/]*GAP(\"$nn\", \"$name\")" "$place" | cut -d: -f1)
      echo "  EMPTY lesson $nn: the gap '$name' is empty; write it at $place:$line"
      none=1
    done
    [ -z "$none" ] || fail "a GPU cannot say which gap stops it: fill these first. make test-$nn tests the others on the CPU"
    ;;

  hint)
    need_gaps
    gap=${GAP:-}
    if [ -z "$gap" ]; then
      for name in $(gaps); do is_empty "$name" && { gap=$name; break; }; done
      [ -n "$gap" ] || gap=$(gaps | head -n 1)
    fi
    place=$(field "$gap" place)
    [ -n "$place" ] || fail "lesson $nn has no gap '$gap'; it has: $(echo $(gaps))"
    last=$(awk -v l="$lesson" -v g="$gap" '$1 == l && $2 == "hint" && $3 == g {print $4}' "$state" 2> /dev/null)
    step=${STEP:-$((${last:-0} + 1))}
    case $step in 1 | 2 | 3) ;; *) step=3 ;; esac
    echo "lesson $nn, gap $gap in $place ($(field "$gap" points) points; ours has $(field "$gap" lines) lines)"
    echo "hint $step of 3:"
    field "$gap" "$step" | sed 's/^/  /'
    [ -e lesson.txt ] && remember 3 "$lesson hint $gap $step"
    if [ "$step" -lt 3 ]; then echo "more: make hint-$nn${GAP:+ GAP=$gap}"
    else echo "that was all; the solution: make solution-$nn ASK=1 GAP=$gap"
    fi
    others=$(for name in $(gaps); do [ "$name" = "$gap" ] || printf ' %s' "$name"; done)
    [ -z "$others" ] || echo "other gaps (GAP=name):$others"
    ;;

  passed)
    [ -e "$folder/gaps.tsv" ] || exit 0
    is_as_passed && exit 0
    remember 2 "$lesson passed $(date +%Y-%m-%d) $(hash)"
    echo "Lesson $nn is done. What to notice:"
    for name in $(gaps); do field "$name" notice | sed "s/^/  $name: /"; done
    echo "next: make solution-$nn, make lesson-$nn"
    ;;

  progress)
    shown=0
    for tree in . work/*; do
      [ -e "$tree/lesson.txt" ] || continue
      (cd "$tree" || exit 0
        lesson=$(sed -n 's/^lesson //p' lesson.txt)
        nn=${lesson%%-*} folder=lessons/$lesson
        bar= filled=0 all=0
        for name in $(gaps); do
          all=$((all + 1))
          if is_empty "$name"; then bar=$bar. ; else bar="$bar#" filled=$((filled + 1)); fi
        done
        if is_as_passed; then words="passed on $(passed_on)"
        elif [ $filled -lt $all ]; then words="next: $(for name in $(gaps); do is_empty "$name" && { echo "$name"; break; }; done)"
        elif [ -n "$(passed_on)" ]; then words="passed on $(passed_on), changed since: make test-$nn"
        else words="not tested yet, or red: make test-$nn"
        fi
        printf '%-22s [%s] %d of %d gaps filled, %s\n' "$lesson" "$bar" $filled $all "$words"
        for name in $(gaps); do
          is_empty "$name" && mark=empty || mark=filled
          printf '    %-8s %-24s %2s points  %s\n' $mark "$name" "$(field "$name" points)" "$(field "$name" place)"
        done)
      shown=1
    done
    [ $shown -eq 1 ] || echo "no lesson begun yet: make start-01"
    ;;

  solution)
    need_gaps
    if [ -e lesson.txt ]; then
      [ -n "$(passed_on)" ] || [ "${ASK:-}" = 1 ] ||
        fail "lesson $nn has not passed yet (make test-$nn). Hints: make hint-$nn. To see it anyway: make solution-$nn ASK=1"
      checkout=$(sed -n 's/^checkout //p' lesson.txt)
      [ -x "$checkout/build/kit" ] || [ -e "$checkout/lessons/manifest.json" ] ||
        fail "the solutions are in the full checkout, which was at $checkout and is not there now"
    else
      checkout=.
    fi
    $make --no-print-directory -s -C "$checkout" build/kit > /dev/null || exit 2
    # shellcheck disable=SC2086
    "$checkout/build/kit" --root "$checkout" solution "$nn" ${GAP:-}
    ;;

  watch)
    [ -n "$nn" ] || nn=$(sed -n 's/^lesson \([0-9]*\).*/\1/p' lesson.txt 2> /dev/null)
    [ -n "$nn" ] || fail "which lesson? make watch LESSON=05"
    mark=$(mktemp) || exit 2
    trap 'rm -f "$mark"; exit 130' INT TERM
    while :; do
      touch "$mark"
      printf '\033[H\033[2J'  # not clear, which takes what was there before away
      $make --no-print-directory "test-$nn"
      echo "watching src and tests; Ctrl-C ends it"
      until [ -n "$(find src tests lessons $(ls -d cuda 2> /dev/null) -name '*.h' -newer "$mark" -o -name '*.c*' -newer "$mark" | head -n 1)" ]; do
        sleep 0.5
      done
    done
    ;;

  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" ;;
esac
