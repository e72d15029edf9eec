#!/bin/bash
# Lesson 13 at the paper's size: trains, and measures the loss around the models with `focus
# surface`. For a machine with a GPU. What is there is not made again; started again it goes on.
#
#   lessons/13-loss-surface/paper.sh OUT [TASK.ACTIVATION.PART ...]
#
# PART is `fine`, the paper's 200 x 200 points around the last weights of its training seed; `seeds`,
# 41 x 41 points with five training seeds and five pairs of directions each (list operations: three
# and two), around the last weights and at equal training loss, 0.1 (list operations: 2); or
# `models`, the training for `seeds` alone. Without parts: all of the design, the most telling first.
# Then `build/lesson-13 --scale paper --out OUT` makes table, figures and verdict of OUT/surfaces, in
# OUT/lesson-13/paper; it needs nothing else of OUT. OUT/surfaces/made-on.txt says on which machine they were made.
#
# Settings: SEEDS (those of `seeds`), ROWS of `seeds` (500), PRECISION of `fine` (3xtf32), SKIP_MATCHED=1
# (nothing at equal training loss), and lessons/paper_runs.sh's. MECHANISMS=full, or topk, makes its
# half, so that two GPUs can share the work: the surfaces have the mechanism's name then, and those of
# both may lie in one OUT.
out=${1:?usage: paper.sh OUT [TASK.ACTIVATION.PART ...]}
shift
. "$(dirname "$0")/../paper_runs.sh"
[ $# -gt 0 ] || set -- {even-pairs,missing-duplicate}.relu.{seeds,fine} {parity,list-operations}.relu.seeds \
  {even-pairs,missing-duplicate}.gelu.fine {parity,list-operations}.{relu,gelu}.fine
mechanisms=${MECHANISMS:-full topk}
first=140439608 # the paper's for this
made_on "$out/surfaces"

# models TASK ACTIVATION SEED...: what `seeds` needs.
models() {
  local mechanism seed
  for mechanism in $mechanisms; do
    for seed in "${@:3}"; do train "$1" "$2" "$mechanism" "$seed"; done
  done
}

# surface TASK ACTIVATION STATE SEED DIRECTION WEIGHTS GRID SAMPLES PRECISION: around WEIGHTS (last,
# at-loss) of the mechanisms that have them, both in one file. Three side by side, since half of the
# time of a small one is its start.
surface() {
  local mechanism name=$1.$2.$3.$4.$5 flags=(--precision "$9") checkpoints=() file
  [ "$mechanisms" = "full topk" ] || name+=.$mechanisms
  [ "$device" != cpu ] || flags=()
  [ ! -f "$out/surfaces/$name.json" ] || return 0
  for mechanism in $mechanisms; do
    file=$(run "$1" "$2" "$mechanism" "$4")/seed-$4/$6.safetensors
    [ -f "$file" ] || return 0 # it never got to that loss: there is no pair
    checkpoints+=("$file")
  done
  while [ "$(jobs -rp | wc -l)" -ge 3 ]; do wait -n; done
  $focus surface --checkpoint "${checkpoints[@]}" --data "$(rows "$1" "$4")" --grid "$7" --samples "$8" \
    --seed "$5" --device "$device" "${flags[@]}" --out "$out/surfaces/$name.json" \
    > "$out/surfaces/$name.txt" 2>&1 &
}

fine() {
  local samples=5000 precision=${PRECISION:-3xtf32} ALONE=${ALONE:-} note
  note="precision: $precision (200 x 200)"
  [ "$1" != list-operations ] || samples=500
  grep -qxF "$note" "$out/surfaces/made-on.txt" || echo "$note" >> "$out/surfaces/made-on.txt"
  # One seed is enough, unless the ten are there.
  [ -d "$out/models/$1.$2.${mechanisms%% *}" ] || ALONE=1
  models "$1" "$2" $first
  surface "$1" "$2" fine $first 1 last "${FINE:-200}" "$samples" "$precision"
  wait
  cat "$out/surfaces/$1.$2.fine.$first.1"*.txt
}

seeds() {
  local samples=${ROWS:-500} directions=5 all="$first 153476998 235510766 205084180 129959864" seed direction
  [ "$1" != list-operations ] || directions=2 all="$first 153476998 235510766"
  all=${SEEDS:-$all}
  # shellcheck disable=SC2086  # several words
  models "$1" "$2" $all
  [ "$3" = seeds ] || return 0
  for seed in $all; do
    for direction in $(seq $directions); do
      surface "$1" "$2" last "$seed" "$direction" last 41 "$samples" fp32
      [ -n "${SKIP_MATCHED:-}" ] || surface "$1" "$2" matched "$seed" "$direction" at-loss 41 "$samples" fp32
    done
  done
  wait
}

for part in "$@"; do
  say "$part"
  IFS=. read -r task activation kind <<< "$part"
  case $kind in
    fine) fine "$task" "$activation" ;;
    seeds | models) seeds "$task" "$activation" "$kind" ;;
    *) echo "paper.sh: $part: TASK.ACTIVATION.PART, where PART is fine, seeds or models" >&2; exit 2 ;;
  esac
done
