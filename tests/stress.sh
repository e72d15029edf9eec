#!/usr/bin/env bash
# `make stress`: hostile files, kills, races, limits and full disks for as long as you give it, and a
# table of what was tried and what was lost.
#
#   tests/stress.sh SECONDS BUILD [SEED]     BUILD has focus and the fuzz_* programs
#   ONLY="full disks" tests/stress.sh ...    one kind alone
#
# JOBS workers (one for each processor) go round all kinds, a share of each at a time, until every
# goal is reached or the time is over. Ctrl-C ends it early and prints the table of what ran. What
# was lost is kept in a folder that the last lines name. Exit status: 0 nothing lost, 1 something
# lost.
set -u
seconds=$1 build=$(realpath "$2") seed=${3:-1} jobs=${JOBS:-$(nproc)}
focus=$build/focus
place=$(mktemp -d) || exit 2
cd "$place" || exit 2
mkdir kept tried lost took
unset OMP_NUM_THREADS

# The kinds, and the goal of each. The workers add numbers to tried/KIND, lost/KIND and took/KIND,
# its seconds. A fuzzer's number is that of its reads: the data file's reads each case as all eight
# tasks.
kinds=() ; declare -A goal
kind() { [ "${ONLY:-$1}" != "$1" ] || kinds+=("$1"); goal[$1]=$2; }
for program in "$build"/fuzz_*; do kind "$(basename "$program")" 10000000; done
kind "kills of train" 200
kind "kills of study" 200
kind "kills of merge" 200
kind "races" 1000
kind "limits" 300
kind "full disks" 100

is_over() { [ -e "$place/stop" ] || [ "$SECONDS" -ge "$seconds" ]; }
sum() { awk '{all += $1} END {print all + 0}' "$place/$1/$2" 2> /dev/null || echo 0; }  # sum tried KIND
is_done() { [ -e "$place/impossible $1" ] || [ "$(sum tried "$1")" -ge "${goal[$1]}" ]; }
tries() { echo "${2:-1}" >> "$place/tried/$1"; }  # tries KIND [TIMES]
loses() {  # loses KIND WORDS...: says what, and keeps the files
  local kind=$1 kept
  shift
  echo 1 >> "$place/lost/$kind"
  kept="$place/kept/$kind $(sum tried "$kind") $worker"
  echo "LOST  ${kept#"$place/kept/"}: $*"
  cp -r here "$kept" 2> /dev/null
}
nap() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }  # up to so many milliseconds

table() {
  local bad=0 kind lost
  echo
  echo "kind                         tried        goal        lost     seconds"
  for kind in "${kinds[@]}"; do
    lost=$(sum lost "$kind")
    printf '%-22s %11d %11d %11d %11d\n' "$kind" "$(sum tried "$kind")" "${goal[$kind]}" "$lost" \
      "$(sum took "$kind")"
    bad=$((bad + lost))
  done
  echo
  echo "$(date +%F), $SECONDS s, $jobs workers on $(nproc) processors:" \
    "$(sed -n 's/^model name.*: //p' /proc/cpuinfo 2> /dev/null | head -n 1)"
  "$focus" --version
  cd /
  if [ $bad -eq 0 ]; then
    rm -rf "$place"
    exit 0
  fi
  echo "what was lost is in $place/kept"
  exit 1
}

# --- what is run ----------------------------------------------------------------------------------

small="--task even-pairs --attention topk --k 3 --length 10 --d-model 8 --d-mlp 8 --blocks 1 \
  --dropout 0.1 --train-size 200 --batch 10 --val-size 50 --threads 1 --seeds 2"
run() { "$focus" "$@" > here/out 2> here/err < /dev/null; }
train() { run train $small --epochs 8 --out "$1"; }
cat > table.csv << 'END'
task,attention,k,heads,seeds,epochs,length,train-size,val-size,d-model,d-mlp,blocks,batch
even-pairs,full|topk,3,1|2,2,8,10,200,50,8,8,1,10
END
study() { run study table.csv --out "$1" --threads 2; }
shard() { run study table.csv --out "here/part$1" --shard "$1/2"; }

# The files of a folder, with a hash of each; of metrics.csv without the seconds.
files_of() {
  (cd "$1" && find . -type f | sort | while read -r file; do
    case $file in
      */metrics.csv) echo "$file $(sed 's/,[^,]*$//' "$file" | sha1sum)" ;;
      *) sha1sum "$file" ;;
    esac
  done)
}
# The run in $1 must be, or become, what was never disturbed; no record is a run that never began.
ends_well() {
  [ -e "$1/settings.json" ] || rm -rf "$1"
  if [ -e "$1" ]; then run resume "$1"; else train "$1"; fi || return 1
  [ "$(files_of "$1")" = "$whole_train" ]
}

mkdir here
train here/whole && study here/whole-study && shard 1 && shard 2 || {
  echo "make stress: the program does not run: $(cat here/err)" >&2
  exit 2
}
whole_train=$(files_of here/whole) whole_study=$(files_of here/whole-study)

# --- the kinds ------------------------------------------------------------------------------------

fuzz() {  # fuzz NAME: ten seconds with a seed of its own
  local reads
  "$build/$1" 10 $((RANDOM * 32768 + RANDOM)) > here/out 2>&1 &
  wait $!
  reads=$(sed -n 's/.*: \([0-9]*\) cases, .*/\1/p' here/out)
  [ "$1" != fuzz_data_file ] || reads=$((${reads:-0} * 8))
  tries "$1" "${reads:-0}"
  [ -n "$reads" ] || [ -e "$place/stop" ] || loses "$1" "$(tail -n 1 here/out)"
}

killed() {  # killed KIND COMMAND...: begins it until it was killed once; 0 if it was
  local kind=$1 process
  shift
  "$@" > here/out 2> here/err < /dev/null &
  process=$!
  nap "$longest"
  kill -KILL $process 2> /dev/null
  wait $process 2> /dev/null
  [ $? -eq 137 ] && tries "$kind"
}
kill_train() {  # up to four kills of one run
  rm -rf here/n
  for _ in 1 2 3 4; do
    if [ -e here/n/settings.json ]; then
      killed "kills of train" "$focus" resume here/n
    else
      killed "kills of train" "$focus" train $small --epochs 8 --out here/n
    fi
  done
  ends_well here/n || loses "kills of train" "$(tail -n 1 here/err)"
}
kill_study() {
  rm -rf here/n
  for _ in 1 2 3 4; do
    killed "kills of study" "$focus" study table.csv --out here/n --threads 2
  done
  study here/n && [ "$(files_of here/n)" = "$whole_study" ] ||
    loses "kills of study" "$(tail -n 1 here/err)"
}

kill_merge() {
  local merge=("$focus" study merge --out here/n here/part1 here/part2)
  rm -rf here/n
  for _ in 1 2 3 4; do longest=60 killed "kills of merge" "${merge[@]}"; done
  run "${merge[@]:1}" && [ "$(files_of here/n)" = "$whole_study" ] ||
    loses "kills of merge" "$(tail -n 1 here/err)"
}

both() {  # both A B: two commands at once; their exit statuses in $a and $b
  nap 10
  eval "$1" > here/a.out 2> here/a.err < /dev/null &
  local first=$!
  nap 10
  eval "$2" > here/b.out 2> here/b.err < /dev/null &
  local second=$!
  wait $first; a=$?
  wait $second; b=$?
  [ ! -e "$place/stop" ]
}
race() {
  local say="" run="'$focus' train $small --epochs 2 --out here/p"
  local study="'$focus' study table.csv --threads 1 --out here/p"
  rm -rf here/p
  case $((RANDOM % 4)) in
    0)  # two runs in one folder: one of them trains
      both "$run" "$run" || return
      [ "$a$b" = 02 ] || [ "$a$b" = 20 ] || say="two runs in one folder ended with $a and $b" ;;
    1)  # one fails, beside another in a folder that only one of them can have made
      both "$run/a" "(ulimit -f 2; exec $run/b)" || return
      [ "$a" = 0 ] && [ -e here/p/a/metrics.csv ] || say="a failing neighbour: status $a" ;;
    2)  # two that go on with one run
      cp -r here/killed here/p
      both "'$focus' resume here/p" "'$focus' resume here/p" || return
      ends_well here/p || say="two resumed one run: $a and $b" ;;
    3)  # two studies in one folder
      both "$study" "$study" || return
      case $a$b in
        00 | 02 | 20) [ "$(files_of here/p)" = "$whole_study" ] || say="two studies: other files" ;;
        *) say="two studies in one folder ended with $a and $b" ;;
      esac ;;
  esac
  tries races
  [ -z "$say" ] || loses races "$say"
}

limit() {  # little of something; then, with enough, all is as if nothing had been
  local of=$((RANDOM % 4)) status
  local command="train $small --epochs 8 --out here/n"
  rm -rf here/n here/out here/err
  [ $((RANDOM % 2)) -eq 0 ] || { cp -r here/killed here/n && command="resume here/n"; }
  { (
    case $of in
      0) ulimit -f $((RANDOM % 40)) ;;
      1) ulimit -n $((4 + RANDOM % 12)) ;;
      2) ulimit -v $((4000 + RANDOM * 4)) ;;
      3) ulimit -u 1 ;;
    esac
    exec "$focus" $command
  ) 2>&1 > here/out < /dev/null | cat > here/err; status=${PIPESTATUS[0]}; } 2> /dev/null
  [ ! -e "$place/stop" ] || return
  tries limits
  case $status in
    0) ;;
    1 | 2) [ -s here/err ] || loses limits "status $status without a word" ;;
    # In so little memory the system may not even load the program.
    126 | 127 | 134 | 137 | 139) [ $of -eq 2 ] && [ ! -s here/out ] ||
      loses limits "status $status: $(tail -n 1 here/err)" ;;
    *) loses limits "status $status: $(tail -n 1 here/err)" ;;
  esac
  ends_well here/n || loses limits "afterwards: $(tail -n 1 here/err)"
}

# A disk of a few kilobytes, in a namespace of its own; then it grows.
full_disk() {
  local status
  rm -rf here/n
  mkdir here/n
  export -f train run ends_well files_of
  export focus small whole_train
  unshare --user --map-root-user --mount bash -c '
    mount -t tmpfs -o size='$((8 + RANDOM % 24 * 4))'k,nr_inodes='$((RANDOM % 2 ? 100 : 4 + RANDOM % 12))' none here/n || exit 3
    train here/n/run
    status=$?
    [ $status -eq 0 ] || [ $status -eq 2 ] && [ -s here/err ] || exit 4
    mount -o remount,size=4m,nr_inodes=1000 here/n || exit 3
    ends_well here/n/run || exit 5' 2> here/mount
  status=$?
  [ -e "$place/stop" ] && return
  if [ $status -eq 3 ]; then
    touch "$place/impossible full disks"
    echo "full disks: not tried, $(tail -n 1 here/mount)"
    return
  fi
  tries "full disks"
  [ $status -eq 0 ] || loses "full disks" "case $status: $(tail -n 1 here/err)"
}

# How long a run takes is how long the longest wait before a kill is.
begin=$(date +%s%3N)
train here/timed
longest=$(($(date +%s%3N) - begin))
[ $longest -lt 900 ] || longest=900
worker=0
while [ ! -e here/killed/settings.json ]; do
  rm -rf here/killed
  killed "kills of train" "$focus" train $small --epochs 8 --out here/killed
done

# --- the workers ----------------------------------------------------------------------------------

some() {  # some KIND: a share of its tries
  local begin=$SECONDS i times=1 command=fuzz
  case $1 in
    "kills of train") command=kill_train times=2 ;;
    "kills of study") command=kill_study times=2 ;;
    "kills of merge") command=kill_merge times=4 ;;
    races) command=race times=10 ;;
    limits) command=limit times=4 ;;
    "full disks") command=full_disk times=2 ;;
  esac
  for ((i = 0; i < times; ++i)); do
    is_over || is_done "$1" || "$command" "$1"
  done
  echo $((SECONDS - begin)) >> "$place/took/$1"
}
work() {  # in a folder of its own; each begins with another kind
  worker=$1 RANDOM=$((seed * 1000 + $1))
  trap 'kill $(jobs -p) 2> /dev/null' TERM
  mkdir -p "$place/$worker/here" && cd "$place/$worker" || exit
  cp ../table.csv . && cp -r ../here/{killed,part1,part2} here
  local i kind more=1
  while [ $more -eq 1 ] && ! is_over; do
    more=0
    for ((i = 0; i < ${#kinds[@]}; ++i)); do
      kind=${kinds[(i + worker - 1) % ${#kinds[@]}]}
      is_done "$kind" || { more=1; some "$kind"; }
    done
  done
}
workers=()
# Ctrl-C: the trials that are running end, then the table comes.
trap 'touch "$place/stop"; kill "${workers[@]}" 2> /dev/null' INT TERM
for ((n = 1; n <= jobs; ++n)); do
  work $n &
  workers+=($!)
done
while ! wait; do :; done  # a signal ends a wait, not the workers
table
