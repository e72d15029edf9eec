#!/bin/bash
# Lesson 13 at the paper's size: trains, and measures the loss around the models with `focus
# surface`. For a machine with a GPU. What is there is not made again; started again it goes on.
#
#   lessons/13-loss-surface/paper.sh OUT [TASK.ACTIVATION.PART ...]
#
# PART is `fine`, the paper's 200 x 200 points around the last weights of its training seed; `seeds`,
# 41 x 41 points with five training seeds and five pairs of directions each (list operations: three
# and two), around the last weights and at equal training loss; or `models`, the training for
# `seeds` alone. Without parts: all of the design, the most telling first.
# Then `build/lesson-13 --scale paper --out OUT` makes table, figures and verdict of OUT/surfaces, in
# OUT/lesson-13/paper; it needs nothing else of OUT. OUT/surfaces/made-on.txt says on which machine they were made.
#
# SKIP_MATCHED=1 leaves out those at equal training loss. Settings: SEEDS (those of `seeds`), MECHANISMS
# (full topk) of `models`, ROWS of `seeds` (500), PRECISION of `fine` (fp32); and lessons/paper_runs.sh's.
out=${1:?usage: paper.sh OUT [TASK.ACTIVATION.PART ...]}
shift
. "$(dirname "$0")/../paper_runs.sh"
[ $# -gt 0 ] || set -- {even-pairs,missing-duplicate}.relu.{seeds,fine} {parity,list-operations}.relu.seeds \
  {even-pairs,missing-duplicate}.gelu.fine {parity,list-operations}.{relu,gelu}.fine
matched_loss=0.1 mechanisms=${MECHANISMS:-full topk}
first=140439608 # the paper's for this
made_on "$out/surfaces"

# matched TASK ACTIVATION MECHANISM SEED...: RUN.matched/SEED.safetensors, each as it is after the
# first epoch whose training loss is at most 0.1. A run is the beginning of every longer one: one
# more stops at each of these epochs.
matched() {
  local task=$1 activation=$2 mechanism=$3 folder seed epoch
  shift 3
  for seed; do
    folder=$(run "$task" "$activation" "$mechanism" "$seed")
    awk -F, -v seed="$seed" -v loss=$matched_loss -v folder="$folder" \
      '$2 == seed && $3 <= loss {print $1, seed, folder; exit}' "$folder/metrics.csv"
  done | sort -n | while read -r epoch seed folder; do
    [ ! -f "$folder.matched/$seed.safetensors" ] || continue
    train "$folder.matched" "$task" "$activation" "$mechanism" "$seed" "$epoch" < /dev/null
    cp "$folder.matched/seed-$seed/last.safetensors" "$folder.matched/$seed.safetensors"
  done
}

# models TASK ACTIVATION SEED...: what `seeds` needs.
models() {
  local mechanism seed
  for mechanism in $mechanisms; do
    for seed in "${@:3}"; do
      train "$(run "$1" "$2" "$mechanism" "$seed")" "$1" "$2" "$mechanism" "$seed"
    done
    [ -n "${SKIP_MATCHED:-}" ] || matched "$1" "$2" "$mechanism" "${@:3}"
  done
}

# surface NAME GRID SAMPLES PRECISION DATA DIRECTION FULL TOPK: three side by side, since half of the
# time of a small one is its start.
surface() {
  local file=$out/surfaces/$1.json precision=(--precision "$4")
  [ "$device" = cpu ] && precision=()
  [ -f "$file" ] && return
  while [ "$(jobs -rp | wc -l)" -ge 3 ]; do wait -n; done
  $focus surface --checkpoint "$7" "$8" --data "$5" --grid "$2" --samples "$3" --seed "$6" \
    --device "$device" "${precision[@]}" --out "$file" > "$out/surfaces/$1.txt" 2>&1 &
}

for part in "$@"; do
  say "$part"
  IFS=. read -r task activation kind <<< "$part"
  if [ "$kind" = fine ]; then
    samples=5000 precision="precision: ${PRECISION:-fp32} (200 x 200)"
    [ "$task" = list-operations ] && samples=500
    grep -qxF "$precision" "$out/surfaces/made-on.txt" || echo "$precision" >> "$out/surfaces/made-on.txt"
    SKIP_MATCHED=1 models "$task" "$activation" $first
    surface "$task.$activation.fine.$first.1" "${FINE:-200}" "$samples" "${PRECISION:-fp32}" \
      "$(rows "$task" $first)" 1 \
      "$(run "$task" "$activation" full $first)/seed-$first/last.safetensors" \
      "$(run "$task" "$activation" topk $first)/seed-$first/last.safetensors"
    wait
    cat "$out/surfaces/$task.$activation.fine.$first.1.txt"
    continue
  fi
  samples=${ROWS:-500} directions=5 seeds="$first 153476998 235510766 205084180 129959864"
  [ "$task" = list-operations ] && samples=500 directions=2 seeds="$first 153476998 235510766"
  seeds=${SEEDS:-$seeds}
  # shellcheck disable=SC2086  # several words
  models "$task" "$activation" $seeds
  [ "$kind" = models ] && continue
  for seed in $seeds; do
    data=$(rows "$task" "$seed")
    full=$(run "$task" "$activation" full "$seed") topk=$(run "$task" "$activation" topk "$seed")
    for direction in $(seq $directions); do
      surface "$task.$activation.last.$seed.$direction" 41 "$samples" fp32 "$data" "$direction" \
        {"$full","$topk"}/seed-"$seed"/last.safetensors
      # One that never gets to that loss has no pair.
      [ -f "$full.matched/$seed.safetensors" ] && [ -f "$topk.matched/$seed.safetensors" ] || continue
      surface "$task.$activation.matched.$seed.$direction" 41 "$samples" fp32 "$data" "$direction" \
        {"$full","$topk"}.matched/"$seed".safetensors
    done
  done
  wait
done
