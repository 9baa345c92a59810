"""Measures a model and its vector on the held-out messages, and prints the table.

Generation is batched over all messages (left padded, with a KV cache), in float32 over the
dequantised NF4 weights, so what is measured is the checkpoint as it ships.
"""
import argparse
import json
import pathlib
import re

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

import build_data
import chat
import quantise
import vector

LIMIT = 96  # tokens; an answer that is not over by then counts as garbled
# Japanese, ASCII and the usual punctuation; anything else is a script nobody asked for.
EXPECTED = re.compile(r"[\u0020-\u007e\n\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff01-\uffee"
                      r"…〜～―♪☆★♡×→]*")
LOOP = re.compile(r"(.{2,24}?)\1{2,}|(.)\2{5,}", re.S)


def garbled(text, ended):
    """The reason why an answer counts as broken, or None."""
    if not ended:
        return "no end"
    if "\ufffd" in text:
        return "utf-8"
    if not text.strip():
        return "empty"
    if not EXPECTED.fullmatch(text):
        return "script"
    if LOOP.search(text):
        return "loop"
    grams = [text[i:i + 4] for i in range(len(text) - 3)]
    if len(grams) >= 20 and len(set(grams)) < 0.6 * len(grams):
        return "loop"
    return None


def sample(logits, temperature, top_p, top_k, generator):
    if temperature == 0:
        return logits.argmax(-1)
    probs = (logits / temperature).softmax(-1)
    value, index = probs.sort(descending=True)
    if top_k:
        value[:, top_k:] = 0
    value[(value.cumsum(-1) - value) > top_p * value.sum(-1, keepdim=True)] = 0
    choice = torch.multinomial(value, 1, generator=generator)
    return index.gather(1, choice)[:, 0]


@torch.no_grad()
def generate(model, tok, prompts, edit=None, temperature=0.7, top_p=0.9, top_k=40, penalty=1.05,
             seed=0):
    """[(text, ended)] for rendered prompts. edit: {block: vector}, strength included."""
    device = model.model.embed_tokens.weight.device
    gen = torch.Generator(device).manual_seed(seed)
    rows = [tok.encode(p).ids for p in prompts]
    width = max(map(len, rows))
    n = len(rows)
    ids = torch.zeros(n, width, dtype=torch.long)
    real = torch.zeros(n, width + LIMIT, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, width - len(row):] = torch.tensor(row)
        real[i, width - len(row): width] = True
    ids, real = ids.to(device), real.to(device)
    stop = tok.token_to_id("<|im_end|>")
    position = (real[:, :width].cumsum(1) - 1).clamp_min(0)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    allowed = causal[None] & real[:, None, :width] | torch.eye(width, dtype=torch.bool, device=device)
    mask = torch.zeros(n, 1, width, width, device=device).masked_fill(~allowed[:, None], float("-inf"))
    caches = [[] for _ in range(model.c.layers)]
    logits = model(ids, position=position, caches=caches, mask=mask, edit=edit)[:, -1]
    at = position[:, -1:] + 1
    seen = torch.zeros(n, model.c.vocab, dtype=torch.bool, device=device)
    for i, row in enumerate(rows):
        seen[i, row] = True
    out, over = [[] for _ in rows], [False] * n
    for step in range(LIMIT):
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty),
                             logits)
        new = sample(logits, temperature, top_p, top_k, gen)
        for i, token in enumerate(new.tolist()):
            over[i] = over[i] or token == stop
            if not over[i]:
                out[i].append(token)
        if all(over):
            break
        seen[torch.arange(n, device=device), new] = True
        real[:, width + step] = True
        mask = torch.zeros(n, 1, 1, width + step + 1, device=device)
        mask.masked_fill_(~real[:, None, None, :width + step + 1], float("-inf"))
        logits = model(new[:, None], position=at, caches=caches, mask=mask, edit=edit)[:, -1]
        at = at + 1
    return [(tok.decode(o, skip_special_tokens=False), bool(e)) for o, e in zip(out, over)]


@torch.no_grad()
def nll(model, tok, prompts, answers):
    """Mean over answers of the unsteered nats per token: how foreign the text is to the model."""
    device = model.model.embed_tokens.weight.device
    total, count = 0.0, 0
    for prompt, answer in zip(prompts, answers):
        head = tok.encode(prompt).ids
        body = tok.encode(answer).ids
        if not body:
            continue
        logits = model(torch.tensor([head + body], device=device))[0, len(head) - 1:-1]
        total += F.cross_entropy(logits, torch.tensor(body, device=device)).item()
        count += 1
    return total / max(count, 1)


class Bench:
    """One model with everything that a measurement needs."""

    def __init__(self, model, tok, messages="heldout_messages.json"):
        self.model, self.tok = model, tok
        self.messages = self.data(messages)
        self.markers = self.data("gyaru_markers.json")
        self.prompts = self.data("prompts.json")
        self.default = build_data.load("prompts.json")["default"]

    @classmethod
    def open(cls, directory, messages="heldout_messages.json"):
        tok = Tokenizer.from_file(str(pathlib.Path(directory) / "tokenizer.json"))
        return cls(quantise.load(directory)[0], tok, messages)

    def data(self, name):
        return json.loads((build_data.DATA / name).read_text(encoding="utf-8"))

    def run(self, system, edit=None, messages=None, seed=0, with_nll=False):
        """The figures of one setting, and the answers."""
        messages = messages or self.messages
        prompts = [chat.render(system, [(m, None)]) for m in messages]
        answers = generate(self.model, self.tok, prompts, edit, seed=seed)
        n = len(answers)
        why = [garbled(*a) for a in answers]
        figures = {
            "ashi": sum("あーし" in a for a, _ in answers) / n,
            "marker": sum(any(k in a for k in self.markers) for a, _ in answers) / n,
            "polite": sum(bool(build_data.POLITE.search(a.strip())) for a, _ in answers) / n,
            "garbled": sum(w is not None for w in why) / n,
            "copied": sum(any(m[i:i + 2] in a for i in range(len(m) - 1))
                          for m, (a, _) in zip(messages, answers)) / n,
        }
        if with_nll:
            # Under the gyaru prompt: style is expected there, so what remains is damage.
            gyaru = [chat.render(self.prompts["gyaru"][0], [(m, None)]) for m in messages]
            figures["nll"] = nll(self.model, self.tok, gyaru, [a for a, _ in answers])
        return figures, [(a, w) for (a, _), w in zip(answers, why)]


HEADER = f"{'setting':<34}{'あーし':>7}{'marker':>8}{'polite':>8}{'garbled':>9}{'copied':>8}{'nll':>7}"


def line(name, f):
    return (f"{name:<34}{f['ashi']:>9.0%}{f['marker']:>9.0%}{f['polite']:>8.0%}"
            f"{f['garbled']:>9.0%}{f['copied']:>8.0%}{f.get('nll', float('nan')):>7.2f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--vector", help="default: gyaru.safetensors of the model")
    ap.add_argument("--strengths", default="-5,0,2,5,8,10,12,15,20,25,30")
    ap.add_argument("--show", type=int, default=0, help="print this many answers per setting")
    ap.add_argument("--messages", default="heldout_messages.json", help="in data/")
    ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()
    bench = Bench.open(args.model, args.messages)
    path = pathlib.Path(args.vector or pathlib.Path(args.model) / "gyaru.safetensors")

    def show(answers):
        for message, (answer, why) in list(zip(bench.messages, answers))[:args.show]:
            print(f"    {message} -> {answer}" + (f"   [{why}]" if why else ""))

    print(HEADER)
    settings = [("default prompt", bench.default)]
    settings += [(f"{k} prompt {i}", p) for k in ("butler", "gyaru")
                 for i, p in enumerate(bench.prompts[k])]
    for name, system in settings:
        figures, answers = bench.run(system, seed=args.seed, with_nll=True)
        print(line(name + ", no vector", figures), flush=True)
        show(answers)
    if not path.exists():
        return
    vectors = {int(k.split(".")[1]): v for k, v in load_file(path).items()}
    for strength in map(float, args.strengths.split(",")):
        edit = {i: strength * v for i, v in vectors.items()}
        figures, answers = bench.run(bench.prompts["butler"][0], edit, seed=args.seed,
                                     with_nll=True)
        print(line(f"butler prompt 0, strength {strength:g}", figures), flush=True)
        show(answers)


if __name__ == "__main__":
    main()
