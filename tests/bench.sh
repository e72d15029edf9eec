#!/bin/sh
# `make bench`: milliseconds of a training step (forward, backward, clip, SGD) at the paper's two
# shapes, and how two runs share two threads.   tests/bench.sh build/focus
set -u
focus=$1
row() {
  printf '%-34s' "$*"
  "$focus" bench step --device cpu "$@" | sed -n 's/^ms_per_step //p'
}
threads=$(nproc 2> /dev/null || echo 2)
[ "$threads" -le 2 ] || threads=2
echo "ms per training step, batch 25, d = 64, dropout 0.01, $threads threads"
for attention in "full" "topk --k 5" "banded --k 5" "block --k 5"; do
  row --threads "$threads" --attention $attention --length 40 --blocks 5
done
for attention in "full" "topk --k 5" "banded --k 5"; do
  row --threads "$threads" --attention $attention --length 600 --blocks 10 --repeats 5
done
echo
"$focus" bench step --device cpu --attention topk --k 5 --threads 2 --seeds 2
