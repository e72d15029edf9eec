"""Times the attention kernels beside PyTorch's, in one process, on the same inputs, in turns.

    make build/libfocus-attention.so
    python3 tests/pytorch/attention_ratio.py [--out tests/pytorch/results/attention_h200.csv]

Needs a CUDA GPU and PyTorch 2.5 or later. Everything is float32 with PyTorch's default of exact
products. Small shapes are timed as replays of CUDA graphs, on both sides. Prints one line for each
measurement and, at the end, the ratios baseline / ours; writes all of it as CSV.
"""
import argparse
import csv
import ctypes
import math
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = {"A": (16, 16, 2048, 64), "B": (4, 16, 8192, 64), "C": (4, 16, 8192, 128),
          "D": (25, 1, 600, 64)}
K = 5


class PlainCall(ctypes.Structure):
    """As in cuda/attention/c_interface.h."""
    _fields_ = ([("pattern", ctypes.c_char_p)]
                + [(n, ctypes.c_int) for n in "backward B H T D kept global_tokens rung".split()]
                + [(n, ctypes.c_void_p) for n in "q k v o lse p d_o dq dk dv keys workspace".split()]
                + [("workspace_size", ctypes.c_size_t), ("stream", ctypes.c_void_p)])


class Ours:
    """One pattern on given inputs; forward() and backward() start the kernels."""

    def __init__(self, library, pattern, q, k, v, d_o, kept=0, global_tokens=0):
        self.library, self.pattern, self.kept, self.g = library, pattern, kept, global_tokens
        B, H, T, D = self.shape = q.shape
        self.t = dict(q=q, k=k, v=v, d_o=d_o)
        for name in ("o", "dq", "dk", "dv"):
            self.t[name] = torch.full_like(q, math.nan)
        self.t["lse"] = q.new_full((B, H, T), math.nan)
        self.t["p"] = q.new_full((B, H, T, max(1, kept)), math.nan)
        self.t["keys"] = torch.full((B, H, T, max(1, kept)), -1, device=q.device, dtype=torch.int32)
        self.workspaces = {}

    def run(self, backward, rung=0):
        call = PlainCall(self.pattern.encode(), int(backward), *self.shape, self.kept, self.g, rung)
        for name, tensor in self.t.items():
            setattr(call, name, tensor.data_ptr())
        call.stream = torch.cuda.current_stream().cuda_stream
        message = ctypes.create_string_buffer(500)
        key = (backward, rung)
        if key not in self.workspaces:
            size = self.library.focus_attention_workspace(ctypes.byref(call), message, 500)
            if size < 0:
                raise RuntimeError(message.value.decode())
            self.workspaces[key] = torch.empty(max(size, 16), dtype=torch.uint8, device="cuda")
        call.workspace = self.workspaces[key].data_ptr()
        call.workspace_size = self.workspaces[key].numel()
        used = self.library.focus_attention(ctypes.byref(call), message, 500)
        if used < 0:
            raise RuntimeError(message.value.decode())
        return used

    def both(self):
        self.run(False)
        self.run(True)


def in_turns(functions, repeats, graph):
    """Milliseconds of each function: {name: list}. With graph, of a replayed CUDA graph of 20."""
    runs, inner = {}, 20 if graph else 1
    for name, function in functions.items():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                for _ in range(inner):
                    function()
            runs[name] = captured.replay
        else:
            runs[name] = function
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, run in runs.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) / inner)
    return times


def sdpa(backend, q, k, v, d_o, backward):
    def run():
        with sdpa_kernel(backend):
            o = F.scaled_dot_product_attention(q, k, v)
            if backward:
                torch.autograd.grad(o, (q, k, v), d_o)
    return run


def eager_topk(q, k, v, kept, keys=None):
    s = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    i = s.detach().topk(kept, -1).indices if keys is None else keys.long()
    mask = torch.zeros_like(s, dtype=torch.bool).scatter_(-1, i, True)
    return torch.softmax(s.masked_fill(~mask, -1e15), -1) @ v


def relative_error(got, wanted):
    got, wanted = got.double(), wanted.double()
    return ((got - wanted).norm() / wanted.norm()).item()


def visible(pattern, T, kept):
    """(T,T): may query i see key j under banded or block attention?"""
    i, j = torch.arange(T, device="cuda")[:, None], torch.arange(T, device="cuda")[None, :]
    if pattern == "block":
        return i // kept == j // kept
    begin = (i - (kept - 1) // 2).clamp(0, T - kept)
    return (j >= begin) & (j < begin + kept)


def check(ours, pattern, heads=2):
    """Largest relative error of output and gradients of the first heads against float64."""
    x = {n: ours.t[n].flatten(0, 1)[:heads].double() for n in ("q", "k", "v", "d_o")}
    q, k, v = (x[n].requires_grad_() for n in "qkv")
    if pattern == "topk":
        o = eager_topk(q, k, v, ours.kept, ours.t["keys"].flatten(0, 1)[:heads])
    else:
        s = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        if pattern != "full":
            s = s.masked_fill(~visible(pattern, q.shape[1], ours.kept), -math.inf)
        o = torch.softmax(s, -1) @ v
    grads = torch.autograd.grad(o, (q, k, v), x["d_o"])
    pairs = zip(("o", "dq", "dk", "dv"), (o, *grads))
    return max(relative_error(ours.t[n].flatten(0, 1)[:heads], w) for n, w in pairs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", default="build/libfocus-attention.so")
    parser.add_argument("--shapes", default="A,B,D")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--flex", action="store_true", help="compiled FlexAttention too")
    parser.add_argument("--rungs", action="store_true", help="every rung of every ladder (shape A)")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    library = ctypes.CDLL(arguments.library)
    for f in (library.focus_attention, library.focus_attention_workspace):
        f.restype = ctypes.c_longlong
        f.argtypes = [ctypes.POINTER(PlainCall), ctypes.c_char_p, ctypes.c_size_t]
    p = torch.cuda.get_device_properties(0)
    hardware = (f"{p.name}, {p.multi_processor_count} SMs, CUDA {torch.version.cuda}, "
                f"PyTorch {torch.__version__}, float32")
    print(hardware)
    rows, medians = [], {}
    x = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    copies = in_turns({"copy": lambda: y.copy_(x)}, 20, False)["copy"]
    copy_speed = 2 * x.nbytes / (statistics.median(copies) / 1e3)
    del x, y
    print(f"copy {copy_speed / 1e12:.2f} TB/s, read and written")

    def record(shape, what, times):
        for name, ms in times.items():
            median, spread = statistics.median(ms), statistics.quantiles(ms, n=4)
            medians[shape, what, name] = median
            rows.append([shape, what, name, f"{median:.5f}", f"{spread[0]:.5f}", f"{spread[2]:.5f}"])
            print(f"{shape} {what:8s} {name:34s} {median:9.4f} ms  "
                  f"({spread[0]:.4f} … {spread[2]:.4f})", flush=True)

    def ratio(shape, what, baseline, ours, gate="", target=""):
        if (shape, what, baseline) in medians and (shape, what, ours) in medians:
            r = medians[shape, what, baseline] / medians[shape, what, ours]
            rows.append([shape, what, f"{baseline} / {ours}", f"{r:.3f}", gate, target])
            print(f"{shape} {what:8s} {baseline + ' / ' + ours:50s} {r:7.2f}  "
                  f"gate {gate} target {target}", flush=True)

    for shape in arguments.shapes.split(","):
        B, H, T, D = SHAPES[shape]
        torch.manual_seed(1)
        q, k, v, d_o = (torch.randn(B, H, T, D, device="cuda") for _ in range(4))
        qg, kg, vg = (x.clone().requires_grad_() for x in (q, k, v))
        ours = {n: Ours(library, n, q, k, v, d_o, 0 if n == "full" else K)
                for n in ("full", "topk", "banded", "block")}
        for name, one in list(ours.items()):
            try:
                one.both()
            except RuntimeError as error:
                print(f"{shape} {name}: {error}")
                del ours[name]
        torch.cuda.synchronize()
        errors = {n: check(one, n) for n, one in ours.items()}
        print(f"{shape} relative error against float64:", errors, flush=True)
        if not all(e <= 1e-5 for e in errors.values()):
            sys.exit("too inaccurate: not timed")

        graph = shape == "D"
        forward = {f"ours {n}": lambda one=one: one.run(False) for n, one in ours.items()}
        both = {f"ours {n}": one.both for n, one in ours.items()}
        for name, backend in (("memory-efficient", SDPBackend.EFFICIENT_ATTENTION),
                              ("flash", SDPBackend.FLASH_ATTENTION),
                              ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
            try:
                sdpa(backend, qg, kg, vg, d_o, True)()
            except RuntimeError:
                print(f"{shape} {name}: not for float32")
                continue
            forward[name] = sdpa(backend, q, k, v, d_o, False)
            both[name] = sdpa(backend, qg, kg, vg, d_o, True)
        if B * H * T * T * 4 < 5e9:
            forward["eager masked top-k"] = lambda: eager_topk(q, k, v, K)
            both["eager masked top-k"] = lambda: torch.autograd.grad(
                eager_topk(qg, kg, vg, K), (qg, kg, vg), d_o)
        if arguments.flex:
            from torch.nn.attention.flex_attention import create_block_mask, flex_attention
            torch._dynamo.reset()  # or, after a few shapes, it stops compiling
            compiled = torch.compile(flex_attention, dynamic=False)
            for pattern in ("banded", "block"):
                if pattern == "banded":
                    def mod(b, h, i, j):
                        begin = torch.clamp(i - (K - 1) // 2, 0, T - K)
                        return (j >= begin) & (j < begin + K)
                else:
                    def mod(b, h, i, j):
                        return i // K == j // K
                mask = create_block_mask(mod, None, None, T, T, device="cuda")
                name = f"FlexAttention {pattern}"
                try:
                    compiled(qg, kg, vg, block_mask=mask).backward(d_o)
                    forward[name] = lambda mask=mask: compiled(q, k, v, block_mask=mask)
                    both[name] = lambda mask=mask: torch.autograd.grad(
                        compiled(qg, kg, vg, block_mask=mask), (qg, kg, vg), d_o)
                except Exception as error:  # the compiler's
                    print(f"{shape} {name}: {str(error)[:200]}")
        record(shape, "forward", in_turns(forward, arguments.repeats, graph))
        record(shape, "both", in_turns(both, arguments.repeats, graph))
        errors = {n: check(one, n) for n, one in ours.items()}
        print(f"{shape} relative error after timing:", errors, flush=True)

        if arguments.rungs:
            for n, one in ours.items():
                for backward in (False, True):
                    for rung in range(1, 14):
                        try:
                            one.run(backward, rung)
                        except RuntimeError as error:
                            if "has no rung" not in str(error):
                                print(f"{shape} {n} rung {rung}: {error}")
                            continue
                        what = "backward" if backward else "forward"
                        record(shape, what, in_turns(
                            {f"{n} rung {rung:02d}": lambda: one.run(backward, rung)},
                            5 if rung < 4 else 10, graph))
        dense, masked = "memory-efficient", "eager masked top-k"
        for what, d, s in (("forward", ("0.8", "1.0"), ("1.2", "1.6")),
                           ("both", ("0.7", "0.9"), ("2", "4"))):
            ratio(shape, what, dense, "ours full", *(d if shape == "A" else ()))
            ratio(shape, what, dense, "ours topk", *(s if shape == "A" or what == "both" else ()))
            ratio(shape, what, masked, "ours topk", *(("5", "10") if what == "both" else ()))
            for pattern in ("banded", "block"):
                ratio(shape, what, f"FlexAttention {pattern}", f"ours {pattern}",
                      *(("1.2", "2") if what == "both" else ()))
        for pattern in ("banded", "block"):
            # They read q, k, v and write o.
            r = 4 * q.nbytes / copy_speed / (medians[shape, "forward", f"ours {pattern}"] / 1e3)
            rows.append([shape, "forward", f"ours {pattern}: part of copy speed", f"{r:.3f}", "0.7", ""])
            print(f"{shape} forward  ours {pattern}: part of copy speed {r:.2f}  gate 0.7")
        del ours, forward, both
        torch.cuda.empty_cache()

    if arguments.out:
        with open(arguments.out, "w", newline="") as file:
            file.write(f"# {hardware}; times in ms\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["shape", "pass", "name", "median_or_ratio", "quartile1_or_gate",
                             "quartile3_or_target"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
