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
skip() {
  echo "skipped: the book: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}
command -v pandoc > /dev/null || skip "pandoc is missing (apt-get install pandoc)"
command -v python3 > /dev/null || skip "python3 is missing, which drives the browser"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  skip "no chromium to open it with (apt-get install chromium)"

folder=${1:-} attention=${ATTENTION:-build/attention} skipped=0
if [ -z "$folder" ]; then
  folder=out/book-check
  trap 'rm -rf out/book-check' EXIT
  trap 'exit 130' INT TERM
  if ! lessons/book/make_book.sh "$folder"; then
    echo "0 passed, 1 failed"
    exit 1
  fi
  # A page made just now, small, beside the recorded one.
  if ! [ -x "$attention" ]; then
    echo "skipped: a new attention page: $attention is not built (make check-book builds it)"
    skipped=1
  elif ! "$attention" --length 10 --epochs 3 --train-size 500 --sequences 2 \
    --out "$folder/attention-small.html" > "$folder/log"; then
    echo "0 passed, 1 failed"
    exit 1
  fi
fi
SKIPPED=$skipped python3 lessons/book/check_book.py "$browser" "$folder" ${SCREENSHOTS:+"$SCREENSHOTS"}
