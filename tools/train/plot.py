"""Draws the training curves of both models from their log.jsonl into one SVG."""
import argparse
import json
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--work", required=True, help="directory that holds base/ and lite/")
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    fig, ax = plt.subplots(figsize=(7, 4))
    for name, colour in (("base", "#d6336c"), ("lite", "#1098ad")):
        path = pathlib.Path(args.work) / name / "log.jsonl"
        log = [json.loads(line) for line in path.read_text().splitlines()]
        trained = [e for e in log if "loss" in e]
        ax.plot([e["tokens"] / 1e6 for e in trained], [e["loss"] for e in trained], color=colour,
                lw=0.9, label=f"rinne-{name}, training")
        valid = [e for e in log if "valid" in e and "tokens" in e]
        ax.plot([e["tokens"] / 1e6 for e in valid], [e["valid"] for e in valid], "o",
                color=colour, ms=4, label=f"rinne-{name}, validation")
        start = next((e["tokens"] for e in trained if e["quantised"]), None)
        if start:
            ax.axvline(start / 1e6, color=colour, ls=":", lw=0.9, label="  NF4-aware from here")
    ax.set_yscale("log")
    ax.set_xlabel("tokens, millions")
    ax.set_ylabel("loss on the assistant's tokens, nats")
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(args.out)


if __name__ == "__main__":
    main()
