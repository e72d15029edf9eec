"""Makes and verifies golden files: what the model computes from given weights, in double precision.

  make_golden.py --verify FILES...      recompute every number of these files, print largest errors
  make_golden.py --out DIR              make the files listed in CASES
  make_golden.py --cases C.json --out DIR    make others: {"name": {setting: value, ...}, ...}

Each file holds float32 weights, a batch, and the logits, loss, gradients and weights after one SGD
step that follow from them.  A seed counts only if no choice in it is close: float32 must keep the
same keys and the same side of every ReLU, or a right program could fail.
"""
import argparse
import dataclasses
import json
import pathlib
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "pytorch"))
from model import MASKED, Model, Settings, cross_entropy, training_step  # noqa: E402

# What a case leaves out.  Gradient norms come out above 1, so the clip acts unless it is set high.
DEFAULTS = dict(attention="full", k=-1, global_tokens=0, heads=1, activation="relu", d_model=8,
                d_mlp=8, blocks=2, seq_len=11, batch=3, vocab=7, classes=4, learning_rate=0.1,
                clip_norm=0.5, first_layer_norm_eps=0.0, layer_norm_eps=1e-5, dropout=0.0,
                score_scale=1.0, objective="classify")

CASES = {
    # 17 = 14 ordinary tokens and 3 global ones; the window of an even k leans to the right
    "banded_even_3heads_global3": dict(attention="banded", k=4, heads=3, global_tokens=3,
                                       seq_len=17),
    "banded_k4_length6": dict(attention="banded", k=4, seq_len=6, d_model=10, d_mlp=14),
    "block_short_last_global3": dict(attention="block", k=5, global_tokens=3, seq_len=16, heads=2,
                                     activation="gelu"),
    "topk_k9_mish": dict(attention="topk", k=9, activation="mish", seq_len=19, heads=2, d_mlp=20,
                         first_layer_norm_eps=1e-5),
    "topk_k1": dict(attention="topk", k=1, seq_len=13, d_model=12, d_mlp=9),
    "topk_k_is_length": dict(attention="topk", k=7, seq_len=7, heads=2, clip_norm=100.0),
    "bottomk_k5": dict(attention="bottomk", k=5, seq_len=14, d_model=12),
    "full_gelu_4heads_d32": dict(heads=4, activation="gelu", d_model=32, d_mlp=48, blocks=1,
                                 seq_len=12, learning_rate=0.7),
    "full_length1": dict(seq_len=1, batch=5),
    # Words and classes are the same; most queries of the second see fewer keys than k.
    "causal_full_2heads": dict(objective="causal", heads=2, activation="gelu", seq_len=13, vocab=19,
                               classes=19, d_mlp=20),
    "causal_topk_k5_2heads": dict(objective="causal", attention="topk", k=5, heads=2, seq_len=9,
                                  vocab=300, classes=300, first_layer_norm_eps=1e-5),
    "causal_banded_k4": dict(objective="causal", attention="banded", k=4, seq_len=14, vocab=11,
                             classes=11, activation="gelu"),
    "full_smallest": dict(seq_len=2, batch=1, vocab=2, classes=2, blocks=1, d_model=4, d_mlp=1),
}

MARGIN = 1e-4  # smallest gap at a choice; float32 errs by about 1e-6 on scores of size 1
EXACT = 1e-12  # --verify: double against double, relative to the largest magnitude


def new_model(case):
    return Model(Settings(**{f.name: case[f.name] for f in dataclasses.fields(Settings)}))


def loaded_model(case, tensors, dtype):
    model = new_model(case).to(dtype)
    own = model.state_dict()
    weights = {n: t.to(dtype) for n, t in tensors.items() if n in own}
    model.load_state_dict({"pos_encoder.pe": own["pos_encoder.pe"], **weights})  # strict
    return model


def recompute(case, tensors, dtype=torch.float64):
    """Everything a golden file expects, from its weights and its batch."""
    model = loaded_model(case, tensors, dtype)
    tokens, labels = tensors["input.tokens"].long(), tensors["input.labels"].long()
    logits = model(tokens).detach()

    # The gradient that the file holds is the one before clipping, so it is taken on its own.
    cross_entropy(model(tokens), labels).backward()
    grads = {f"grad.{n}": p.grad.clone() for n, p in model.named_parameters()}

    optimizer = torch.optim.SGD(model.parameters(), lr=case["learning_rate"])
    loss, norm = training_step(model, optimizer, tokens, labels, case["clip_norm"])
    steps = {f"step.{n}": p.detach() for n, p in model.named_parameters()}
    return {"expected.logits": logits, "expected.loss": loss.detach().view(1),
            "expected.grad_norm": norm.view(1), **grads, **steps}


def margins(case, tensors):
    """Smallest distance to a change of the kept keys, and to a change of side of a ReLU."""
    model = loaded_model(case, tensors, torch.float64)
    gap = kink = float("inf")

    def see_attention(attention, inputs):
        nonlocal gap
        k, length = case["k"], case["seq_len"]
        if case["attention"] in ("topk", "bottomk") and k < length:
            scores = attention.scores(inputs[0])
            first = 0  # the first query that has a choice
            if case["objective"] == "causal":
                scores, first = scores.masked_fill(attention.dropped, MASKED), k
            down = scores.sort(dim=-1, descending=True).values[..., first:, :]
            last = k if case["attention"] == "topk" else length - k
            gap = min(gap, (down[..., last - 1] - down[..., last]).min().item())

    def see_activation(_, inputs):
        nonlocal kink
        if case["activation"] == "relu":
            kink = min(kink, inputs[0].abs().min().item())

    for block in model.encoder.transformer:
        block.attention.register_forward_pre_hook(see_attention)
        block.ffn[2].register_forward_pre_hook(see_activation)
    with torch.no_grad():
        model(tensors["input.tokens"].long())
    return gap, kink


def random_tensors(case, seed):
    """Weights and a batch.  Larger than a fresh model's, so that scores differ and masks matter."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, p in new_model(case).named_parameters():
        bound = 0.5 if name.startswith(("embedding", "linear")) else case["d_model"] ** -0.5
        if "W_q" in name or "W_k" in name:
            bound *= 2
        tensors[name] = (2 * torch.rand(p.shape, generator=rng) - 1) * bound
    size = (case["batch"], case["seq_len"])
    if case["objective"] == "causal":  # a label is the next token
        stream = torch.randint(case["vocab"], (size[0], size[1] + 1), generator=rng)
        tokens, labels = stream[:, :-1].contiguous(), stream[:, 1:].contiguous()
    else:
        tokens = torch.randint(case["vocab"], size, generator=rng)
        labels = torch.randint(case["classes"], (case["batch"],), generator=rng)
    tensors["input.tokens"], tensors["input.labels"] = tokens.int(), labels.int()
    return tensors


def worst_error(expected, got, limit):
    """The largest |got - expected| / limit(name, magnitude) over all tensors; NaN is infinite."""
    worst = 0.0
    for name, want in expected.items():
        error = (got[name].double() - want).abs().max().item()
        allowed = limit(name, want.abs().max().item())
        if not error <= worst * allowed:
            worst = error / allowed if allowed > 0 and error == error else float("inf")
    return worst


def check_limit(norm):
    """What `focus check` allows each tensor."""
    def limit(name, peak):
        if name == "expected.logits":
            return 1e-5
        if name.startswith("expected."):
            return 2e-6 * peak
        return 1e-5 * peak + (1e-7 * norm if name.startswith("grad.") else 0.0)
    return limit


def exact_limit(norm):
    # Some gradients are zero in exact arithmetic (every W_k bias): measure those by the norm.
    return lambda name, peak: max(peak, norm if name.startswith("grad.") else 0.0)


def report(name, case, tensors, expected):
    gap, kink = margins(case, tensors)
    norm = expected["expected.grad_norm"].item()
    use = worst_error(expected, recompute(case, tensors, torch.float32), check_limit(norm))
    print(f"{name:28} norm {norm:.3g}  score gap {gap:.1e}  "
          f"ReLU {kink:.1e}  float32 uses {100 * use:.1f}% of the limits", end="")


def make(name, changes, folder):
    unknown = set(changes) - set(DEFAULTS)
    if unknown:
        sys.exit(f"{name}: unknown settings {sorted(unknown)}")
    case = {**DEFAULTS, **changes}
    for seed in range(1, 10001):
        tensors = random_tensors(case, seed)
        if min(margins(case, tensors)) >= MARGIN:
            break
    else:
        sys.exit(f"{name}: every one of 10000 seeds has a choice closer than {MARGIN}")
    expected = recompute(case, tensors)
    path = folder / f"{name}.safetensors"
    save_file({**tensors, **{n: t.contiguous() for n, t in expected.items()}}, path,
              metadata={key: str(value) for key, value in case.items()})
    report(name, case, tensors, expected)
    print(f"  seed {seed}  {path.stat().st_size // 1000} kB")


def verify(path):
    with safe_open(path, "pt") as file:
        tensors = {n: file.get_tensor(n) for n in file.keys()}
        found = {key: type(DEFAULTS[key])(text) for key, text in file.metadata().items()}
        case = {"score_scale": 1.0, "objective": "classify", **found}  # the usual ones may be missing
    got = recompute(case, tensors)
    expected = {n: tensors[n] for n in tensors if n.startswith(("expected.", "grad.", "step."))}
    if set(got) != set(expected):
        print(f"{path}: other tensors than expected: {sorted(set(got) ^ set(expected))}")
        return False
    norm = expected["expected.grad_norm"].item()
    worst = worst_error(expected, got, exact_limit(norm))
    good = worst <= EXACT
    report(pathlib.Path(path).stem, case, tensors, expected)
    print(f"  {'ok' if good else 'DIFFERS'}: largest relative error {worst:.1e}")
    return good


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--verify", nargs="+", metavar="FILE")
    p.add_argument("--out", type=pathlib.Path)
    p.add_argument("--cases", type=pathlib.Path)
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.verify:
        results = [verify(path) for path in a.verify]  # all of them, also after a failure
        return 0 if all(results) else 1
    if not a.out:
        p.error("give --verify FILES or --out DIR")
    a.out.mkdir(parents=True, exist_ok=True)
    cases = json.loads(a.cases.read_text()) if a.cases else CASES
    for name, changes in cases.items():
        make(name, changes, a.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
