"""Chooses a vector's blocks and its length by measurement, under the butler prompt.

For each range of blocks and each fraction (of the residual norm, at strength 12) it answers the
messages at the presets 8, 12 and 25 and scores how far the figures are from what the presets mean:
mild, standard, collapse. Prints every row, best last. The messages are a set of their own
(data/selection_messages.json), so that the held-out ones confirm without having been looked at.
"""
import argparse

import vector
from evaluate import Bench


def score(mild, standard, over):
    """The sum of the shortfalls; 0 where every preset means what it says. The standard preset's
    nll counts because broken words raise it where `garbled` sees nothing; an overdose may collapse
    in either sense."""
    def short(value, low, high):
        return max(low - value, 0, value - high)
    collapse = min(short(over["garbled"], 0.6, 1), short(over["nll"], 3, 99) / 3)
    return (short(mild["marker"], 0.25, 0.65) + 2 * short(standard["marker"], 0.86, 1)
            + 4 * short(standard["garbled"], 0, 0.03) + short(standard["nll"], 0, 0.5)
            + short(mild["garbled"], 0, 0.03) + collapse)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--ranges", required=True, help="for example 2-5,3-6")
    ap.add_argument("--fractions", default="0.12,0.15,0.18,0.22")
    args = ap.parse_args()
    bench = Bench.open(args.model, "selection_messages.json")
    stats = vector.statistics(args.model)
    vector.report(stats)
    messages = bench.messages
    rows = []
    for span in args.ranges.split(","):
        first, last = map(int, span.split("-"))
        for fraction in map(float, args.fractions.split(",")):
            vectors = vector.make(stats, first, last, fraction)
            figures = []
            for strength in (8, 12, 25):
                edit = {i: strength * v for i, v in vectors.items()}
                figures.append(bench.run(bench.prompts["butler"][0], edit, messages,
                                         with_nll=True)[0])
            text = "  ".join(f"{s}: {f['marker']:4.0%} marker {f['ashi']:4.0%} あーし "
                             f"{f['garbled']:4.0%} garbled {f['nll']:.2f} nll" for s, f in zip((8, 12, 25), figures))
            rows.append((score(*figures), f"{span:>5} fraction {fraction:.3f}  {text}"))
            print(f"{rows[-1][0]:.3f} {rows[-1][1]}", flush=True)
    print("best:")
    for value, text in sorted(rows, reverse=True)[-5:]:
        print(f"{value:.3f} {text}")


if __name__ == "__main__":
    main()
