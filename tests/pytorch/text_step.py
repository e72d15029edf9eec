"""Times a training step of a model that predicts the next token at every position: ours beside PyTorch, in turns.

PyTorch in three forms, float32, forward, backward, clip, SGD:
  eager     model.py, masks over dense scores
  compiled  the same with torch.compile
  fused     full attention by scaled_dot_product_attention(is_causal=True), compiled: what a careful user writes
Ours is `focus bench step --objective causal`.

    python tests/pytorch/text_step.py --device cuda [--out FILE] [--focus build/focus] [--rounds 3] [--skip compiled]
"""
import argparse
import datetime
import platform
import re
import statistics
import subprocess
import sys
import time

import torch
from torch.nn import functional as F

import model as peer
from model import Model, Settings, training_step

CLIP, RATE = 0.5, 1.0
PATTERNS = {"full": -1, "topk5": 5, "topk32": 32, "banded5": 5}


class FusedAttention(peer.Attention):
    def forward(self, x):
        q, k, v = (self.split(w(x)) for w in (self.W_q, self.W_k, self.W_v))
        p = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        return self.W_o(out.transpose(1, 2).flatten(2))


def step_of(a, pattern, form):
    s = Settings(attention=pattern.rstrip("0123456789"), k=PATTERNS[pattern], heads=a.heads, d_model=a.d,
                 d_mlp=4 * a.d, blocks=a.blocks, seq_len=a.window, vocab=a.vocab, classes=a.vocab,
                 dropout=a.dropout, objective="causal")
    model = Model(s)
    if form == "fused":
        for block in model.encoder.transformer:
            block.attention.__class__ = FusedAttention
    model = model.to(a.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    stream = torch.randint(s.vocab, (a.batch, a.window + 1), device=a.device)
    tokens, labels = stream[:, :-1].contiguous(), stream[:, 1:].contiguous()
    called = torch.compile(model) if form != "eager" else model
    return lambda: training_step(called, optimizer, tokens, labels, CLIP)


def milliseconds(a, step):
    def run(n):
        if a.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n):
            step()
        if a.device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    run(2)
    return run(a.steps) / a.steps


def ours(a, pattern):
    name = pattern.rstrip("0123456789")
    command = [a.focus, "bench", "step", "--device", a.device, "--objective", "causal", "--attention", name,
               "--length", a.window, "--blocks", a.blocks, "--heads", a.heads, "--d-model", a.d, "--d-mlp",
               4 * a.d, "--vocab", a.vocab, "--batch", a.batch, "--dropout", a.dropout]
    command += ["--k", PATTERNS[pattern]] if name != "full" else []
    command += ["--threads", a.threads, "--repeats", a.steps] if a.device == "cpu" else ["--repeats", 3]
    text = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"ms_per_step (\S+)", text)[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    p.add_argument("--focus", default="build/focus")
    p.add_argument("--out", default="out/text_step.csv")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=10, help="of PyTorch's, in a round")
    p.add_argument("--threads", type=int, default=2, help="on the CPU")
    p.add_argument("--skip", nargs="*", default=[])
    p.add_argument("--patterns", nargs="*", default=["full", "topk5"], choices=list(PATTERNS))
    for name, value in dict(window=64, batch=128, blocks=6, d=128, heads=4, vocab=4096).items():
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--dropout", type=float, default=0.01)
    a = p.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(a.threads)
    where = torch.cuda.get_device_name() if a.device == "cuda" else f"{platform.processor()} {a.threads} threads"
    tokens = a.batch * a.window
    lines = [f"# {where}, torch {torch.__version__}, {datetime.date.today()}, float32, causal, window {a.window}, "
             f"batch {a.batch}, {a.blocks} blocks, d {a.d}, mlp {4 * a.d}, {a.heads} heads, vocabulary {a.vocab}, "
             f"dropout {a.dropout}; median of {a.rounds} round(s) in turns",
             "attention,what,ms,tokens_per_second,times_ours"]
    for pattern in a.patterns:
        forms = [f for f in ("eager", "compiled", "fused")
                 if f not in a.skip and (f != "fused" or pattern == "full")]
        steps = {form: step_of(a, pattern, form) for form in forms}
        ms = {}
        for _ in range(a.rounds):
            for form, step in steps.items():
                ms.setdefault(form, []).append(milliseconds(a, step))
                print(f"{pattern} {form} {ms[form][-1]:.3f} ms", file=sys.stderr, flush=True)
            if "ours" not in a.skip:
                ms.setdefault("ours", []).append(ours(a, pattern))
        own = statistics.median(ms.get("ours", [float("nan")]))
        for form, values in ms.items():
            median = statistics.median(values)
            lines.append(f"{pattern},{form},{median:.3f},{1e3 * tokens / median:.0f},{median / own:.2f}")
            print(lines[-1], flush=True)
        with open(a.out, "w") as out:
            out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
