#!/bin/sh
# Recordings of kernels' speed, and the version of the code that they time. A recording carries a line
#
#   # code: HASH WHAT: FILE...
#
# for each kernel or set of kernels in it, and the commit. HASH is that of the files and of the .cuh files that they
# include, without comments and blanks: a comment may change, code may not. A number is stale if the
# code that it times now has another hash.
#
#   tests/recordings.sh stamp FILE.csv...   writes these lines; right after recording
#                                           VERSION=commit where there is no git
#   tests/recordings.sh check               lists what is stale and the pages that show it, and recordings
#                                           that name no hardware, date or version; STRICT=1: status 1
#   tests/recordings.sh selftest            does it notice changed code?
set -u
cd "$(dirname "$0")/.." || exit 2
date_form='20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]'

# Rungs that a table of the ladder has rows of, as in the files' names: 01, 02, ...
rungs_in() {
  awk -F, '/^#/ {next}
    !column {for (i = 1; i <= NF; ++i) if ($i == "rung") column = i; next}
    {printf "%02d\n", $column}' "$1" | sort -u
}

# WHAT: FILE... for each kernel of a recording; nothing for one that times no kernels.
kernels_of() {
  fused="fused: cuda/stepper/fused_blocks.cu $(echo cuda/fast/blocks/block_*.cu cuda/fast/attention/*.cu)"
  fused_fp32="fused in float32: cuda/stepper/fused_blocks.cu $(echo cuda/fast/blocks/block_*ward.cu cuda/fast/attention/1[4-7]_*.cu)"
  short="short sequences: cuda/ops/attention_short.cu cuda/fast/blocks/short_sequences.cu"
  steps="operations and graph: cuda/stepper/plain_blocks.cpp cuda/stepper/model_pass.cpp $(echo cuda/ops/*.cu)
one: cuda/one_launch/step_fp32.cu"
  case $1 in
    cuda/results/ladder* | cuda/results/screening* | cuda/results/attention_precision* | cuda/results/sweep*)
      for rung in $(rungs_in "$1") $(case $1 in *sweep*) echo 04 05 11 ;; esac); do
        for file in cuda/attention/"$rung"_*.cu cuda/fast/attention/"$rung"_*.cu; do
          [ ! -f "$file" ] || echo "rung $rung: $file"
        done
      done ;;
    */attention_h200.csv)
      echo "ours full: cuda/attention/04_register_tiles.cu cuda/attention/05_recomputed_backward.cu"
      echo "ours topk: $(echo cuda/attention/09_*.cu cuda/attention/11_*.cu cuda/fast/attention/1[67]_*.cu)"
      echo "ours banded and block: $(echo cuda/attention/13_*.cu)" ;;
    */launch_rungs.csv) echo "$steps" ;;
    */gpu_step.csv) echo "$steps"; echo "$fused" ;;
    */even_pairs_seconds*) echo "$steps"; echo "$fused"; echo "$short" ;;
    */evaluation_h200.csv) echo "$steps"; echo "$fused_fp32" ;;
    */text_step_h200.csv)
      echo "$steps" | head -n 1
      echo "causal: $(echo cuda/attention/0[459]_*.cu cuda/attention/11_*.cu)" ;;
    */fused_blocks*) echo "$fused" ;;
    */surface_h200.csv) echo "$short"; echo "$fused" ;;
  esac
}

# The files and the .cuh files that they include, each once.
with_includes() {
  todo=$* seen=
  while [ -n "$todo" ]; do
    # shellcheck disable=SC2086
    set -- $todo
    file=$1
    shift
    todo=$*
    case " $seen " in *" $file "*) continue ;; esac
    seen="$seen $file"
    todo="$todo $(sed -n 's/^#include "\(cuda\/.*\.cuh\)"$/\1/p' "$file" | tr '\n' ' ')"
    todo=${todo% }
  done
  # shellcheck disable=SC2086
  printf '%s\n' $seen
}

hash_of() {  # hash_of FILE...
  for file in "$@"; do [ -f "$file" ] || { echo gone; return; }; done
  with_includes "$@" | LC_ALL=C sort | xargs cat | sed 's://.*::' | tr -d ' \t\n' | sha256sum | cut -c 1-12
}

stamp() {
  for csv in "$@"; do
    [ -f "$csv" ] || { echo "$csv: there is no such file" >&2; exit 2; }
    {
      sed -n '/^#/!q;/^# \(code\|version\): /!p' "$csv"
      sed -n '/^#/!q;p' "$csv" | grep -qE "$date_form" || echo "# date: $(date -u +%Y-%m-%d)"
      version=${VERSION:-$(git describe --always --dirty --abbrev=8 2> /dev/null)}
      [ -z "$version" ] || echo "# version: commit $version"
      kernels_of "$csv" | while read -r line; do
        # shellcheck disable=SC2086
        echo "# code: $(hash_of ${line#*: }) $line"
      done
      awk '!/^#/ {body = 1} body' "$csv"
    } > "$csv.new" && mv "$csv.new" "$csv"
  done
}

list_stale() {
  faults=0
  pages="README.md cuda/README.md cuda/fast/README.md tests/pytorch/README.md $(echo lessons/[0-9]*/README.md lessons/[0-9]*/NOTES.md)"
  for csv in cuda/results/*.csv tests/pytorch/results/*.csv lessons/[0-9]*/results/*.csv \
    lessons/[0-9]*/results/*/*.csv; do
    case $csv in */predicted_ms.csv) continue ;; esac  # by hand
    [ -f "$csv" ] || continue
    head=$(sed -n '/^#/!q;p' "$csv")
    lacks=
    echo "$head" | grep -qiE 'hardware|NVIDIA' || lacks=hardware
    echo "$head" | grep -qE "$date_form" || lacks="$lacks date"
    echo "$head" | grep -qE '^# (code|version|source): |commit' || lacks="$lacks version"
    [ -z "$lacks" ] || { echo "$csv names no ${lacks# }"; faults=$((faults + 1)); }
    echo "$head" | sed -n 's/^# code: //p' > "$log"
    while read -r hash what; do
      # shellcheck disable=SC2086
      [ "$(hash_of ${what#*: })" = "$hash" ] || echo "${what%%:*}"
    done < "$log" | sort -u > "$log-stale"
    [ -s "$log-stale" ] || continue
    faults=$((faults + 1))
    grep -q unknown "$log" && why="recorded before code was stamped" || why="its code has changed"
    # shellcheck disable=SC2086
    echo "stale: $csv: $(paste -s -d, "$log-stale" | sed 's/,/, /g') ($why). Shown in: $(grep -l "$(basename "$csv")" $pages 2> /dev/null | tr '\n' ' ')"
  done
  [ "$faults" -eq 0 ] || echo "$faults recordings are stale or incomplete: record them anew and run tests/recordings.sh stamp"
  [ -z "${STRICT:-}" ] || [ "$faults" -eq 0 ]
}

# In a copy: a comment does not make a recording stale, code does, and STRICT=1 fails on it.
selftest() {
  . tests/check.sh
  copy=$(mktemp -d) && trap 'rm -rf "$copy" "$log" "$log-stale"' EXIT
  mkdir -p "$copy/cuda/results" "$copy/tests" && cp -r cuda/attention "$copy/cuda" && cp "$0" "$copy/tests/"
  csv=cuda/results/ladder_test.csv kernel=$copy/cuda/attention/09_topk_gated.cu
  printf '%s\n' '# NVIDIA test' 'rung,ms' '9,1.5' '10,2' > "$copy/$csv"
  VERSION=test "$copy/tests/recordings.sh" stamp $csv
  check "a recording that was just stamped is not stale" env STRICT=1 "$copy/tests/recordings.sh" check
  sed -i '1s://:// another comment:' "$kernel"
  check "nor is it after a change in a comment" env STRICT=1 "$copy/tests/recordings.sh" check
  echo 'int changed;' >> "$copy/cuda/attention/tile.cuh"
  if STRICT=1 "$copy/tests/recordings.sh" check > "$log"; then bad "changed code fails STRICT=1"; else ok "changed code fails STRICT=1"; fi
  check "the stale rung is named, and no other" grep -q "ladder_test.csv: rung 09 (its code" "$log"
  check "without STRICT it is only listed" "$copy/tests/recordings.sh" check
  print_sum
}

log=$(mktemp) || exit 2
trap 'rm -f "$log" "$log-stale"' EXIT
case ${1:-} in
  stamp) shift && stamp "$@" ;;
  check) list_stale ;;
  selftest) selftest ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
