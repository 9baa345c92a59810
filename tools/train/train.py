"""Trains one model, on a GPU or on a CPU: Muon + AdamW, NF4-aware at the end.

The float32 master weights are kept apart from the bf16 weights that compute: before each step the
masters are copied over, from `qat` on through NF4, and the gradients go straight to the masters.
So quantisation is no part of the compiled graph. Matrices of equal shape are one stacked tensor, so
an optimiser step is a few large operations instead of hundreds of small ones. The loss is taken
on the assistant's tokens and their <|im_end|> only, and the head is evaluated only there.

A checkpoint is written every minute; the same command continues after a kill. With --minutes the
number of steps is settled from the speed measured at the start, and the schedule then follows the
steps; it ends in time also if the machine becomes slower.
"""
import argparse
import json
import math
import os
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import nf4
import pack
from model import Config, Qwen2

SHAPES = {  # hidden, layers, inter, heads, kv_heads
    "rinne-base": (384, 12, 1024, 6, 2),
    "rinne-lite": (256, 8, 768, 4, 2),
    "tiny": (64, 12, 64, 1, 1),  # for trying the chain
}
IGNORE = -100  # cross_entropy's default
# Share of a batch's positions that have room for a prediction; about 0.33 and 0.42 have one.
ROOM = {"short": 0.38, "long": 0.48}
LONG_EVERY = 16  # each n-th step is taken on rows of pack.LONG


class Rows:
    """Packed rows on the device, and the batches of any step."""

    def __init__(self, path, prefix, device, seed):
        with np.load(path) as data:
            self.data = {kind: [torch.from_numpy(data[f"{prefix}{kind}_{field}"].astype(t)).to(device)
                                for field, t in (("ids", np.int16), ("tag", np.uint8),
                                                 ("dose", np.uint8))]
                         for kind in ("short", "long")}
        self.device, self.seed, self.order = device, seed, {}

    def batch(self, step, tokens):
        """(kind, tensors): the batch of a step is a function of the step and the seed."""
        late = step % LONG_EVERY == LONG_EVERY - 1 and len(self.data["long"][0]) > 0
        kind = "long" if late else "short"
        ids = self.data[kind][0]
        count = max(1, min(tokens // ids.shape[1], len(ids)))
        at = (step // LONG_EVERY if late else step - step // LONG_EVERY) * count
        chosen = []
        while len(chosen) < count:
            epoch, place = divmod(at + len(chosen), len(ids))
            if (kind, epoch) not in self.order:
                gen = torch.Generator().manual_seed(self.seed * 1000 + epoch)
                self.order = {k: v for k, v in self.order.items() if k[0] != kind}
                self.order[kind, epoch] = torch.randperm(len(ids), generator=gen)
            chosen += self.order[kind, epoch][place: place + count - len(chosen)].tolist()
        return kind, self.rows(kind, torch.tensor(chosen, device=self.device))

    def rows(self, kind, chosen):
        ids, tag, dose = (x[chosen] for x in self.data[kind])
        ids, tag = ids.long(), tag.long()
        seg, width = tag >> 1, ids.shape[1]
        place = torch.arange(width, device=self.device)
        start = torch.zeros_like(seg, dtype=torch.bool)
        start[:, 1:] = seg[:, 1:] != seg[:, :-1]
        position = place - torch.where(start, place, 0).cummax(1).values
        allowed = (seg[:, :, None] == seg[:, None, :]) & (place[:, None] >= place[None])
        mask = torch.zeros(allowed.shape, dtype=torch.bfloat16, device=self.device)
        mask.masked_fill_(~allowed, float("-inf"))
        target = torch.full_like(ids, IGNORE)
        target[:, :-1] = torch.where((tag[:, 1:] & 1) > 0, ids[:, 1:], IGNORE)
        target = target.view(-1)
        if ids.is_cuda:  # a fixed number of them, so that shapes stay; what is over is left out
            count = int(len(target) * ROOM[kind]) // 256 * 256
            pick = torch.argsort((target == IGNORE).to(torch.uint8), stable=True)[:count]
        else:
            pick = (target != IGNORE).nonzero()[:, 0]
        return dict(ids=ids, position=position, mask=mask[:, None], pick=pick, target=target[pick],
                    dose=(dose.to(torch.bfloat16) / pack.DOSE)[:, :, None])


class Muon:
    """Momentum whose update is made orthogonal (Newton-Schulz), for stacks of matrices.

    At this size it needs about half of AdamW's steps for the same loss.
    """

    def __init__(self, masters, lr, momentum=0.95, weight_decay=0.01):
        self.masters, self.peak, self.momentum, self.decay = masters, lr, momentum, weight_decay
        self.buffers = [torch.zeros_like(m) for m in masters]

    @torch.no_grad()
    def step(self, grads, rate):
        lr = self.peak * rate
        for master, buf, grad in zip(self.masters, self.buffers, grads):
            buf.lerp_(grad, 1 - self.momentum)
            x = grad.lerp(buf, self.momentum)
            rows, columns = x.shape[1:]
            if rows > columns:
                x = x.mT
            # bf16 is enough: the iteration corrects its own rounding.
            x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315) @ x
            if rows > columns:
                x = x.mT
            master.mul_(1 - lr * self.decay)
            master.add_(x.float(), alpha=-lr * max(1.0, rows / columns) ** 0.5)


class Trainer:
    """One model with its masters and optimisers. `name` as in SHAPES, or a saved config."""

    def __init__(self, config, device, seed=1, lr=3e-3, muon_lr=0.02, compiled=True, weights=None):
        self.config, self.device = config, device
        model = Qwen2(config, seed)
        if weights:
            model.load_state_dict(weights)
        model = model.to(device)
        inside = {id(m.weight) for _, m in model.linears()}
        self.stacks = {}
        for name, m in model.linears():
            self.stacks.setdefault(tuple(m.weight.shape), []).append(name + ".weight")
        self.rest = [n for n, p in model.named_parameters() if id(p) not in inside]
        params = dict(model.named_parameters())
        self.masters = [torch.stack([params[n].detach() for n in names])
                        for names in self.stacks.values()]
        self.loose = [params[n].detach().clone().requires_grad_() for n in self.rest]
        self.model = model.bfloat16()
        self.params = dict(self.model.named_parameters())
        self.muon = Muon(self.masters, muon_lr)
        groups = [dict(params=[p for p in self.loose if (p.ndim == 2) == two],
                       weight_decay=0.01 * two) for two in (True, False)]
        self.adam = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
        self.peak = lr
        self.quantised = False
        self.vectors = torch.zeros(config.layers, config.hidden, dtype=torch.bfloat16,
                                   device=device)  # what a dose of 1 adds after each block
        self.sync()
        self.fast = self.compile() if compiled and device == "cuda" else None

    def loss(self, ids, position, mask, pick, target, dose, vectors):
        edit = {i: dose * vectors[i] for i in range(self.config.layers)}
        logits = self.model(ids, pick, position=position, mask=mask, edit=edit)
        return F.cross_entropy(logits.float(), target)

    def compile(self):
        """The loss as a compiled function; None where there is no compiler."""
        try:
            return torch.compile(self.loss, dynamic=False)
        except Exception as e:
            print("not compiled:", e, flush=True)
            return None

    @torch.no_grad()
    def sync(self):
        """Masters to computing weights."""
        for names, master in zip(self.stacks.values(), self.masters):
            value = nf4.rounded(master) if self.quantised else master
            torch._foreach_copy_([self.params[n] for n in names],
                                 list(value.bfloat16().unbind(0)))
        torch._foreach_copy_([self.params[n] for n in self.rest], self.loose)

    def gradient(self, kind, batch):
        """Backward pass of one batch; the loss stays on the device."""
        for p in self.params.values():
            p.grad = None
        if kind == "short" and self.fast:
            try:
                loss = self.fast(**batch, vectors=self.vectors)
                loss.backward()
                return loss.detach()
            except Exception as e:
                print("compiled step failed, going on without:", repr(e)[:2000], flush=True)
                self.fast = None
                for p in self.params.values():
                    p.grad = None
        # Rows of pack.LONG are few: not worth another minute of compiling.
        loss = self.loss(**batch, vectors=self.vectors)
        loss.backward()
        return loss.detach()

    def update(self, rate):
        for g in self.adam.param_groups:
            g["lr"] = self.peak * rate
        for name, p in zip(self.rest, self.loose):
            p.grad = self.params[name].grad.float()
        torch.nn.utils.clip_grad_norm_(self.loose, 1.0)
        self.adam.step()
        self.muon.step([torch.stack([self.params[n].grad for n in names]).float()
                        for names in self.stacks.values()], rate)
        self.sync()

    def weights(self):
        """state_dict of the masters, float32 on the CPU."""
        out = {n: m[i].detach().cpu().clone() for names, m in zip(self.stacks.values(), self.masters)
               for i, n in enumerate(names)}
        out.update({n: p.detach().cpu().clone() for n, p in zip(self.rest, self.loose)})
        return out

    def state(self):
        return dict(masters=self.masters, loose=[p.detach() for p in self.loose],
                    muon=self.muon.buffers, adam=self.adam.state_dict())

    @torch.no_grad()
    def reset(self, weights):
        """Begins anew from these weights (a state_dict), with empty optimisers."""
        for names, master, buf in zip(self.stacks.values(), self.masters, self.muon.buffers):
            master.copy_(torch.stack([weights[n].float() for n in names]))
            buf.zero_()
        for n, p in zip(self.rest, self.loose):
            p.copy_(weights[n])
        self.adam.state.clear()
        self.sync()

    @torch.no_grad()
    def restore(self, state):
        for mine, theirs in ((self.masters, state["masters"]), (self.loose, state["loose"]),
                             (self.muon.buffers, state["muon"])):
            for a, b in zip(mine, theirs):
                a.copy_(b)
        self.adam.load_state_dict(state["adam"])
        self.sync()

    @torch.no_grad()
    def evaluate(self, rows, tokens):
        """Nats per predicted token over all the rows, without a dose."""
        total = count = 0
        for kind, data in rows.data.items():
            each = max(1, tokens // data[0].shape[1])
            for i in range(0, len(data[0]), each):
                at = torch.arange(i, min(i + each, len(data[0])), device=self.device)
                b = rows.rows(kind, at)
                logits = self.model(b["ids"], b["pick"], position=b["position"], mask=b["mask"])
                total += F.cross_entropy(logits.float(), b["target"], reduction="sum").item()
                count += (b["target"] != IGNORE).sum().item()
        return total / max(count, 1)


def save(path, value):
    """Never leaves half a file under the name."""
    part = path.with_suffix(".part")
    torch.save(value, part)
    os.replace(part, path)


def prepare(device, threads):
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        torch.set_num_threads(threads)
    else:
        torch.backends.cuda.enable_cudnn_sdp(False)  # the one that would recompile for each mask
        torch.set_float32_matmul_precision("high")
    return device


def run(trainer, rows, valid, args, steps, minutes, log, first, spent, keep, qat=0.7, warm=100,
        floor=0.02, each=None):
    """The training loop of both stages. Returns (step, seconds).

    keep(step, spent, steps) is called every minute; each(step) before each step. steps or minutes
    may be 0.
    """
    step, mean, tokens = first, [], log[-1]["tokens"] if log else 0
    saved = clock = time.time()
    settled, since, bench = bool(steps) or first > 0, None, None
    if not settled:
        steps = 10 ** 9  # until the speed is known
    while step < steps:
        done = step / steps
        if minutes:
            done = max(done, spent / (minutes * 60))
        if done >= 1:
            break
        if each:
            each(step)
        if done >= qat and not trainer.quantised:
            trainer.quantised = True
            trainer.sync()
        rate = min(1, (step + 1) / warm) * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
        kind, batch = rows.batch(step, args.tokens)
        tokens += batch["ids"].numel()
        mean.append(trainer.gradient(kind, batch))
        trainer.update(rate)
        step += 1
        if step % args.log == 0 or step >= steps:
            value = torch.stack(mean).float().mean().item()  # waits for the device
            mean = []
        now = time.time()
        spent, clock = spent + now - clock, now
        if step - first == 2 * args.log:
            since, bench = spent, step
        if not settled and bench and minutes and (step - bench) >= 6 * args.log:
            speed = (step - bench) / (spent - since)
            steps = step + max(1, int(speed * 0.97 * (minutes * 60 - spent)))
            settled = True
            print(f"{speed:.2f} steps a second: {steps} steps", flush=True)
        if step % args.log == 0 or step >= steps:
            entry = dict(step=step, seconds=round(spent, 1), tokens=tokens, loss=round(value, 4),
                         rate=round(rate, 4), quantised=trainer.quantised)
            if valid is not None and step % (20 * args.log) == 0:
                entry["valid"] = round(trainer.evaluate(valid, args.tokens), 4)
            log.append(entry)
            print(json.dumps(entry), flush=True)
            if not math.isfinite(value):
                raise SystemExit("the loss is not finite: stopped")
        if now - saved > 60:
            saved = now
            keep(step, spent, steps if settled else 0)
    return step, spent


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--name", required=True, choices=SHAPES)
    ap.add_argument("--data", required=True, help=".npz of pack.py")
    ap.add_argument("--tokenizer", required=True, help="directory with tokenizer.json")
    ap.add_argument("--out", required=True, help="working directory: checkpoints and log.jsonl")
    ap.add_argument("--steps", type=int, default=0)
    ap.add_argument("--minutes", type=float, default=0, help="a limit; without --steps also a goal")
    ap.add_argument("--tokens", type=int, default=32768, help="per step")
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--muon-lr", type=float, default=0.02)
    ap.add_argument("--qat", type=float, default=0.7, help="NF4-aware from this fraction on")
    ap.add_argument("--device", default="", help="cuda or cpu; default: cuda if there is one")
    ap.add_argument("--eager", action="store_true", help="do not compile")
    ap.add_argument("--log", type=int, default=20, help="steps between two lines")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    began = time.time()
    device = prepare(args.device, args.threads)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    vocab = Tokenizer.from_file(args.tokenizer + "/tokenizer.json").get_vocab_size()
    hidden, layers, inter, heads, kv = SHAPES[args.name]
    trainer = Trainer(Config(hidden, layers, inter, heads, kv, vocab), device, args.seed, args.lr,
                      args.muon_lr, not args.eager)
    rows = Rows(args.data, "", device, args.seed)
    valid = Rows(args.data, "valid_", device, args.seed)
    # What has passed since the command began counts: a limit is a limit.
    step, spent, log, steps = 0, time.time() - began, [], args.steps
    last = out / "last.pt"
    if last.exists():
        state = torch.load(last, map_location=device, weights_only=False)
        trainer.quantised = state["quantised"]
        trainer.restore(state["trainer"])
        step, spent, log = state["step"], state["spent"], state["log"]
        steps = args.steps or state["steps"]

    def keep(step, spent, steps):
        save(last, dict(trainer=trainer.state(), quantised=trainer.quantised, step=step,
                        spent=spent, log=log, steps=steps, config=vars(trainer.config)))

    count = sum(p.numel() for p in trainer.params.values())
    print(f"{args.name}: {count / 1e6:.2f} M parameters on {device}, starting at step {step}",
          flush=True)
    step, spent = run(trainer, rows, valid, args, steps, args.minutes, log, step, spent, keep,
                      args.qat)
    trainer.quantised = True
    trainer.sync()
    log.append(dict(step=step, seconds=round(spent, 1), quantised=True,
                    valid=round(trainer.evaluate(valid, args.tokens), 4)))
    print(json.dumps(log[-1]), flush=True)
    (out / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in log))
    save(out / "stage1.pt", dict(model=trainer.weights(), config=vars(trainer.config)))


if __name__ == "__main__":
    main()
