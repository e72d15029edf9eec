#!/bin/sh
# Builds the book and opens every page in Chromium without a window: links and figures resolve,
# nothing is wrong on the console, nothing is blank, nothing is wider than a phone.
#
#   lessons/book/check_book.sh [FOLDER]         FOLDER: a book that is there already
#
# KIT and ATTENTION are the programs of `make book` and `make attention` (default: in build/).
# SCREENSHOTS=DIR keeps the pictures. Last line: N passed, N failed[, N skipped].
set -u
cd "$(dirname "$0")/../.." || exit 2
. tests/check.sh
cannot() { skip "the book: $1"; print_sum; exit; }
failing() { bad "$1"; print_sum; exit; }
command -v pandoc > /dev/null || cannot "pandoc is missing (apt-get install pandoc)"
command -v python3 > /dev/null || cannot "python3 is missing, which drives the browser"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  cannot "no chromium to open it with (apt-get install chromium)"

folder=${1:-} attention=${ATTENTION:-build/attention}
if [ -z "$folder" ]; then
  folder=out/book-check
  trap 'rm -rf out/book-check' EXIT
  trap 'exit 130' INT TERM
  # A page that names a gap that is not there, in a tree of links beside it.
  wrong=$(mktemp -d) || exit 2
  trap 'rm -rf out/book-check "$wrong"' EXIT
  ln -s "$PWD"/* "$PWD"/.[!.]* "$wrong" && rm "$wrong/README.md"
  printf '# T\n\n<!-- code: softmax-rov -->\n' > "$wrong/README.md"
  said=$(KIT=$(realpath "${KIT:-build/kit}") "$wrong/lessons/book/make_book.sh" "$wrong/book" 2>&1)
  case $said in
    "README.md:3: there is no gap 'softmax-rov'; there are: adam-moments "*" softmax-row "*) ;;
    *) echo "$said"; failing "a gap that is not there: the message lists those that are" ;;
  esac
  SOLUTIONS=no lessons/book/make_book.sh "$folder" || failing "the book without solutions is not made"
  if grep -lq 'class="excerpt"' "$folder"/*.html || ls "$folder" | grep -q 'notes\|teaching'; then
    failing "SOLUTIONS=no leaves solutions or notes in the book"
  fi
  lessons/book/make_book.sh "$folder" || failing "the book is not made"
  # A page made just now, small, beside the recorded one.
  if ! [ -x "$attention" ]; then
    skip "a new attention page: $attention is not built (make check-book builds it)"
  elif ! "$attention" --length 10 --epochs 3 --train-size 500 --sequences 2 \
    --out "$folder/attention-small.html" > "$folder/log"; then
    failing "$attention"
  fi
fi
SKIPPED=$skipped python3 lessons/book/check_book.py "$browser" "$folder" ${SCREENSHOTS:+"$SCREENSHOTS"}
