# shellcheck shell=bash
# What the paper.sh of lessons 13 and 14 share, read by them: trained models at the paper's size in
# OUT/models, each made once, and the rows they were trained on. Given the same OUT, the lessons share
# them. Settings, from the environment:
#   DEVICE      cuda or cpu (cuda)
#   ALONE=1     trains each seed as a run of its own, as is always done for list operations;
#               otherwise the paper's ten seeds are one run
#   TRAIN       more flags for `focus train`
set -eu
out=${out:?}
focus=build/focus device=${DEVICE:-cuda}

# say WORDS: how far it is. What a part prints goes to stdout.
say() { echo "$(date +%T)  $*" >&2; }

# run TASK ACTIVATION MECHANISM SEED: the folder of the run that trains this seed.
run() {
  local folder=$out/models/$1.$2.$3
  [ "$1" != list-operations ] && [ -z "${ALONE:-}" ] || folder+=.$4
  echo "$folder"
}

# train TASK ACTIVATION MECHANISM SEED: the run that trains this seed, if it is not there. For lesson
# 13 the weights at a training loss of 0.1 are kept, too; of list operations those at 2, which was set
# before the run: the study counts this task's epochs to 2.0, and below it the models learn by heart
# (at the end 0.003 to 0.02, with a third of the held-out rows right). Lesson 13's matched_loss_of
# has the same numbers.
train() {
  local folder command at=0.1
  [ "$1" != list-operations ] || at=2
  folder=$(run "$@")
  command=(train --task "$1" --activation "$2" --attention "$3" --device "$device"
    --keep-at-loss $at)
  [ ! -f "$folder/trained" ] || return 0
  [ "$3" = full ] || command+=(--k 5)
  # All ten seeds of the paper at once, if the folder is not one seed's.
  case $folder in *."$4") command+=(--seed "$4") ;; *) command+=(--seeds 10) ;; esac
  # shellcheck disable=SC2206  # several flags
  command+=(${TRAIN:-} --out "$folder")
  [ ! -f "$folder/settings.json" ] || command=(resume "$folder")
  say "training $folder"
  mkdir -p "$out/models"
  $focus "${command[@]}" > "$folder.log" 2>&1 || { tail -3 "$folder.log"; return 1; }
  touch "$folder/trained"
}

# rows TASK SEED: the rows that seed trains on.
rows() {
  local file=$out/data/$1.$2.tsv seed=$2 length=40
  [ "$1" = list-operations ] && seed=1 length=600
  case ${TRAIN:-} in *--length*) length=${TRAIN#*--length } length=${length%% *} ;; esac
  mkdir -p "$out/data"
  # Another script may be making it at this moment.
  [ -f "$file" ] || $focus data generate --task "$1" --count 5000 --length "$length" --seed "$seed" \
    --out "$file" > /dev/null 2>&1 || [ -f "$file" ]
  echo "$file"
}

# made_on FOLDER: FOLDER/made-on.txt says on which machine what lies there is made: lines "hardware:
# …", "date: …" and "version: …", each once. `lesson-NN --scale paper` puts them above its table.
made_on() {
  local file=$1/made-on.txt hardware
  mkdir -p "$1"
  hardware=$($focus bench step --device "$device" --length 8 --blocks 1 --repeats 1 2> /dev/null |
    sed -n 's/^cuda (\(.*\)), [0-9]* model(s):.*/\1/p')
  {
    [ ! -f "$file" ] || cat "$file"
    echo "hardware: ${hardware:-$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)}"
    echo "date: $(date -u +%Y-%m-%d)"
    echo "version: commit ${COMMIT:-$(git rev-parse --short HEAD 2> /dev/null || echo unknown)}"
  } | awk '!seen[$0]++' > "$file.$$"
  mv "$file.$$" "$file"
}
