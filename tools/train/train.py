"""Trains one model: AdamW or Muon, bf16 autocast over fp32 master weights, NF4-aware at the end.

Chats are sorted into batches of similar length, so that hardly anything is padding; the loss is
taken on the assistant's tokens and their <|im_end|> only, and the head is evaluated only there.
A checkpoint is written every minute; the same command continues after a kill.
"""
import argparse
import json
import math
import pathlib
import pickle
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import chat
import nf4
from model import Config, Qwen2

SHAPES = {  # hidden, layers, inter, heads, kv_heads
    "rinne-base": (256, 12, 512, 4, 2),
    "rinne-lite": (192, 8, 512, 3, 1),
}
MAX_LEN = 1024
IGNORE = -100  # cross_entropy's default


def tokenise(path, tokenizer):
    """[(ids, mask, dose)]: mask[i] is 1 where token i is to be predicted."""
    cache = pathlib.Path(str(path) + ".tokens")
    if cache.exists():
        return pickle.loads(cache.read_bytes())
    chats = pickle.loads(pathlib.Path(path).read_bytes())
    flat, owner = [], []
    for i, (_, system, turns, _) in enumerate(chats):
        for text, trained in chat.pieces(system, turns):
            flat.append(text)
            owner.append((i, trained))
    rows = [([], []) for _ in chats]
    for (i, trained), enc in zip(owner, tokenizer.encode_batch_fast(flat)):
        rows[i][0].extend(enc.ids)
        rows[i][1].extend([int(trained)] * len(enc.ids))
    out = [(ids[:MAX_LEN], mask[:MAX_LEN], c[3]) for (ids, mask), c in zip(rows, chats)]
    cache.write_bytes(pickle.dumps(out))
    return out


def batches(rows, tokens, seed):
    """Endless (ids [B, T], pick, target, dose [B, 1, 1]): similar lengths together, order shuffled by seed."""
    rng = random.Random(seed)
    while True:
        order = list(range(len(rows)))
        rng.shuffle(order)
        # Few distinct shapes (lengths in multiples of 16, rows to match), because the CPU library
        # compiles a kernel for each; odd lengths would cost a quarter of every step besides.
        width = {i: -(-len(rows[i][0]) // 16) * 16 for i in order}
        order.sort(key=width.get)
        groups, start = [], 0
        while start < len(order):
            group = order[start : start + max(1, tokens // width[order[start]])]
            fit = max(1, tokens // width[group[-1]])
            groups.append(group[:fit])
            start += fit
        rng.shuffle(groups)
        for group in groups:
            length = width[group[-1]]
            ids = torch.zeros(len(group), length, dtype=torch.long)
            pick, target = [], []
            for b, i in enumerate(group):
                row, mask, _ = rows[i]
                ids[b, : len(row)] = torch.tensor(row)
                for t in range(1, len(row)):
                    if mask[t]:
                        pick.append(b * length + t - 1)
                        target.append(row[t])
            spare = -len(pick) % 128
            pick += [0] * spare
            target += [IGNORE] * spare
            dose = torch.tensor([rows[i][2] for i in group]).view(-1, 1, 1)
            yield ids, torch.tensor(pick), torch.tensor(target), dose


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Newton-Schulz), for the blocks' matrices.

    At this size it needs about half of AdamW's steps for the same loss, for 5 % more time a step.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                buf = state.setdefault("buf", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - group["momentum"])
                g = p.grad.lerp(buf, group["momentum"])
                x = g.T if g.shape[0] > g.shape[1] else g
                # bf16 is enough: the iteration corrects its own rounding.
                x = (x / (x.norm() + 1e-7)).bfloat16()
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                x = (x.T if g.shape[0] > g.shape[1] else x).float()
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(x, alpha=-group["lr"] * max(1.0, g.shape[0] / g.shape[1]) ** 0.5)


def optimizers(model, kind, lr, muon_lr):
    matrices = [m.weight for _, m in model.linears()]
    taken = {id(p) for p in matrices} if kind == "muon" else set()
    rest = [p for p in model.parameters() if id(p) not in taken]
    decay = [p for p in rest if p.ndim == 2]
    plain = [p for p in rest if p.ndim != 2]
    adam = torch.optim.AdamW([dict(params=decay, weight_decay=0.01),
                              dict(params=plain, weight_decay=0.0)],
                             lr=lr, betas=(0.9, 0.98), fused=True)
    out = [adam]
    if kind == "muon":
        out.append(Muon(matrices, muon_lr, weight_decay=0.01))
    for o in out:
        for g in o.param_groups:
            g["peak"] = g["lr"]
    return out


def evaluate(model, rows, tokens):
    total = count = 0
    model.eval()
    with torch.no_grad():
        source = batches(rows, tokens, 0)
        seen = 0
        while seen < len(rows):
            ids, pick, target, _ = next(source)
            seen += len(ids)
            logits = model(ids, pick)
            total += F.cross_entropy(logits.float(), target, reduction="sum").item()
            count += (target != IGNORE).sum().item()
    model.train()
    return total / count


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--name", required=True, choices=SHAPES)
    ap.add_argument("--data", required=True)
    ap.add_argument("--tokenizer", required=True, help="directory with tokenizer.json")
    ap.add_argument("--out", required=True, help="working directory: checkpoints and log.jsonl")
    ap.add_argument("--steps", type=int, default=0)
    ap.add_argument("--minutes", type=float, default=0, help="instead of --steps")
    ap.add_argument("--tokens", type=int, default=4096, help="per step")
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--muon-lr", type=float, default=0.02)
    ap.add_argument("--optimizer", default="muon", choices=["adamw", "muon"])
    ap.add_argument("--qat", type=float, default=0.7, help="NF4-aware from this fraction on")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    tok = Tokenizer.from_file(args.tokenizer + "/tokenizer.json")
    rows = tokenise(args.data, tok)
    valid, rows = rows[:300], rows[300:]
    hidden, layers, inter, heads, kv = SHAPES[args.name]
    config = Config(hidden, layers, inter, heads, kv, tok.get_vocab_size())
    model = Qwen2(config, args.seed)
    opts = optimizers(model, args.optimizer, args.lr, args.muon_lr)
    step, spent, seen, log = 0, 0.0, 0, []
    last = out / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=False)
        model.load_state_dict(state["model"])
        for o, s in zip(opts, state["opts"]):
            o.load_state_dict(s)
        step, spent, seen, log = state["step"], state["spent"], state["seen"], state["log"]
    source = batches(rows, args.tokens, args.seed)
    for _ in range(step):
        next(source)
    print(f"{args.name}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, "
          f"{len(rows)} chats, {sum(len(r[0]) for r in rows) / 1e6:.1f} M tokens, "
          f"starting at step {step}", flush=True)
    quantised, saved, mean, clock = False, time.time(), 0.0, time.time()
    while True:
        done = step / args.steps if args.steps else spent / (args.minutes * 60)
        if done >= 1:
            break
        if done >= args.qat and not quantised:
            quantised = True
            for _, m in model.linears():
                m.fake = nf4.fake
        rate = min(1, (step + 1) / 60) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
        for o in opts:
            for g in o.param_groups:
                g["lr"] = g["peak"] * rate
        ids, pick, target, _ = next(source)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, pick)
        loss = F.cross_entropy(logits.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            o.step()
            o.zero_grad()
        step += 1
        seen += ids.numel()
        mean += loss.item()
        now = time.time()
        spent, clock = spent + now - clock, now
        if step % 20 == 0:
            entry = dict(step=step, seconds=round(spent, 1), tokens=seen, loss=round(mean / 20, 4),
                         rate=round(rate, 4), quantised=quantised)
            mean = 0.0
            if step % 200 == 0:
                entry["valid"] = round(evaluate(model, valid, args.tokens), 4)
            log.append(entry)
            print(json.dumps(entry), flush=True)
        if now - saved > 60:
            saved = now
            save(last, model, opts, config, step, spent, seen, log)
    save(last, model, opts, config, step, spent, seen, log)
    log.append(dict(step=step, seconds=round(spent, 1), tokens=seen, quantised=quantised,
                    valid=round(evaluate(model, valid, args.tokens), 4)))
    print(json.dumps(log[-1]))
    torch.save(dict(model=model.state_dict(), config=vars(config)), out / "final.pt")
    (out / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in log))


def save(path, model, opts, config, step, spent, seen, log):
    part = path.with_suffix(".part")
    torch.save(dict(model=model.state_dict(), opts=[o.state_dict() for o in opts],
                    config=vars(config), step=step, spent=spent, seen=seen, log=log), part)
    part.rename(path)


if __name__ == "__main__":
    main()
