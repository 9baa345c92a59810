"""Extracts a control vector by class means and writes our vector file.

Each text of data/gyaru_pairs.json is put through the template as the assistant's answer to the
extraction prompt under the default system prompt; per text the residual stream is averaged over the
answer's content tokens at the OUTPUT of each block (resid_post); the direction of a block is the
difference of the two class means. What is stored is that direction at a length of
`fraction * median residual norm / 12`, so that strength 12, the standard preset, shifts every
steered block by the same fraction of its own residual norm.
"""
import argparse
import hashlib
import json
import pathlib

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

import build_data
import chat
import quantise

STANDARD_PRESET = 12.0


@torch.no_grad()
def texts(model, tok, system, user, answers):
    """Per answer: the mean over content tokens at each block's output, [texts, layers, hidden];
    and all the norms of those tokens' residuals, [tokens, layers]. One padded batch."""
    device = model.model.embed_tokens.weight.device
    heads = [tok.encode(chat.render(system, [(user(a), None)])).ids for a in answers]
    bodies = [tok.encode(a[1]).ids for a in answers]
    width = max(len(h) + len(b) for h, b in zip(heads, bodies))
    ids = torch.zeros(len(answers), width, dtype=torch.long)
    content = torch.zeros(len(answers), width, dtype=torch.bool)
    for i, (head, body) in enumerate(zip(heads, bodies)):
        ids[i, :len(head) + len(body)] = torch.tensor(head + body)
        content[i, len(head): len(head) + len(body)] = True
    capture = []
    model(ids.to(device), pick=torch.zeros(1, dtype=torch.long, device=device), capture=capture)
    content = content.to(device)
    share = content / content.sum(1, keepdim=True)
    means = torch.stack([torch.einsum("btd,bt->bd", c.float(), share) for c in capture], 1)
    norms = torch.stack([c[content].float().norm(dim=-1) for c in capture], 1)
    return means, norms


def statistics(directory):
    """(class means standard and gyaru [texts, layers, hidden], median residual norm [layers])"""
    model, _ = quantise.load(directory)
    tok = Tokenizer.from_file(str(pathlib.Path(directory) / "tokenizer.json"))
    return statistics_of(model, tok)


def statistics_of(model, tok):
    pairs = json.loads((build_data.DATA / "gyaru_pairs.json").read_text(encoding="utf-8"))
    system = build_data.load("prompts.json")["default"]

    def user(answer):
        return f"トピック: {answer[0]}\nこれについて話して。"

    standard, norms = texts(model, tok, system, user, [(p["topic"], p["standard"]) for p in pairs])
    gyaru, _ = texts(model, tok, system, user, [(p["topic"], p["gyaru"]) for p in pairs])
    return standard, gyaru, norms.median(0).values


def make(stats, first, last, fraction):
    """{block: vector [hidden]} for blocks first..last, to be multiplied by the strength."""
    standard, gyaru, norm = stats
    diff = gyaru.mean(0) - standard.mean(0)
    return {i: diff[i] / diff[i].norm() * norm[i] * fraction / STANDARD_PRESET
            for i in range(first, last + 1)}


def write(path, directory, stats, first, last, fraction, max_strength):
    standard, gyaru, norm = stats
    vectors = make(stats, first, last, fraction)
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    pairs = (build_data.DATA / "gyaru_pairs.json").read_bytes()
    tokenizer = json.loads((pathlib.Path(directory) / "tokenizer_config.json").read_text("utf-8"))
    meter = {}
    for i, v in vectors.items():
        unit = v / v.norm()
        meter[f"layer.{i}"] = {"m_plus": round(float(gyaru.mean(0)[i] @ unit), 6),
                               "m_minus": round(float(standard.mean(0)[i] @ unit), 6),
                               "residual_norm": round(float(norm[i]), 6)}
    metadata = {
        "format": "gyaru-vector", "version": "1", "hook": "resid_post", "method": "mean",
        "position": "content", "model_name": pathlib.Path(directory).name,
        "n_layers": str(config["num_hidden_layers"]), "hidden_size": str(config["hidden_size"]),
        "dataset_sha256": hashlib.sha256(pairs).hexdigest(),
        "template_sha256": hashlib.sha256(tokenizer["chat_template"].encode()).hexdigest(),
        "recommended_strength": "12", "max_strength": str(max_strength),
        "fraction_at_12": str(fraction), "meter": json.dumps(meter),
    }
    save_file({f"layer.{i}": v.contiguous() for i, v in vectors.items()}, path, metadata=metadata)


def report(stats):
    """Validation per block: does one direction part the classes, and how long is it?"""
    standard, gyaru, norm = stats
    diff = (gyaru - standard)
    for i in range(diff.shape[1]):
        unit = diff[:, i].mean(0)
        half = diff[0::2, i].mean(0), diff[1::2, i].mean(0)
        plus, minus = gyaru[:, i] @ unit, standard[:, i] @ unit
        auroc = (plus[:, None] > minus[None]).float().mean().item()
        cosine = torch.cosine_similarity(*half, dim=0).item()
        print(f"block {i:2}  AUROC {auroc:.3f}  split-half cosine {cosine:.3f}  "
              f"difference / residual norm {unit.norm().item() / norm[i].item():.2f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--layers", required=True, help="first-last, 0-based")
    ap.add_argument("--fraction", type=float, required=True)
    ap.add_argument("--max-strength", type=float, default=18)
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    stats = statistics(args.model)
    report(stats)
    first, last = map(int, args.layers.split("-"))
    write(args.out, args.model, stats, first, last, args.fraction, args.max_strength)


if __name__ == "__main__":
    main()
