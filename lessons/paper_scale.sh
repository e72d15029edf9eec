#!/bin/bash
# make lesson-NN SCALE=paper where runs of the paper's size are made: says how long they take, makes
# those that are missing, on this machine's GPUs if there are any, and shows what came of them. What
# is there is not made again, so Ctrl-C is safe.
#
#   lessons/paper_scale.sh NN [BUILD]        BUILD: the folder of the programs, build
set -eu -o pipefail
lesson=$1 build=${2:-build} out=out/lesson-$1
show=("$build/lesson-$lesson" --scale paper)
mkdir -p "$out"

case $lesson in
13 | 14)  # trained and measured by a script of their own
  script=$(echo lessons/"$lesson"-*/paper.sh) minutes=125
  [ "$lesson" = 13 ] || minutes=30
  echo "$script $out: about $minutes minutes of one H200, training included, less what is in $out"
  if nvidia-smi -L > /dev/null 2>&1; then
    "$script" "$out"
  else
    echo "No GPU here: it is not started. DEVICE=cpu $script $out PART makes one part; what is there is shown."
  fi
  exec "${show[@]}"
  ;;
15) "${show[@]}" ;;  # makes the text ready, whose folder the table names
esac

table=$(echo lessons/"$lesson"-*/paper.csv) device=cpu
study() { "$build/focus" study "$table" --out "$out/study" --device $device "$@"; }
if "$build/focus" bench step --device cuda --length 8 --blocks 1 --repeats 1 > /dev/null 2>&1; then
  device=cuda
  study --dry-run | tail -n 1  # on the CPU it says so itself
fi
echo "Ctrl-C saves; the same command goes on. First a few steps of each kind of run tell how long it takes."
study
exec "${show[@]}"
