"""Second stage: teaches a trained model to take its own control vector in doses.

The direction is extracted from the first stage's weights exactly as vector.py does it (class means
over the pairs, default prompt). Then a share of the chats is trained while `dose * vector` is added
at the steered blocks, at every position, as at inference: little of it leaves the system prompt's
style alone, a full dose (strength 12) means a coherent gyaru answer against any prompt. Nothing
above a dose of 1.1 is ever shown, so an overdose still breaks the text. Everything is NF4-aware.
"""
import argparse
import json
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import nf4
import train
import vector
from model import Config, Qwen2


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--init", required=True, help="final.pt or last.pt of train.py")
    ap.add_argument("--data", required=True, help="chats of build_data.py --steered")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--layers", required=True)
    ap.add_argument("--fraction", type=float, required=True)
    ap.add_argument("--steps", type=int, default=0)
    ap.add_argument("--minutes", type=float, default=0)
    ap.add_argument("--tokens", type=int, default=4096)
    ap.add_argument("--lr", type=float, default=6e-4)
    ap.add_argument("--muon-lr", type=float, default=4e-3)
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    saved = torch.load(args.init, weights_only=False)
    c = saved["config"]
    model = Qwen2(Config(c["hidden"], c["layers"], c["inter"], c["heads"], c["kv_heads"],
                         c["vocab"]))
    model.load_state_dict(saved["model"])
    tok = Tokenizer.from_file(args.tokenizer + "/tokenizer.json")
    for _, m in model.linears():
        m.fake = nf4.fake
    first, last = map(int, args.layers.split("-"))
    vectors = vector.make(vector.statistics_of(model, tok), first, last, args.fraction)
    rows = train.tokenise(args.data, tok)
    source = train.batches(rows, args.tokens, 2)
    opts = train.optimizers(model, "muon", args.lr, args.muon_lr)
    start, step, mean, log = time.time(), 0, 0.0, []
    saved_at = start
    while True:
        spent = time.time() - start
        done = step / args.steps if args.steps else spent / (args.minutes * 60)
        if done >= 1:
            break
        rate = min(1, (step + 1) / 10) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
        for o in opts:
            for g in o.param_groups:
                g["lr"] = g["peak"] * rate
        ids, pick, target, dose = next(source)
        edit = {i: dose * vector.STANDARD_PRESET * v for i, v in vectors.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, pick, edit=edit)
        loss = F.cross_entropy(logits.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            o.step()
            o.zero_grad()
        step += 1
        mean += loss.item()
        if step % 10 == 0:
            log.append(dict(step=step, seconds=round(spent, 1), loss=round(mean / 10, 4)))
            mean = 0.0
            print(json.dumps(log[-1]), flush=True)
        if time.time() - saved_at > 60:
            saved_at = time.time()
            torch.save(dict(model=model.state_dict(), config=c), out / "stage2.part")
            (out / "stage2.part").rename(out / "stage2.pt")
    torch.save(dict(model=model.state_dict(), config=c), out / "stage2.pt")
    (out / "stage2.jsonl").write_text("".join(json.dumps(e) + "\n" for e in log))
    print("done at step", step)


if __name__ == "__main__":
    main()
