#!/bin/sh
# Times a training step of the paper's short models on the GPU in the three ways that lesson 16
# compares, for one run and for ten, and writes cuda/results/launch_rungs.csv. About a minute.
#
#   tests/pytorch/record_launches.sh [FOCUS] [FILE]
#
# Then: make lesson-16, put what it wrote (out/lesson-16) into lessons/16-one-launch/results, make tables.
set -u
focus=${1:-build/focus} file=${2:-cuda/results/launch_rungs.csv}
length=40 blocks=5 batch=25
log=$(mktemp) || exit 2
trap 'rm -f "$log" "$log.rows"' EXIT
hardware=
for runs in 1 10; do
  for attention in "full" "topk --k 5"; do
    for launch in operations graph one; do
      # shellcheck disable=SC2086
      "$focus" bench step --device cuda --launch $launch --attention $attention --seeds $runs \
        --length $length --blocks $blocks --batch $batch > "$log" || exit
      hardware=$(sed -n 's/^cuda (\(.*\)), [0-9]* model(s):.*/\1/p' "$log")
      kernels=$(sed -n 's/^kernels: \([^ ]*\) .*/\1/p' "$log")
      floor=$(sed -n 's/^floor *\([^ ]*\) ms.*/\1/p' "$log")
      times=$(sed -n 's/^ms: .*quartile \([^ ]*\)  median \([^ ]*\)  quartile \([^ ]*\) .*/\2,\1,\3/p' "$log")
      [ -n "$kernels" ] && [ -n "$floor" ] && [ -n "$times" ] || { cat "$log"; exit 1; }
      row="$launch,${attention%% *},$runs,$kernels,$floor,$times"
      echo "$row"
      echo "$row" >> "$log.rows"
    done
  done
done
{
  echo "# $hardware"
  echo "# $(date -u +%Y-%m-%d), focus bench step --device cuda --launch …; float32, length $length, $blocks blocks, width 64,"
  echo "# batch $batch, dropout 0.01, SGD; ms a step of all runs, as the host's clock sees it: medians and quartiles of"
  echo "# series of 20 steps, one launch: of launches of 64; floor: the multiply-adds on the whole GPU"
  echo "launch,attention,runs,kernels_a_step,floor_ms,ms,quartile1,quartile3"
  cat "$log.rows"
} > "$file"
