#!/bin/sh
# `focus study --slurm` against a real Slurm on this host.
#
#   tests/slurm/run_slurm_test.sh [PROGRAM]        PROGRAM: build/focus
#
# Starts munged, slurmctld and slurmd of its own, on ports and in a folder of its own, submits a
# study of four shards, waits for the job that joins them, and compares the result with one that was
# made without Slurm. Stops what it started. Needs root and the packages slurm-wlm and munge; without
# them it is skipped. Last line: N passed, N failed[, N skipped].
set -u
focus=$(realpath "${1:-build/focus}")
[ -x "$focus" ] || { echo "$focus is missing: run make first"; exit 2; }
. "$(dirname "$0")/../check.sh"
cannot() { skip "the Slurm test needs $1"; print_sum; exit; }
for tool in slurmctld slurmd sbatch squeue scontrol munged; do
  PATH=$PATH:/usr/sbin:/sbin command -v $tool > /dev/null || cannot "the packages slurm-wlm and munge"
done
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" -eq 0 ] || cannot "root, to start slurmctld and slurmd"

dir=$(mktemp -d /tmp/focus-slurm.XXXXXX) || exit 2
pids=
clean_up() {
  # Only what was started here. slurmd leaves its step daemons time to end.
  [ -z "$pids" ] || kill $pids 2> /dev/null
  for pid in $pids; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2> /dev/null && sleep 0.3; done
    kill -9 "$pid" 2> /dev/null
  done
  rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

mkdir -p "$dir/munge" "$dir/state" "$dir/spool" "$dir/home"
chmod 755 "$dir"
dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 2> /dev/null
chmod 700 "$dir/munge" && chmod 600 "$dir/munge/key"
socket="$dir/munge.socket"
munged --foreground --force --key-file="$dir/munge/key" --socket="$socket" \
  --pid-file="$dir/munge/pid" --seed-file="$dir/munge/seed" --log-file="$dir/munge/log" \
  > "$dir/munged.log" 2>&1 &
pids="$! $pids"

host=$(hostname -s)
cat > "$dir/slurm.conf" << CONF
ClusterName=focus
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=10 State=UP
CONF
export SLURM_CONF="$dir/slurm.conf"
slurmctld -D -f "$SLURM_CONF" > "$dir/slurmctld.out" 2>&1 &
pids="$! $pids"
slurmd -D -f "$SLURM_CONF" -N "$host" > "$dir/slurmd.out" 2>&1 &
pids="$! $pids"

give_up() {
  bad "$1"
  for log in "$dir"/*.log "$dir"/*.out "$dir"/home/study/slurm/*.log; do
    [ -s "$log" ] && echo "--- $log" && tail -n 15 "$log"
  done
  print_sum
  exit 1
}
up=no
for _ in $(seq 60); do
  sinfo -h -o %t 2> /dev/null | grep -q idle && up=yes && break
  sleep 0.5
done
[ $up = yes ] || give_up "Slurm did not come up within 30 seconds"

cd "$dir/home" || exit 2
cat > table.csv << 'TABLE'
task,attention,k,seeds,epochs,length,train-size,val-size,d-model,d-mlp,blocks,batch
even-pairs,full|topk,3,3,4,10,200,50,8,8,1,10
TABLE
"$focus" study table.csv --out plain --threads 1 > /dev/null 2>&1 || give_up "the study without Slurm"
"$focus" study table.csv --out study --slurm --shards 4 --threads 1 || give_up "sbatch"
for _ in $(seq 240); do
  [ -f study/summary.csv ] && [ -z "$(squeue -h)" ] && break
  sleep 0.5
done
for file in results.csv summary.csv; do
  check "$file is the same with and without Slurm" cmp "plain/$file" "study/$file"
done
[ $failed -eq 0 ] || give_up "the results differ or are missing"
print_sum
