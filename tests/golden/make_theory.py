"""Makes theory.json: the statistics of Table 6 and small loss surfaces of golden files, movements
of top-k's weights by trial, and the frontiers of Figures 21 and 22 on a grid; in double.

  make_theory.py > theory.json           in this folder; Python with numpy

Written from the paper, with nothing of the engine: what `focus stability` and `focus surface`
compute is compared with it. The directions of the surface are formulas, so that both sides have
them without a file.
"""
import itertools
import json
import math
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
FILES = ["full", "full_gelu_4heads_d32", "full_scale4", "topk", "topk_gelu_2heads", "topk_k1",
         "topk_k_is_length", "topk_scale05", "bottomk_k5", "banded_even_3heads_global3",
         "block_short_last_global3"]
POINTS = [0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100]
PAIRS = [("full", "topk"), ("full_scale4", "topk_scale05")]
SURFACES = ["full", "topk_gelu_2heads", "banded_even_3heads_global3"]
GRID, RANGE = 4, 0.8


def read(name):
    data = (HERE / f"{name}.safetensors").read_bytes()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    meta = header.pop("__metadata__")
    kinds = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4"}
    tensors = {}
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = np.frombuffer(data[8 + size + begin:8 + size + end], kinds[entry["dtype"]])
        tensors[key] = raw.reshape(entry["shape"])
    return meta, tensors


def mask_of(meta, scores):
    """(B,H,T,T) scores -> which are kept."""
    kind, k, g = meta["attention"], int(meta["k"]), int(meta["global_tokens"])
    T = scores.shape[-1]
    if kind == "full":
        return np.ones(scores.shape, bool)
    if kind in ("topk", "bottomk"):
        sign = 1 if kind == "topk" else -1
        order = np.argsort(-sign * scores, axis=-1, kind="stable")[..., :k]
        kept = np.zeros(scores.shape, bool)
        np.put_along_axis(kept, order, True, -1)
        return kept
    one = np.zeros((T, T), bool)
    n = T - g
    for i in range(n):
        begin = min(max(i - (k - 1) // 2, 0), n - k) if kind == "banded" else i // k * k
        one[i, begin:min(begin + k, n)] = True
    one[n:, :] = True
    one[:, n:] = True
    return np.broadcast_to(one, scores.shape)


def activation(kind, x):
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "gelu":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    raise ValueError(kind)


def norm(x, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + eps)


def forward(meta, weights, tokens, look=None):
    """Logits (B,classes); look(block, normed, scores, kept, p) sees every attention."""
    d, heads = int(meta["d_model"]), int(meta["heads"])
    B, T = tokens.shape
    position = np.zeros((T, d))
    for t in range(T):
        for c in range(d):
            angle = t / 10000 ** ((c - c % 2) / d)
            position[t, c] = math.cos(angle) if c % 2 else math.sin(angle)
    linear = lambda x, name: x @ weights[name + ".weight"].T + weights[name + ".bias"]
    x = weights["embedding.weight"][tokens] * math.sqrt(d) + position
    for i in range(int(meta["blocks"])):
        base = f"encoder.transformer.{i}"
        eps = float(meta["first_layer_norm_eps" if i == 0 else "layer_norm_eps"])
        normed = norm(x, eps)
        split = lambda y: y.reshape(B, T, heads, d).transpose(0, 2, 1, 3)
        q, k, v = (split(linear(normed, f"{base}.attention.W_{n}")) for n in "qkv")
        scale = float(meta.get("score_scale", "1")) / math.sqrt(d)
        scores = scale * q @ k.transpose(0, 1, 3, 2)
        kept = mask_of(meta, scores)
        e = np.where(kept, np.exp(scores - np.where(kept, scores, -np.inf).max(-1, keepdims=True)), 0)
        p = e / e.sum(-1, keepdims=True)
        if look:
            look(i, normed, scores, kept, p)
        x = x + linear((p @ v).transpose(0, 2, 1, 3).reshape(B, T, heads * d), f"{base}.attention.W_o")
        hidden = activation(meta["activation"], linear(norm(x, float(meta["layer_norm_eps"])), f"{base}.ffn.0"))
        x = x + linear(hidden, f"{base}.ffn.3")
    return linear(x.mean(1), "linear")


def statistics(meta, weights, tokens):
    masked = meta["attention"] != "full"
    names = ["delta_s", "sensitivity"] + (["delta_h", "Delta_h", "beta"] if masked else [])
    values, norms = [], []

    def look(block, normed, scores, kept, p):
        spread = lambda m: (np.where(m, scores, -np.inf).max(-1) - np.where(m, scores, np.inf).min(-1))
        gap = np.where(kept, scores, np.inf).min(-1) - np.where(~kept, scores, -np.inf).max(-1)
        values.append({"delta_s": spread(np.ones_like(kept)).ravel(),
                       "sensitivity": (2 * p * (1 - p)).max(-1).ravel(),
                       "delta_h": spread(kept).ravel(), "Delta_h": gap[np.isfinite(gap)],
                       "beta": kept.sum(-2).ravel().astype(float)})
        base = f"encoder.transformer.{block}"
        full = lambda name: np.hstack([weights[f"{base}.{name}.weight"], weights[f"{base}.{name}.bias"][:, None]])
        two = lambda m: float(np.linalg.norm(m, 2))
        factor = float(meta.get("score_scale", "1")) / math.sqrt(int(meta["d_model"]))
        norms.append({"Upsilon": two(full("attention.W_v")),
                      "Gamma": two(full("attention.W_q").T @ full("attention.W_k")) * factor,
                      "B": max(two(full("ffn.0")), two(full("ffn.3"))),
                      "Xi": float(np.sqrt((normed ** 2).sum(-1)).max())})

    forward(meta, weights, tokens, look)

    def table(parts, norm_parts):
        out = {}
        for name in names:
            pooled = np.concatenate([part[name] for part in parts])
            if len(pooled):
                out[name] = {str(q): float(f"{x:.12g}") for q, x in zip(POINTS, np.percentile(pooled, POINTS))}
        for name in ("Upsilon", "Gamma", "B", "Xi"):
            out[name] = float(f"{max(part[name] for part in norm_parts):.12g}")
        return out

    return {"layers": [table([v], [n]) for v, n in zip(values, norms)], "all": table(values, norms)}


def inequalities(full, sparse, k):
    rows, floor = [], lambda x: max(x, 1e-9)
    for p in (75, 90, 95, 100):
        s, h = floor(full["delta_s"][str(p)]), floor(sparse["delta_h"][str(p)])
        gap, beta = floor(sparse["Delta_h"][str(100 - p)]), floor(sparse["beta"][str(p)])
        c1, c2 = h / s, gap / s
        rows.append({"percentile": p, "delta_s": s, "delta_h": h, "Delta_h": gap, "beta": beta,
                     "weights_lhs": c1 + math.log(2 * (1 + 1 / (s * c2))) / s,
                     "inputs_lhs": c1 + (math.log(s * (1 + beta / k) * (1 + 1 / (s * c2)) + beta / k)
                                         - math.log(s + 1)) / s})
    return rows


def surface(meta, weights, names, tokens, labels):
    axis = [-RANGE + 2 * RANGE * a / (GRID - 1) for a in range(GRID)]
    direction = lambda f, p, n, s: (0.1 * f(1 + 0.7 * p + 0.013 * n * np.arange(weights[s].size))).reshape(weights[s].shape)
    X = {s: direction(np.cos, p, 1, s) for p, s in enumerate(names)}
    Y = {s: direction(np.sin, p, 2, s) for p, s in enumerate(names)}
    losses, accuracies = [], []
    for x in axis:
        losses.append([]), accuracies.append([])
        for y in axis:
            logits = forward(meta, {s: weights[s] + x * X[s] + y * Y[s] for s in names}, tokens)
            top = logits.max(-1, keepdims=True)
            log_p = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
            losses[-1].append(float(f"{-log_p[np.arange(len(labels)), labels].mean():.12g}"))
            accuracies[-1].append(float(100 * (logits.argmax(-1) == labels).mean()))
    return {"range": RANGE, "axis": axis, "losses": losses, "accuracies": accuracies}


def supremum(scores, k, eps):
    """The largest 1-norm movement of top-k's weights when no score moves by more than eps: tries
    every set of keys that can be kept afterwards, with every subset of it raised and all else
    lowered."""
    n = len(scores)
    weights = lambda s, kept: np.array([math.exp(s[j] - max(s)) if j in kept else 0 for j in range(n)])
    before = weights(scores, set(np.argsort(-scores, kind="stable")[:k].tolist()))
    before /= before.sum()
    best = 0
    for kept in itertools.combinations(range(n), k):
        for raised in itertools.product([-1, 1], repeat=k):
            moved = scores - eps
            moved[list(kept)] = scores[list(kept)] + eps * np.array(raised)
            rest = [moved[j] for j in range(n) if j not in kept]
            if rest and min(moved[list(kept)]) < max(rest) - 1e-12:
                continue
            after = weights(moved, set(kept))
            best = max(best, np.abs(after / after.sum() - before).sum())
    return best


def movement_bound(scores, k, eps):
    """2 tanh(eps/2), and twice the weight that can enter: m keys at the height the k-th can fall
    to, the rest of the k as low as they can be against them."""
    fall = sorted(scores, reverse=True)
    past = 2 * eps - (fall[k - 1] - fall[k])
    total = 2 * math.tanh(eps / 2)
    if past < 0:
        return total
    m = max([1] + [i for i in range(1, min(k, len(fall) - k) + 1) if fall[k - i] - fall[k + i - 1] <= 2 * eps])
    dispersion = fall[0] - fall[k - 1]
    others = (k - m) * [math.exp(-past)]
    if past < dispersion and m < k:
        others[0] = math.exp(dispersion - past)
    return min(2, total + 2 * m / (m + sum(others)))


def movements():
    rng, rows = np.random.default_rng(4), []
    for n, k in [(3, 1), (4, 2), (5, 3), (6, 2), (6, 4), (5, 4), (7, 3)]:
        for share in (0.4, 1.01, 1.7, 3.0):
            scores = np.round(rng.normal(0, rng.uniform(0.3, 2), n), 3)
            fall = np.sort(scores)[::-1]
            eps = (fall[k - 1] - fall[k]) / 2 * share + (0.05 if share > 2 else 0)
            rows.append({"scores": scores.tolist(), "k": k, "epsilon": eps,
                         "bound": movement_bound(scores, k, eps),
                         "supremum": float(f"{supremum(scores, k, eps):.12g}")})
    return rows


def frontier(condition):
    """The smallest c2 of the authors' grid for which the condition holds; none: null."""
    c2 = np.arange(1e-4, 1, 1e-4)
    holds = condition(c2)
    return float(round(c2[holds].min(), 4)) if holds.any() else None


def frontiers():
    rows = []
    for s in (0.25, 1, 1.5, 3, 8, 32):
        for c1 in (0.05, 0.3, 0.6, 0.9):
            rows.append({"delta_s": s, "c1": c1, "weights": frontier(
                lambda c2: c1 + np.log(2 * (1 + 1 / (s * c2))) / s < 1)})
            for b in (1, 4, 32):
                rows[-1][f"inputs_{b}"] = frontier(
                    lambda c2: c1 + np.log(s * (1 + b) * (1 + 1 / (s * c2)) + b) / s
                    < 1 + math.log(s + 1) / s)
    return rows


def parameter_names(meta):
    names = ["embedding.weight"]
    for i in range(int(meta["blocks"])):
        for layer in ["attention.W_q", "attention.W_k", "attention.W_v", "attention.W_o", "ffn.0", "ffn.3"]:
            names += [f"encoder.transformer.{i}.{layer}.{part}" for part in ("weight", "bias")]
    return names + ["linear.weight", "linear.bias"]


def main():
    result = {"stability": {}, "inequalities": {}, "surface": {}}
    for name in FILES:
        meta, tensors = read(name)
        names = parameter_names(meta)
        weights = {s: tensors[s].astype(np.float64) for s in names}
        tokens, labels = tensors["input.tokens"], tensors["input.labels"]
        wanted = tensors["expected.logits"].astype(np.float64)
        error = np.abs(forward(meta, weights, tokens) - wanted).max()
        assert error < 1e-5, (name, error)
        result["stability"][name] = statistics(meta, weights, tokens)
        if name in SURFACES:
            result["surface"][name] = surface(meta, weights, names, tokens, labels)
    for full, sparse in PAIRS:
        k = int(read(sparse)[0]["k"])
        result["inequalities"][f"{full} {sparse}"] = inequalities(
            result["stability"][full]["all"], result["stability"][sparse]["all"], k)
    result["topk_movements"] = movements()
    result["frontiers"] = frontiers()
    print(json.dumps(result, indent=0))


main()
