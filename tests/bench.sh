#!/bin/sh
# `make bench`: milliseconds of a training step (forward, backward, clip, SGD) at the paper's two
# shapes, and how two runs share two threads.   tests/bench.sh build/focus
set -u
focus=$1
row() {  # row LENGTH BLOCKS ATTENTION [FLAGS]: median and fastest step
  length=$1 blocks=$2
  shift 2
  printf '%6s %7s  %-14s' "$length" "$blocks" "$*"
  "$focus" bench step --threads "$threads" --length "$length" --blocks "$blocks" --attention "$@" |
    sed -n 's/^ms: min \([0-9.]*\) .* median \([0-9.]*\) .*/\2 \1/p' |
    { read -r median fastest; printf '%10s %10s\n' "$median" "$fastest"; }
}
threads=$(nproc 2> /dev/null || echo 2)
[ "$threads" -le 2 ] || threads=2
echo "ms per training step, batch 25, d = 64, dropout 0.01, $threads threads"
echo "length  blocks  attention         median    fastest"
for shape in "40 5" "600 10"; do
  for attention in "full" "topk --k 5" "banded --k 5" "block --k 5"; do
    row $shape $attention
  done
done
echo
"$focus" bench step --device cpu --attention topk --k 5 --threads 2 --seeds 2
