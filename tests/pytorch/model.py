"""The paper's model in plain PyTorch: the second opinion that the C++ engine is compared with.

"Transformers Learn Faster with Semantic Focus", Ram et al. 2025.  Token embedding and sinusoidal
positions, pre-norm blocks of attention and a two-layer MLP, the mean over all positions, a linear
classifier.  Masks act on the full matrix of scores, so nothing here is fast: it is meant to be
read next to the paper.  Parameter names are those of the project's checkpoint files.
"""
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

MASKED = -1e15  # the score of a dropped key; softmax turns it into an exact zero
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "mish": nn.Mish}  # nn.GELU is the erf form


@dataclass
class Settings:
    attention: str = "full"  # full, banded, block, topk or bottomk
    k: int = -1  # keys that a query keeps; -1 for full attention
    global_tokens: int = 0  # how many of the last positions are global (banded and block)
    heads: int = 1
    activation: str = "relu"
    d_model: int = 64  # also the width of each head
    d_mlp: int = 64
    blocks: int = 5
    seq_len: int = 40  # global tokens included
    vocab: int = 17
    classes: int = 10
    dropout: float = 0.01
    first_layer_norm_eps: float = 1e-5  # attention norm of the first block (the authors use 0)
    layer_norm_eps: float = 1e-5  # every other norm
    score_scale: float = 1.0  # a factor on the scores beside 1/sqrt(width)
    objective: str = "classify"  # or pooled, which computes the same, or causal: see Model


def fixed_mask(s: Settings) -> torch.Tensor:
    """[seq_len, seq_len], True where query (row) keeps key (column), as far as positions decide."""
    if s.objective == "causal":  # itself and those before it; banded: the k nearest of them
        seen = torch.ones(s.seq_len, s.seq_len, dtype=torch.bool).tril()
        return seen.triu(1 - s.k) if s.attention == "banded" else seen
    n = s.seq_len - s.global_tokens  # the band and the blocks cover only the ordinary tokens
    keep = torch.zeros(s.seq_len, s.seq_len, dtype=torch.bool)
    for i in range(n):
        if s.attention == "banded":
            # Every row keeps exactly k keys: at both ends the window is shifted, not cut.
            start = min(max(i - (s.k - 1) // 2, 0), n - s.k)
            keep[i, start : start + s.k] = True
        else:
            start = i // s.k * s.k
            keep[i, start : min(start + s.k, n)] = True
    keep[n:, :] = True  # global tokens attend to all ...
    keep[:, n:] = True  # ... and all attend to them
    return keep


class Attention(nn.Module):
    def __init__(self, s: Settings):
        super().__init__()
        self.kind, self.k, self.heads, self.width = s.attention, s.k, s.heads, s.d_model
        self.factor = s.score_scale / math.sqrt(s.d_model)
        self.W_q = nn.Linear(s.d_model, s.heads * s.d_model)
        self.W_k = nn.Linear(s.d_model, s.heads * s.d_model)
        self.W_v = nn.Linear(s.d_model, s.heads * s.d_model)
        self.W_o = nn.Linear(s.heads * s.d_model, s.d_model)
        self.dropout = nn.Dropout(s.dropout)
        fixed = s.attention in ("banded", "block") or s.objective == "causal"
        self.register_buffer("dropped", ~fixed_mask(s) if fixed else None, persistent=False)

    def split(self, x):
        """[batch, length, heads * width] -> [batch, heads, length, width]"""
        return x.unflatten(-1, (self.heads, self.width)).transpose(1, 2)

    def scores(self, x):
        """[batch, heads, query, key], before any mask."""
        q, k = self.split(self.W_q(x)), self.split(self.W_k(x))
        return q @ k.transpose(-2, -1) * self.factor

    def mask(self, scores):
        if self.dropped is not None:
            scores = scores.masked_fill(self.dropped, MASKED)
        if self.kind in ("topk", "bottomk"):
            # Which keys are kept is a choice, not a function with a gradient: hence detach.
            largest = self.kind == "topk"
            kept = scores.detach().topk(self.k, dim=-1, largest=largest, sorted=False).indices
            dropped = torch.ones_like(scores, dtype=torch.bool).scatter_(-1, kept, False)
            # Where a causal mask leaves fewer than k keys, masked ones are among the k: they stay
            # masked.
            return scores.masked_fill(dropped, MASKED)
        return scores

    def forward(self, x):
        weights = self.dropout(torch.softmax(self.mask(self.scores(x)), dim=-1))
        out = weights @ self.split(self.W_v(x))
        return self.W_o(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, s: Settings, attention_norm_eps: float):
        super().__init__()
        self.shape, self.eps = (s.d_model,), (attention_norm_eps, s.layer_norm_eps)
        self.attention = Attention(s)
        self.ffn = nn.Sequential(  # the positions 0 and 3 in this list give the tensors' names
            nn.Linear(s.d_model, s.d_mlp),
            nn.Dropout(s.dropout),
            ACTIVATIONS[s.activation](),
            nn.Linear(s.d_mlp, s.d_model),
        )
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x):
        # The norms have no weights of their own.
        x = x + self.dropout(self.attention(F.layer_norm(x, self.shape, eps=self.eps[0])))
        return x + self.dropout(self.ffn(F.layer_norm(x, self.shape, eps=self.eps[1])))


class Encoder(nn.Module):
    def __init__(self, s: Settings):
        super().__init__()
        eps = [s.first_layer_norm_eps] + [s.layer_norm_eps] * (s.blocks - 1)
        self.transformer = nn.ModuleList(Block(s, e) for e in eps)

    def forward(self, x):
        for block in self.transformer:
            x = block(x)
        return x


class Positions(nn.Module):
    """Sine at even, cosine at odd components, base 10 000.

    Computed in float32, also for a model in double: the authors' files are reproduced to the last
    digits of double this way, and only to 1e-8 from sines taken in double.
    """

    def __init__(self, s: Settings):
        super().__init__()
        even = torch.arange(0, s.d_model, 2, dtype=torch.float32)
        position = torch.arange(s.seq_len, dtype=torch.float32).unsqueeze(1)
        angle = position * torch.exp(even * (-math.log(1e4) / s.d_model))
        pe = torch.zeros(1, s.seq_len, s.d_model)
        pe[0, :, 0::2] = torch.sin(angle)
        pe[0, :, 1::2] = torch.cos(angle)[:, : s.d_model // 2]  # an odd d_model has one sine more
        self.register_buffer("pe", pe)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x):
        return self.dropout(x + self.pe)


class Model(nn.Module):
    def __init__(self, s: Settings):
        super().__init__()
        self.scale = math.sqrt(s.d_model)
        self.embedding = nn.Embedding(s.vocab, s.d_model)
        self.pos_encoder = Positions(s)
        self.encoder = Encoder(s)
        self.linear = nn.Linear(s.d_model, s.classes)
        self.each = s.objective == "causal"  # predicts the next token at every position
        # nn.Linear's own start, uniform in +-1/sqrt(fan_in) for weights and biases, is the paper's.
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.linear.weight, -0.1, 0.1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens):
        """tokens [batch, seq_len] -> logits [batch, classes]; causal: [batch, seq_len, classes]"""
        x = self.encoder(self.pos_encoder(self.embedding(tokens) * self.scale))
        return self.linear(x if self.each else x.mean(dim=1))


def cross_entropy(logits, labels):
    """The mean over all that the model says; labels [batch] or [batch, seq_len]."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def training_step(model, optimizer, tokens, labels, clip_norm):
    """One step as in the paper; returns the loss and the norm of the gradient before clipping.

    clip_grad_norm_ multiplies every gradient by
    min(1, clip_norm / (norm + 1e-6)): the 1e-6 shows in the ninth digit or so of a stepped weight.
    """
    optimizer.zero_grad()
    loss = cross_entropy(model(tokens), labels)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss, norm
