"""Times a training step on one GPU, float32: ours beside PyTorch, in turns.

PyTorch in three forms, all of model.py (masks over dense scores, as in the authors' code):
  eager     forward, backward, clip, SGD, each operation issued by Python
  compiled  the same with torch.compile
  stacked   the seeds' weights stacked and one step of all in a CUDA graph: what a careful user can do
Ours in four (lesson 16): each operation issued by the host, the same as a graph, the graph with fused
blocks, and one launch for many steps where the model fits. Then the fastest of these with products on
tensor cores.
times_ours is against the fastest of ours in float32.

    python tests/pytorch/gpu_step.py [--out FILE] [--focus build/focus] [--rounds 3] [--skip compiled]
"""
import argparse
import datetime
import re
import statistics
import subprocess
import sys
import time

import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional as F

from model import Model, Settings, training_step

BATCH, CLIP, RATE = 25, 0.5, 0.1
LAUNCHES = ["operations", "graph", "fused", "one"]
PRECISIONS = ["3xtf32", "tf32", "bf16"]
SHAPES = [  # length, blocks, seeds
    (40, 5, 1),
    (40, 5, 10),
    (600, 10, 1),
]


def settings(attention, length, blocks):
    k = -1 if attention == "full" else 5
    return Settings(attention=attention, k=k, seq_len=length, blocks=blocks)


def data(s, seeds):
    tokens = torch.randint(s.vocab, (seeds, BATCH, s.seq_len), device="cuda")
    return tokens, torch.randint(s.classes, (seeds, BATCH), device="cuda")


def eager(s, compiled=False):
    model = Model(s).cuda().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    (tokens,), (labels,) = data(s, 1)
    called = torch.compile(model) if compiled else model
    return lambda: training_step(called, optimizer, tokens, labels, CLIP)


def compile_ahead():
    """Compiles every model in a process of its own, side by side, which is not timed. PyTorch keeps on disk
    what they made, and this process finds it there: one after another it takes minutes."""
    children = [subprocess.Popen([sys.executable, __file__, "--compile", f"{attention},{length},{blocks}"])
                for length, blocks, seeds in SHAPES if seeds == 1 for attention in ("full", "topk")]
    if any([child.wait() != 0 for child in children]):
        sys.exit("gpu_step.py: a model does not compile")


def stacked(s, seeds):
    models = [Model(s).cuda().train() for _ in range(seeds)]
    weights, buffers = stack_module_state(models)
    weights = {name: w.detach() for name, w in weights.items()}
    tokens, labels = data(s, seeds)

    def loss(w, b, x, y):
        return F.cross_entropy(functional_call(models[0], (w, b), (x,)), y)

    every = vmap(grad_and_value(loss), randomness="different")

    def step():
        gradients, _ = every(weights, buffers, tokens, labels)
        squares = sum(g.flatten(1).square().sum(1) for g in gradients.values())
        factor = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1)
        for name, w in weights.items():
            w.sub_(RATE * factor.view(-1, *[1] * (w.dim() - 1)) * gradients[name])

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(kept=(weights, buffers, tokens, labels)):  # the graph only knows their addresses
        graph.replay()

    return replay


def time_of(step, seconds=0.5):
    """Milliseconds a step, over about so many seconds."""
    def run(n):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n):
            step()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    one = run(3) / 3
    n = max(3, int(seconds / one))
    return 1e3 * run(n) / n


def ours(focus, how, attention, length, blocks, seeds):
    command = [focus, "bench", "step", "--device", "cuda", "--attention", attention, "--length", length,
               "--blocks", blocks, "--seeds", seeds, "--repeats", 8,
               "--precision" if how in PRECISIONS else "--launch", how]
    if attention != "full":
        command += ["--k", 5]
    text = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"ms_per_step (\S+)", text)[-1]), re.findall(r"(?m)^floor +(\S+) ms", text)[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--focus", default="build/focus")
    parser.add_argument("--out", default="tests/pytorch/results/gpu_step.csv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--compile", metavar="ATTENTION,LENGTH,BLOCKS", help="this model, and no more")
    a = parser.parse_args()
    torch.manual_seed(1)
    if a.compile:
        attention, length, blocks = a.compile.split(",")
        eager(settings(attention, int(length), int(blocks)), compiled=True)()
        return
    if "compiled" not in a.skip:
        compile_ahead()
    lines = [f"# {torch.cuda.get_device_name()}, torch {torch.__version__}, {datetime.date.today()}, float32 where no other is named, "
             f"batch {BATCH}, d 64, dropout 0.01; milliseconds a step, "
             f"{'one round' if a.rounds == 1 else f'median of {a.rounds} rounds'} in turns",
             "length,blocks,seeds,attention,what,ms,times_ours,floor_ms"]
    for length, blocks, seeds in SHAPES:
        for attention in ("full", "topk"):
            s = settings(attention, length, blocks)
            steps = {"stacked": stacked(s, seeds)} if length <= 64 else {}
            if seeds == 1:
                steps["eager"] = eager(s)
                steps["compiled"] = eager(s, compiled=True)
            ms, floor = {}, {}
            for _ in range(a.rounds):
                for name, step in steps.items():
                    if name not in a.skip:
                        ms.setdefault(name, []).append(time_of(step))
                for how in LAUNCHES + PRECISIONS:
                    if how not in a.skip and (how != "one" or length <= 48):
                        one_time, floor[f"ours {how}"] = ours(a.focus, how, attention, length, blocks, seeds)
                        ms.setdefault(f"ours {how}", []).append(one_time)
            own = min(statistics.median(times) for name, times in ms.items()
                      if name in [f"ours {launch}" for launch in LAUNCHES])
            for name, values in ms.items():
                median = statistics.median(values)
                lines.append(f"{length},{blocks},{seeds},{attention},{name},{median:.4f},{median / own:.1f},"
                             f"{floor.get(name, '')}")
                print(lines[-1], flush=True)
            with open(a.out, "w") as out:
                out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
