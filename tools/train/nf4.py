"""NF4 with double quantisation, as bitsandbytes stores it, in plain PyTorch.

Used three ways: to round the weights while training (so they settle where 4 bits can hold them), to
write the checkpoint, and to read it back for evaluation. quantise.py checks that bitsandbytes
agrees.
"""
import torch

CODE = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0])
EDGES = (CODE[1:] + CODE[:-1]) / 2
BLOCK = 64


def blocks(weight):
    """[..., K] -> codes [n, 64] and absmax [n, 1] of its elements in order."""
    flat = weight.detach().float().reshape(-1, BLOCK)
    absmax = flat.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return torch.bucketize(flat / absmax, EDGES.to(flat.device)), absmax


def rounded(weight):
    """What is left of the weight when it is read back from 4 bits: float32, the same shape."""
    code, absmax = blocks(weight)
    return (CODE.to(weight.device)[code] * absmax).reshape(weight.shape)
