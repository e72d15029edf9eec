"""Runs the pair: the training step of PyTorch (step_time.py) and of `focus bench step`.

Both are pinned to the same two cores and take turns, so that a busy moment hits both.  Prints a
table and writes every single measurement to a CSV file.  Exit status 2 if something is missing.
"""
import argparse
import csv
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# attention, k, length, blocks, steps that PyTorch times in a round (at length 600 each is seconds)
CASES = [("full", 0, 40, 5, 60), ("topk", 5, 40, 5, 60),
         ("full", 0, 600, 10, 3), ("topk", 5, 600, 10, 3)]


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--focus", type=pathlib.Path, default=ROOT / "build" / "focus")
    p.add_argument("--peer-only", action="store_true", help="time PyTorch alone")
    p.add_argument("--short", action="store_true", help="only the cases of length 40")
    p.add_argument("--keep-memory", action="store_true",
                   help="glibc keeps what PyTorch frees: a faster peer at length 600")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--cores", default="0,1", help="the cores that both run on")
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "out" / "compare_step.csv")
    return p.parse_args()


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with status {done.returncode}:\n"
                 f"{done.stderr.strip()}")
    return done.stdout.strip()


def ms_per_step(command):
    last = run(command).splitlines()[-1].split()
    if len(last) != 2 or last[0] != "ms_per_step":
        sys.exit(f"{command[0]}: the last line should be `ms_per_step X`, not: {' '.join(last)}")
    return float(last[1])


def processor():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        return text.split("model name", 1)[1].split("\n", 1)[0].strip("\t :")
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def main():
    a = parse()
    if not a.peer_only and not a.focus.is_file():
        print(f"{a.focus} is missing: run `make` first, name it with --focus FILE, or give "
              "--peer-only to time PyTorch alone", file=sys.stderr)
        return 2
    try:
        import torch
    except ImportError:
        print(f"{sys.executable} has no torch: install PyTorch for it (pip install torch numpy)",
              file=sys.stderr)
        return 2
    if a.keep_memory:
        # By default large blocks go back to the system at each free and are cleared again, page by
        # page, at the next use.  Only PyTorch sees these two: they are set for its command alone.
        keep = ["env", "MALLOC_MMAP_MAX_=0", f"MALLOC_TRIM_THRESHOLD_={10**11}"]
    else:
        keep = []
    cores = sorted({int(core) for core in a.cores.split(",")})
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # the programs started below inherit it
        pinned = f"pinned to cores {a.cores}"
    else:
        pinned = "not pinned (this system cannot)"

    head = [f"date {datetime.datetime.now().isoformat(timespec='seconds')}",
            f"hardware {processor()}, {os.cpu_count()} cores, {pinned}, "
            f"load average before {os.getloadavg()[0]:.2f}",
            f"torch {torch.__version__}, python {platform.python_version()}, "
            + ("focus not run" if a.peer_only else f"focus {run([a.focus, '--version'])}"),
            "settings float32, batch 25, d = mlp = 64, 1 head, ReLU, dropout 0.01, vocabulary 17, "
            f"10 classes, SGD with clip 0.5, {len(cores)} threads, {a.rounds} rounds"
            + (", PyTorch keeps freed memory" if keep else "")]
    print("\n".join(head) + "\n")
    programs = ["torch"] if a.peer_only else ["torch", "focus"]
    print(f"{'case':22}" + "".join(f"{p + ' ms: median':>20}{'min':>9}{'max':>9}" for p in programs)
          + ("" if a.peer_only else "   torch / focus (of minima)"))

    a.out.parent.mkdir(parents=True, exist_ok=True)
    with open(a.out, "w", newline="") as file:
        file.writelines(f"# {line}\n" for line in head)
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["program", "attention", "k", "length", "blocks", "round", "ms_per_step"])
        for attention, k, length, blocks, repeats in CASES:
            if a.short and length > 40:
                continue
            flags = ["--attention", attention, "--length", length, "--blocks", blocks,
                     "--threads", len(cores)] + (["--k", k] if k else [])
            commands = {"torch": [*keep, sys.executable, HERE / "step_time.py", *flags,
                                  "--warmup", min(3, repeats // 3), "--repeats", repeats],
                        "focus": [a.focus, "bench", "step", "--device", "cpu", *flags]}
            ms = {program: [] for program in programs}
            for r in range(a.rounds):
                for program in programs:
                    ms[program].append(ms_per_step(commands[program]))
                    table.writerow([program, attention, k, length, blocks, r + 1, ms[program][-1]])
                    file.flush()
            # Each figure is over rounds, of the median that the program reports for a round.
            name = f"{attention}{k or ''} L={length} B={blocks}"
            cells = "".join(f"{statistics.median(t):20.2f}{min(t):9.2f}{max(t):9.2f}"
                            for t in ms.values())
            if not a.peer_only:
                ratio = statistics.median(ms["torch"]) / statistics.median(ms["focus"])
                cells += f"{ratio:9.2f}x  ({min(ms['torch']) / min(ms['focus']):.2f}x)"
            print(f"{name:22}{cells}", flush=True)
    print(f"\nwrote {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
