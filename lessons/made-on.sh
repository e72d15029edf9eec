#!/bin/bash
# Says on which machine a folder's measurements are made, in FOLDER/made-on.txt: lines "hardware: …",
# "date: …", "version: …", each once. The lessons' paper.sh call it, and `lesson-NN --scale paper`
# puts the lines above its tables.
#
#   lessons/made-on.sh cpu|cuda FOLDER
set -eu
device=$1 file=$2/made-on.txt
hardware=$(build/focus bench step --device "$device" --length 8 --blocks 1 --repeats 1 2> /dev/null |
  sed -n 's/^cuda (\(.*\)), [0-9]* model(s):.*/\1/p')
commit=$(git rev-parse --short HEAD 2> /dev/null || echo "${COMMIT:-unknown}")
{
  [ ! -f "$file" ] || cat "$file"
  echo "hardware: ${hardware:-$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)}"
  echo "date: $(date -u +%Y-%m-%d)"
  echo "version: commit $commit"
} | awk '!seen[$0]++' > "$file.new"
mv "$file.new" "$file"
