"""The Qwen2 architecture as one small PyTorch module, for training on a CPU or a GPU.

Owner of: the float32 master weights, under the names that Hugging Face's Qwen2ForCausalLM uses,
so that a checkpoint is `state_dict()` and nothing else. Written by hand instead of importing
transformers' modelling code because training wants two things that it does not offer: the head on
the assistant's tokens only, and hooks on the residual stream.
"""
import torch
import torch.nn.functional as F
from torch import nn


class Config:
    """The fields of config.json that shape the network."""

    def __init__(self, hidden, layers, inter, heads, kv_heads, vocab, head_dim=64, theta=10000.0,
                 eps=1e-6):
        self.hidden, self.layers, self.inter = hidden, layers, inter
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.vocab, self.theta, self.eps = vocab, theta, eps


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


def rope_table(length, dim, theta):
    """cos and sin of shape [length, dim], the two halves alike, as Hugging Face lays them out."""
    freq = theta ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), freq)
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim, bias=True)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=True)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=True)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)

    def forward(self, x, cos, sin, cache, mask):
        b, t, _ = x.shape
        c = self.c
        q = self.q_proj(x).view(b, t, c.heads, c.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        rep = c.heads // c.kv_heads
        k, v = k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1)
        if x.is_cuda:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            # Written out: at chat lengths PyTorch's fused CPU attention is 3 to 7 times slower.
            scores = (q * c.head_dim ** -0.5) @ k.transpose(-1, -2) + mask
            out = scores.softmax(-1) @ v
        return self.o_proj(out.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden, c.inter, bias=False)
        self.up_proj = nn.Linear(c.hidden, c.inter, bias=False)
        self.down_proj = nn.Linear(c.inter, c.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.hidden, c.eps)
        self.post_attention_layernorm = RMSNorm(c.hidden, c.eps)

    def forward(self, x, cos, sin, cache, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab, c.hidden)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = RMSNorm(c.hidden, c.eps)


class Qwen2(nn.Module):
    def __init__(self, c, seed=0, max_len=2048):
        super().__init__()
        self.c = c
        torch.manual_seed(seed)
        self.model = Body(c)
        cos, sin = rope_table(max_len, c.head_dim, c.theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.ndim == 2:
                std = 0.02 if "embed" in name else p.shape[1] ** -0.5 * 0.7
                # Projections into the residual stream start smaller, or depth multiplies its norm.
                if "o_proj" in name or "down_proj" in name:
                    std *= (2 * c.layers) ** -0.5
                nn.init.normal_(p, std=std)

    def linears(self):
        return [(n, m) for n, m in self.named_modules() if isinstance(m, nn.Linear)]

    def forward(self, ids, pick=None, position=None, caches=None, mask=None, edit=None,
                capture=None):
        """ids [B, T] -> logits [B, T, vocab], or [len(pick), vocab] at flat positions `pick`.

        position [B, T] overrides 0..T-1 (padded or packed batches); caches: one list per layer, filled
        and extended in place; mask: additive attention mask, else causal; edit[l]: what is
        added to the output of block l; capture: a list that receives each block's output.
        """
        x = self.model.embed_tokens(ids)
        if position is None:
            cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        else:
            cos, sin = self.cos[position][:, None], self.sin[position][:, None]
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        if mask is None:
            mask = torch.full((ids.shape[1],) * 2, float("-inf"), device=x.device).triu(1)
        mask = mask.to(x.dtype)
        for i, block in enumerate(self.model.layers):
            x = block(x, cos, sin, None if caches is None else caches[i], mask)
            if edit is not None and i in edit:
                x = x + edit[i].to(x.dtype)
            if capture is not None:
                capture.append(x)
        if pick is not None:
            x = x.reshape(-1, x.shape[-1])[pick]
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)
