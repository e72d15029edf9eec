"""Times the PyTorch model's training step on the CPU, float32: forward, backward, clip, SGD.

The twin of `focus bench step --device cpu`: the same model, sizes and random kind of data.
Prints what was run, then the spread, then `ms_per_step X` (the median) as the last line.
"""
import argparse
import statistics
import time

import torch

from model import Model, Settings, training_step


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--attention", default="full", choices=["full", "topk", "banded", "block"])
    p.add_argument("--k", type=int, default=5, help="keys that a query keeps (not for full)")
    p.add_argument("--length", type=int, default=40)
    p.add_argument("--blocks", type=int, default=5)
    p.add_argument("--batch", type=int, default=25)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--warmup", type=int, default=3, help="steps before the clock starts")
    p.add_argument("--repeats", type=int, default=30, help="steps timed, one by one")
    return p.parse_args()


def main():
    a = parse()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    k = -1 if a.attention == "full" else a.k
    s = Settings(attention=a.attention, k=k, seq_len=a.length, blocks=a.blocks)
    model = Model(s).float().train()  # training mode: dropout is on
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.randint(s.vocab, (a.batch, a.length))
    labels = torch.randint(s.classes, (a.batch,))

    ms = []
    for step in range(a.warmup + a.repeats):
        start = time.perf_counter()
        training_step(model, optimizer, tokens, labels, clip_norm=0.5)
        if step >= a.warmup:
            ms.append(1e3 * (time.perf_counter() - start))

    print(f"torch {torch.__version__} {a.attention} k={k} length={a.length} blocks={a.blocks} "
          f"batch={a.batch} threads={a.threads} repeats={a.repeats}")
    # On a shared machine the minimum tells more about the program, the rest about the neighbours.
    print(f"ms: min {min(ms):.2f}  median {statistics.median(ms):.2f}  max {max(ms):.2f}")
    print(f"ms_per_step {statistics.median(ms):.3f}")


if __name__ == "__main__":
    main()
