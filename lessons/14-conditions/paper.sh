#!/bin/bash
# Table 6 at the paper's size over its ten seeds: trains full attention and top-5, and measures each
# pair with `focus stability` on the first 1000 training rows. For a machine with a GPU. What is
# there is not made again; lesson 13's paper.sh shares its models, if it is given the same OUT.
#
#   lessons/14-conditions/paper.sh OUT [TASK ...]        without tasks: all eight
#
# Then `build/lesson-14 --scale paper --out OUT` makes table, figure and verdict of OUT/stability; it
# needs nothing else of OUT. OUT/stability/made-on.txt says on which machine they were made.
# Settings: DEVICE (cuda), TRAIN: more flags for `focus train`.
set -eu
out=${1:?usage: paper.sh OUT [TASK ...]}
shift
[ $# -gt 0 ] || set -- even-pairs missing-duplicate stack-manipulation modular-arithmetic \
  solve-equation cycle-navigation parity list-operations
focus=build/focus device=${DEVICE:-cuda}
mkdir -p "$out/stability" "$out/data" "$out/models"
"$(dirname "$0")"/../made-on.sh "$device" "$out/stability"

for task in "$@"; do
  for attention in full "topk --k 5"; do
    dir=$out/models/$task.relu.${attention%% *}
    command="train --task $task --attention $attention --activation relu --seeds 10"
    command+=" --device $device ${TRAIN:-} --out $dir"
    [ ! -f "$dir/settings.json" ] || command="resume $dir"
    # shellcheck disable=SC2086  # several words
    $focus $command > "$dir.log" 2>&1 || { tail -3 "$dir.log"; exit 1; }
  done
  for dir in "$out/models/$task.relu.topk"/seed-*; do
    seed=${dir##*-} length=40 data_seed=${dir##*-}
    [ "$task" = list-operations ] && length=600 data_seed=1
    case ${TRAIN:-} in *--length*) length=${TRAIN#*--length } length=${length%% *} ;; esac
    data=$out/data/$task.$seed.tsv file=$out/stability/$task.$seed.json
    [ -f "$data" ] || $focus data generate --task "$task" --count 5000 --length $length \
      --seed "$data_seed" --out "$data" > /dev/null
    [ -f "$file" ] || $focus stability --checkpoint "$dir/last.safetensors" \
      --full "$out/models/$task.relu.full/seed-$seed/last.safetensors" --data "$data" \
      --samples "${ROWS:-1000}" --device "$device" --out "$file" > /dev/null
  done
done
