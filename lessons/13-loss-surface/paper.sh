#!/bin/bash
# Lesson 13 at the paper's size: trains, and measures the loss around the models with `focus
# surface`. For a machine with a GPU. What is there is not made again; started again it goes on.
#
#   lessons/13-loss-surface/paper.sh OUT [TASK.ACTIVATION.PART ...]
#
# PART is `fine`, the paper's 200 x 200 points around the last weights of its training seed, or
# `seeds`, 41 x 41 points with five training seeds and five pairs of directions each, around the last
# weights and at equal training loss. Without parts: all of the design, the most telling first.
# Then `build/lesson-13 --scale paper --out OUT` makes table, figure and verdict of OUT/surfaces.
#
# SKIP_MATCHED=1 leaves the latter out. Settings: DEVICE (cuda), ROWS of `seeds` (500), PRECISION of `fine` (fp32), TRAIN: more flags for
# `focus train`.
set -eu
out=${1:?usage: paper.sh OUT [TASK.ACTIVATION.PART ...]}
shift
[ $# -gt 0 ] || set -- {even-pairs,missing-duplicate}.relu.{seeds,fine} {parity,list-operations}.relu.seeds \
  {even-pairs,missing-duplicate}.gelu.fine {parity,list-operations}.{relu,gelu}.fine
focus=build/focus device=${DEVICE:-cuda} matched_loss=0.1
seeds=(140439608 153476998 235510766 205084180 129959864) # the paper's for this, and four more
mkdir -p "$out/surfaces" "$out/data" "$out/models"

# train TASK ACTIVATION: both mechanisms, all ten seeds at once.
train() {
  local attention dir
  for attention in full "topk --k 5"; do
    dir=$out/models/$1.$2.${attention%% *}
    [ -f "$dir/metrics.csv" ] && continue
    # shellcheck disable=SC2086  # two words, several flags
    $focus train --task "$1" --attention $attention --activation "$2" --seeds 10 --device "$device" \
      ${TRAIN:-} --out "$dir" > "$dir.log" 2>&1 || { tail -3 "$dir.log"; return 1; }
  done
}

# at_loss TASK ACTIVATION SEED: both as they are after the first epoch whose training loss is at most
# 0.1. A run is the beginning of every longer one.
at_loss() {
  [ -z "${SKIP_MATCHED:-}" ] || return 0
  local attention dir epoch
  for attention in full "topk --k 5"; do
    dir=$out/models/$1.$2.${attention%% *}.$3
    [ -f "$dir/seed-$3/last.safetensors" ] && continue
    epoch=$(awk -F, -v seed="$3" -v loss=$matched_loss '$2 == seed && $3 <= loss {print $1; exit}' \
      "$out/models/$1.$2.${attention%% *}/metrics.csv")
    [ -n "$epoch" ] || return 0 # it never gets there: no pair
    # shellcheck disable=SC2086
    $focus train --task "$1" --attention $attention --activation "$2" --seed "$3" --epochs "$epoch" \
      --device "$device" ${TRAIN:-} --out "$dir" > "$dir.log" 2>&1
  done
}

# rows TASK SEED: the rows that seed trains on.
rows() {
  local file=$out/data/$1.$2.tsv seed=$2 length=40
  [ "$1" = list-operations ] && seed=1 length=600
  case ${TRAIN:-} in *--length*) length=${TRAIN#*--length } length=${length%% *} ;; esac
  [ -f "$file" ] || $focus data generate --task "$1" --count 5000 --length $length --seed "$seed" \
    --out "$file" > /dev/null
  echo "$file"
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
  IFS=. read -r task activation kind <<< "$part"
  train "$task" "$activation"
  last=$out/models/$task.$activation
  if [ "$kind" = fine ]; then
    samples=5000
    [ "$task" = list-operations ] && samples=500
    seed=${seeds[0]}
    surface "$task.$activation.fine.$seed.1" "${FINE:-200}" "$samples" "${PRECISION:-fp32}" \
      "$(rows "$task" "$seed")" 1 "$last".{full,topk}/seed-"$seed"/last.safetensors
    wait
    cat "$out/surfaces/$task.$activation.fine.$seed.1.txt"
    continue
  fi
  samples=${ROWS:-500} directions=5 some=("${seeds[@]}")
  [ "$task" = list-operations ] && samples=500 directions=2 some=("${seeds[@]:0:3}")
  for seed in "${some[@]}"; do
    data=$(rows "$task" "$seed")
    at_loss "$task" "$activation" "$seed"
    for direction in $(seq $directions); do
      surface "$task.$activation.last.$seed.$direction" 41 "$samples" fp32 "$data" "$direction" \
        "$last".{full,topk}/seed-"$seed"/last.safetensors
      [ -d "$last.full.$seed" ] && [ -d "$last.topk.$seed" ] || continue
      surface "$task.$activation.matched.$seed.$direction" 41 "$samples" fp32 "$data" "$direction" \
        "$last".{full,topk}."$seed"/seed-"$seed"/last.safetensors
    done
  done
  wait
done
