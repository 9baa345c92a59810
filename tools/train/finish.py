"""Second stage: teaches a trained model to take its own control vector in doses.

The direction is that of vector.py (class means over the pairs, default prompt), estimated from the
model itself and again every --estimate steps, so that what is learnt fits the vector that is
extracted from the finished weights. In a share of the chats (build_data.py --steered) a dose of it
is added at the steered blocks, at every position, as at inference: little of it leaves the system
prompt's style alone, from 0.95 on the answer is gyaru whatever the prompt says. What more than the
largest dose does (pack.py --dose-most) is left to the model: broken text at 25. A model that has seen
a full dose of a short vector stays fluent at several of them, and nothing collapses; of a long one
(a fraction of 0.4 and more), two are beyond it. All of it is NF4-aware.

Several variants (which blocks, how long the vector, how many steps) can be trained from the same
weights; each is written as a checkpoint in its final form and measured on data/selection_messages.json.
"""
import argparse
import json
import pathlib
import time

import torch
from tokenizers import Tokenizer

import evaluate
import quantise
import search
import train
import vector
from model import Config


class Direction:
    """What a dose of 1 adds, kept in the trainer's `vectors`."""

    def __init__(self, trainer, tok, first, last, fraction):
        self.trainer, self.tok = trainer, tok
        self.first, self.last, self.fraction = first, last, fraction
        self.start = None

    def estimate(self):
        made = vector.make(vector.statistics_of(self.trainer.model, self.tok), self.first,
                           self.last, self.fraction)
        into = self.trainer.vectors
        into.zero_()
        for i, v in made.items():
            into[i] = (vector.STANDARD_PRESET * v).to(into.dtype)
        if self.start is None:
            self.start = into.clone()

    def drift(self):
        """Mean cosine between the first and the latest direction."""
        return torch.cosine_similarity(self.start[self.first:self.last + 1].float(),
                                       self.trainer.vectors[self.first:self.last + 1].float(),
                                       dim=-1).mean().item()


PRESETS = (8, 12, 25)       # mild, standard, collapse
LENGTHS = (1.0, 0.8, 1.25)  # of the vector, as multiples of what was trained


def setting(preset, length):
    return f"butler 0 at {preset} x {length}"


def report(directory, device, first, last, fraction):
    """(figures by setting, answers by setting) of a finished checkpoint with its own vector."""
    bench = evaluate.Bench.open(directory, "selection_messages.json")
    bench.model.to(device)
    vectors = vector.make(vector.statistics_of(bench.model, bench.tok), first, last, fraction)
    butler = bench.prompts["butler"][0]
    settings = {"default": (bench.default, 0), "butler 0": (butler, 0),
                "gyaru 0": (bench.prompts["gyaru"][0], 0)}
    for length in LENGTHS:
        for preset in PRESETS:
            settings[setting(preset, length)] = (butler, preset * length)
    figures, answers = {}, {}
    for name, (system, strength) in settings.items():
        edit = {i: strength * v for i, v in vectors.items()} if strength else None
        figures[name], said = bench.run(system, edit, with_nll=True)
        answers[name] = [dict(user=m, answer=a, fault=w)
                         for m, (a, w) in zip(bench.messages, said)]
        print(evaluate.line(name, figures[name]), flush=True)
    return figures, answers


def write(trainer, out, name, tokenizer, device, first, last, fraction, extra):
    """The checkpoint, its shipped form, and what it is worth."""
    path = out / f"{name}.pt"
    train.save(path, dict(model=trainer.weights(), config=vars(trainer.config)))
    quantise.write(path, tokenizer, out / name)
    print(f"{out.name} {name}: blocks {first}-{last}, fraction {fraction}\n{evaluate.HEADER}",
          flush=True)
    figures, answers = report(out / name, device, first, last, fraction)
    score, length = min((search.score(*(figures[setting(p, x)] for p in PRESETS)), x)
                        for x in LENGTHS)
    (out / f"{name}.json").write_text(json.dumps(
        dict(name=name, first=first, last=last, fraction=fraction, length=length, score=score, figures=figures,
             answers=answers, **extra), ensure_ascii=False, indent=1), encoding="utf-8")
    print(f"{out.name} {name}: score {score:.3f} at length {length} {extra}", flush=True)


def read(path):
    """A checkpoint of train.py, or what its shipped form holds."""
    if not pathlib.Path(path).is_dir():
        return torch.load(path, weights_only=False)
    model, _ = quantise.load(path)
    return dict(model=model.state_dict(), config=vars(model.c))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--init", required=True, help="stage1.pt of train.py, or the directory that quantise.py made of it")
    ap.add_argument("--data", required=True, help=".npz of pack.py --steered")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--variant", action="append", required=True,
                    help="NAME:FIRST-LAST:FRACTION:STEPS, may be repeated")
    ap.add_argument("--steps", type=int, default=0, help="of each variant, in place of its own")
    ap.add_argument("--minutes", type=float, default=0, help="for all variants together")
    ap.add_argument("--estimate", type=int, default=50, help="steps from one estimate to the next")
    ap.add_argument("--tokens", type=int, default=32768)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--muon-lr", type=float, default=6e-3)
    ap.add_argument("--device", default="")
    ap.add_argument("--eager", action="store_true")
    ap.add_argument("--log", type=int, default=20)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--seed", type=int, default=2)
    args = ap.parse_args()
    began = time.time()
    device = train.prepare(args.device, args.threads)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    first_stage = read(args.init)
    c = dict(first_stage["config"])
    config = Config(c["hidden"], c["layers"], c["inter"], c["heads"], c["kv_heads"], c["vocab"])
    trainer = train.Trainer(config, device, 1, args.lr, args.muon_lr, not args.eager,
                            first_stage["model"])
    trainer.quantised = True
    tok = Tokenizer.from_file(args.tokenizer + "/tokenizer.json")
    rows = train.Rows(args.data, "", device, args.seed)
    valid = train.Rows(args.data, "valid_", device, args.seed)
    trainer.gradient(*rows.batch(0, args.tokens))  # compiles, on nobody's account
    todo = [v.split(":") for v in args.variant if not (out / f"{v.split(':')[0]}.json").exists()]
    for i, (name, span, fraction, own_steps) in enumerate(todo):
        # An equal share of what is left, less the time that measuring took or will take.
        left = args.minutes - (time.time() - began) / 60
        minutes = max(0.05, left / (len(todo) - i) - 0.45) if args.minutes else 0
        first, last = map(int, span.split("-"))
        trainer.reset(first_stage["model"])
        direction = Direction(trainer, tok, first, last, float(fraction))
        log, step, spent, steps = [], 0, 0.0, args.steps or int(own_steps)
        unfinished = out / f"{name}.last"
        if unfinished.exists():
            state = torch.load(unfinished, map_location=device, weights_only=False)
            direction.estimate()
            trainer.restore(state["trainer"])
            step, spent, log = state["step"], state["spent"], state["log"]
            steps = state["steps"]

        def each(step):
            if step % args.estimate == 0:
                direction.estimate()

        def keep(step, spent, steps):
            train.save(unfinished, dict(trainer=trainer.state(), step=step, spent=spent, log=log,
                                        steps=steps))

        direction.estimate()
        step, spent = train.run(trainer, rows, valid, args, steps, minutes, log, step, spent, keep,
                                warm=30, each=each)
        (out / f"{name}.jsonl").write_text("".join(json.dumps(e) + "\n" for e in log))
        direction.estimate()
        write(trainer, out, name, args.tokenizer, device, first, last, float(fraction),
              dict(steps=step, seconds=round(spent, 1), cosine=round(direction.drift(), 4),
                   valid=round(trainer.evaluate(valid, args.tokens), 4)))
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
