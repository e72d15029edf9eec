#!/bin/bash
# Table 6 at the paper's size over its ten seeds (list operations: three): trains full attention and
# top-5, and measures each pair with `focus stability` on the first 1000 training rows. For a machine
# with a GPU. What is there is not made again; lesson 13's paper.sh shares its models, if it is given
# the same OUT.
#
#   lessons/14-conditions/paper.sh OUT [TASK ...]        without tasks: all eight
#
# Then `build/lesson-14 --scale paper --out OUT` makes table, figure and verdict of OUT/stability, in
# OUT/lesson-14/paper; it needs nothing else of OUT. OUT/stability/made-on.txt says on which machine they were made.
# Settings: SEEDS, ROWS (1000), and lessons/paper_runs.sh's.
out=${1:?usage: paper.sh OUT [TASK ...]}
shift
. "$(dirname "$0")/../paper_runs.sh"
[ $# -gt 0 ] || set -- even-pairs missing-duplicate stack-manipulation modular-arithmetic \
  solve-equation cycle-navigation parity list-operations
made_on "$out/stability"

for task in "$@"; do
  say "$task"
  seeds="140439608 153476998 235510766"
  [ "$task" = list-operations ] ||
    seeds+=" 205084180 129959864 149896109 145017219 162518970 245293503 152674004"
  for seed in ${SEEDS:-$seeds}; do
    file=$out/stability/$task.$seed.json
    [ ! -f "$file" ] || continue
    for mechanism in full topk; do
      train "$task" relu $mechanism "$seed"
    done
    $focus stability --checkpoint "$(run "$task" relu topk "$seed")/seed-$seed/last.safetensors" \
      --full "$(run "$task" relu full "$seed")/seed-$seed/last.safetensors" \
      --data "$(rows "$task" "$seed")" --samples "${ROWS:-1000}" --device "$device" --out "$file" \
      > /dev/null
  done
done
