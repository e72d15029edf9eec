#!/bin/sh
# Records the kernels' speed anew, on a machine with a GPU, and stamps what was recorded.
#
#   tests/record.sh FILE.csv...   these recordings of cuda/results or tests/pytorch/results
#   tests/record.sh stale         those that tests/recordings.sh check names
#   tests/record.sh list          all that it can record
#
# Needs `make` with nvcc (build/focus); for attention_h200.csv, gpu_step.csv and text_step_h200.csv also
# PyTorch, for the first `make build/libfocus-attention.so`. A file is replaced once all of it is measured.
# NOTE=TEXT is written into the recording: what else was at work on the machine.
# ROUNDS (1) is for gpu_step.csv and text_step_h200.csv, SHAPES (A,B,D) for attention_h200.csv, PRECISIONS for even
# pairs and for top-5's surface of 200 x 200 points (tf32).
# Then: make report.
set -u
cd "$(dirname "$0")/.." || exit 2
focus=build/focus
new=$(mktemp) && part=$(mktemp) || exit 2
trap 'rm -f "$new" "$part"' EXIT

all="cuda/results/ladder_h200.csv cuda/results/launch_rungs.csv cuda/results/ladder_small_h200.csv cuda/results/sweep_h200.csv
  cuda/results/attention_precision_h200.csv cuda/results/screening_h200.csv cuda/results/fused_blocks_h200.csv
  cuda/results/evaluation_h200.csv cuda/results/surface_h200.csv tests/pytorch/results/attention_h200.csv tests/pytorch/results/gpu_step.csv
  tests/pytorch/results/even_pairs_seconds_h200.csv tests/pytorch/results/text_step_h200.csv"

hardware() {
  "$focus" bench step --device cuda --length 8 --blocks 1 --repeats 1 |
    sed -n 's/^cuda (\(.*\)), [0-9]* model(s):.*/\1/p'
}
head_lines() { echo "# $(hardware), $(date -u +%Y-%m-%d): $1"; shift; for line; do echo "# $line"; done; }

step_ms() { "$focus" bench step --device cuda "$@" | sed -n 's/^ms_per_step //p'; }

# ladder_part FLAGS...: the rows of `focus bench attention FLAGS`, without their head
ladder_part() {
  "$focus" bench attention --csv "$part" "$@" > /dev/null || exit
  grep -v -e '^#' -e '^rung,' "$part"
}
columns=rung,kernel,pass,pattern,batch,heads,length,width,k,global_tokens,cold_ms,quartile1_ms,quartile3_ms,warm_ms,runs,useful_tflops,dense_tflops,gbytes_per_s,percent_of_roof,error

# ladder FILE FLAGS...: the whole ladder; or, where some rungs of FILE are of older code, these anew
# among the others, whose code is the same (ALL=1: all the same)
ladder() {
  old=$1
  shift
  rungs=$(tests/recordings.sh check | sed -n "s|^stale: $old: \([^(]*\)(its code.*|\1|p" | tr -d ',' | sed 's/rung 0*//g')
  if [ -n "${ALL:-}" ] || [ -z "$rungs" ]; then
    "$focus" bench attention --csv "$part" "$@" > /dev/null && cat "$part"
    return
  fi
  for rung in $rungs; do
    ladder_part "$@" --rung "$rung" > "$part.rung" && [ -s "$part.rung" ] || return
    cat "$part.rung" >> "$part.rungs"
  done
  sed '/^[^#]/,$d; /^# anew/d' "$old"
  echo "# anew on $(date -u +%Y-%m-%d): rungs" $rungs
  awk -F, -v rungs=" $(echo $rungs) " '
    {match($0, /",[a-z]+,[a-z]+,/); key = $1 substr($0, RSTART, RLENGTH)}
    NR == FNR {rows[key] = rows[key] $0 "\n"; next}
    /^#/ {if (body) print; next}
    {body = 1}
    index(rungs, " " $1 " ") == 0 {print; next}
    {printf "%s", rows[key]; rows[key] = ""}' "$part.rungs" "$old"
  rm -f "$part.rung" "$part.rungs"
}

# surface_row PRECISION GRID MS: a row of surface_h200.csv, of the model in $folder/$name
surface_row() {
  "$focus" surface --device cuda --precision "$1" --checkpoint "$folder/$name/seed-140439608/last.safetensors" \
    --data "$folder/rows.tsv" --grid "$2" --out "$folder/$name-$1-$2.json" > "$folder/said" || return
  awk -v row="$name,$1,$3" '
    / points on / {row = row "," $1 "," $(NF - 2)}
    /differs by at most/ {for (i = 1; i < NF; ++i) if ($(i + 1) ~ /^nats/) nats = $i}
    END {print row "," nats}' "$folder/said"
}

measure() {  # measure NAME: the recording, on standard output
  case $1 in
    ladder_h200) ladder cuda/results/ladder_h200.csv ;;
    ladder_small_h200) ladder cuda/results/ladder_small_h200.csv --batch 25 --heads 1 --length 600 ;;
    sweep_h200)
      "$focus" bench attention --attention topk --rung 9 --batch 1 --heads 256 --sweep 1 --csv "$part" > /dev/null && cat "$part" ;;
    launch_rungs) tests/pytorch/record_launches.sh "$focus" "$part" > /dev/null && cat "$part" ;;
    attention_precision_h200)
      head_lines "focus bench attention --attention full --batch 25 --heads 1 --length 600 --width 64 --dropout 0.01" \
        "at each --precision; in float32 rungs 14 and 15. Errors against float64, without dropout."
      echo "precision,$columns"
      for precision in fp32 3xtf32 tf32 bf16; do
        case $precision in fp32) rungs="14 15" ;; *) rungs="18 19" ;; esac
        for rung in $rungs; do
          ladder_part --attention full --batch 25 --heads 1 --length 600 --width 64 --dropout 0.01 \
            --precision $precision --rung "$rung" | sed "s/^/$precision,/"
        done
      done ;;
    screening_h200)
      head_lines "focus bench attention --attention topk --rung N --batch B --heads H --length T --k K, width 64"
      echo "$columns"
      for size in "25 1 96 5" "25 1 160 5" "25 1 320 5" "25 1 600 5" "16 16 2048 5" "16 16 2048 16"; do
        for rung in 9 16 17; do
          # shellcheck disable=SC2086
          set -- $size
          ladder_part --attention topk --rung $rung --batch "$1" --heads "$2" --length "$3" --k "$4" |
            grep ",forward,"
        done
      done ;;
    fused_blocks_h200)
      head_lines "focus bench step --device cuda --attention topk --k 5 --length 600 --blocks 10 --launch fused" \
        "--kernels: microseconds a launch of the kernels of a block, each alone (15000 rows); the mean of its launches in a step."
      echo "precision,kernel,launches,us"
      for precision in fp32 3xtf32 tf32 bf16; do
        "$focus" bench step --device cuda --attention topk --k 5 --length 600 --blocks 10 \
          --launch fused --precision $precision --repeats 1 --kernels |
          awk -v precision=$precision '$4 ~ /output_and_mlp|norm_qkv/ && NF == 4 {printf "%s,%s,%s,%.1f\n", precision, $4, $1, $2 / $1}'
      done ;;
    evaluation_h200)
      head_lines "focus bench step --device cuda [--evaluate] (batch 25, width 64, dropout 0.01, SGD," \
        "float32, as training chooses the form); ms for one batch of all runs: a training step, and the evaluation of as many rows."
      echo "length,blocks,seeds,attention,step_ms,evaluation_ms"
      for row in "40 5 1 full" "40 5 1 topk" "40 5 10 full" "40 5 10 topk" \
        "600 10 10 full" "600 10 10 topk" "600 10 10 banded" "600 10 10 block"; do
        # shellcheck disable=SC2086
        set -- $row
        name=$4 k=
        [ "$name" = full ] || { k="--k 5"; name="$name(5)"; }
        # shellcheck disable=SC2086
        flags="--length $1 --blocks $2 --seeds $3 --attention $4 $k --repeats $((800 / $1))"
        # shellcheck disable=SC2086
        step=$(step_ms $flags) evaluation=$(step_ms $flags --evaluate)
        [ -n "$step" ] && [ -n "$evaluation" ] || exit
        echo "$1,$2,$3,$name,$step,$evaluation"
      done ;;
    surface_h200)
      head_lines "one batch of points (focus bench step --device cuda --evaluate --launch fused --seeds 16 --batch 408" \
        "--length 40 --blocks 5), and focus surface --grid 40 or 200 of a model that was trained for 25 epochs, on 5000 sequences" \
        "of 40 tokens of even pairs: seconds for all points; the largest difference from float32 at 25 of them."
      echo "attention,precision,evaluation_ms,points,seconds,nats_from_float32"
      folder=$(mktemp -d)
      "$focus" data generate --task even-pairs --count 5000 --length 40 --seed 140439608 --out "$folder/rows.tsv" > /dev/null || exit
      for name in "full" "topk(5)"; do
        case $name in full) attention=full ;; *) attention="topk --k 5" ;; esac
        # shellcheck disable=SC2086
        "$focus" train --device cuda --task even-pairs --attention $attention --seed 140439608 --epochs 25 \
          --out "$folder/$name" > /dev/null || exit
        for precision in fp32 3xtf32 tf32 bf16; do
          # shellcheck disable=SC2086
          surface_row $precision 40 "$(step_ms --evaluate --launch fused --seeds 16 --batch 408 --length 40 --blocks 5 \
            --attention $attention --precision $precision --repeats 4)" || exit
        done
      done
      for precision in ${PRECISIONS-tf32}; do surface_row "$precision" 200 "" || exit; done
      rm -rf "$folder" ;;
    attention_h200)
      python3 -X faulthandler tests/pytorch/attention_ratio.py --shapes "${SHAPES:-A,B,D}" --flex --out "$part" > "$part.log" || exit
      cat "$part"; rm -f "$part.log" ;;
    gpu_step)
      python3 tests/pytorch/gpu_step.py --focus "$focus" --rounds "${ROUNDS:-1}" --out "$part" > /dev/null && cat "$part" ;;
    text_step_h200)
      python3 tests/pytorch/text_step.py --device cuda --focus "$focus" --rounds "${ROUNDS:-1}" --out "$part" > /dev/null && cat "$part" ;;
    even_pairs_seconds_h200)
      head_lines "focus train --device cuda --task even-pairs --seeds 10 --epochs 100, attention full or topk" \
        "--k 5, at each --precision: seconds of the whole program, with evaluation and checkpoints after each epoch" \
        "(ten runs together, one launch an epoch part)."
      echo "attention,precision,seconds"
      for precision in ${PRECISIONS:-fp32 tf32 bf16}; do
        for attention in "full" "topk --k 5"; do
          folder=$(mktemp -d)
          begin=$(date +%s.%N)
          # shellcheck disable=SC2086
          "$focus" train --device cuda --task even-pairs --seeds 10 --epochs 100 --precision $precision \
            --attention $attention --out "$folder/run" > /dev/null || exit
          end=$(date +%s.%N)
          rm -rf "$folder"
          case $attention in full) name=full ;; *) name="topk(5)" ;; esac
          awk -v name="$name" -v precision=$precision -v s="$(echo "$begin $end" | awk '{print $2 - $1}')" \
            'BEGIN {printf "%s,%s,%.2f\n", name, precision, s}'
        done
      done ;;
    *) echo "tests/record.sh: I cannot record $1; tests/record.sh list says what" >&2; exit 2 ;;
  esac
}

case ${1:-} in
  "" | -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
  list) for file in $all; do echo "$file"; done; exit 0 ;;
  stale)
    # shellcheck disable=SC2046
    set -- $(tests/recordings.sh check | sed -n 's/^stale: \([^:]*\):.*/\1/p') ;;
esac
for file in "$@"; do
  name=$(basename "$file" .csv)
  (measure "$name") > "$new" || { echo "FAILED $file"; failed=1; continue; }
  [ "$(grep -vc '^#' "$new")" -gt 1 ] || { echo "FAILED $file: nothing was measured"; failed=1; continue; }
  awk 'ENVIRON["NOTE"] != "" && !/^#/ && !body++ {print "# " ENVIRON["NOTE"]} {print}' "$new" > "$file" &&
    tests/recordings.sh stamp "$file" && echo "recorded $file"
done
[ -z "${failed:-}" ]
