"""Builds chats, tokenises them and packs them into rows of fixed length, on all cores.

Rows of one length mean one shape for the whole training, which is what a GPU's compiler wants; a
row holds as many whole chats as fit, told apart by a segment number. Chats of up to SHORT tokens go
into rows of SHORT, longer ones into rows of LONG. Which chats there are depends on the seed and
the count alone, not on the number of workers.
"""
import argparse
import multiprocessing
import os
import pathlib
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from tokenizers import Tokenizer

import build_data
import chat

SHORT, LONG = 256, 1024
PART = 5000  # chats built with one seed
DOSE = 200   # a dose of 1 as stored


def tokenise(chats, tokenizer):
    """[(ids, learn, dose)]: learn[i] is 1 where token i is to be predicted."""
    flat, owner = [], []
    for i, (_, system, turns, _) in enumerate(chats):
        for text, trained in chat.pieces(system, turns):
            flat.append(text)
            owner.append((i, trained))
    rows = [([], []) for _ in chats]
    for (i, trained), enc in zip(owner, tokenizer.encode_batch_fast(flat)):
        rows[i][0].extend(enc.ids)
        rows[i][1].extend([int(trained)] * len(enc.ids))
    return [(ids[:LONG], learn[:LONG], c[3]) for (ids, learn), c in zip(rows, chats)]


def fill(rows, length):
    """(ids uint16, tag uint8, dose uint8), each [n, length]; tag: twice the segment, 1-based, plus
    1 where the token is to be predicted; 0: padding. First fit, the longest first."""
    bins, room = [], []
    first = {}  # chats only get shorter: where an equally long one found no room, none will
    for row in sorted(rows, key=lambda r: -len(r[0])):
        size = len(row[0])
        at = next((i for i in range(first.get("at", 0), len(bins))
                   if room[i] >= size and len(bins[i]) < 127), None)
        if at is None:
            at = len(bins)
            bins.append([])
            room.append(length)
        bins[at].append(row)
        room[at] -= size
        while first.get("at", 0) < len(bins) and room[first.get("at", 0)] < 32:
            first["at"] = first.get("at", 0) + 1
    ids = np.zeros((len(bins), length), np.uint16)
    tag = np.zeros((len(bins), length), np.uint8)
    dose = np.zeros((len(bins), length), np.uint8)
    for r, group in enumerate(bins):
        at = 0
        for s, (row, learn, amount) in enumerate(group, 1):
            span = slice(at, at + len(row))
            ids[r, span] = row
            tag[r, span] = 2 * s + np.array(learn, np.uint8)
            dose[r, span] = round(amount * DOSE)
            at += len(row)
    return ids, tag, dose


def part(job):
    tokenizer, seed, count, steered, dose_most = job
    rows = tokenise(build_data.build(count, seed, steered=steered, dose_most=dose_most),
                    Tokenizer.from_file(tokenizer + "/tokenizer.json"))
    # In small groups, so that the rows stay a mixture of lengths and the search stays short.
    groups = [rows[i:i + 500] for i in range(0, len(rows), 500)]
    short = [fill([r for r in g if len(r[0]) <= SHORT], SHORT) for g in groups]
    long = fill([r for r in rows if len(r[0]) > SHORT], LONG)
    return [np.concatenate(x) for x in zip(*short)], long


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--tokenizer", required=True, help="directory with tokenizer.json")
    ap.add_argument("--count", type=int, required=True, help="chats, in units of 5000")
    ap.add_argument("--seed", type=int, required=True)
    ap.add_argument("--steered", type=float, default=0.0, help="share of chats with a dose")
    ap.add_argument("--dose-most", type=float, default=build_data.DOSE_MOST,
                    help="largest dose, 1 = strength 12 (default %(default)s)")
    ap.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--out", required=True, help=".npz")
    args = ap.parse_args()
    start = time.time()
    parts = -(-args.count // PART)
    size = min(PART, args.count)
    how = args.steered, args.dose_most
    jobs = [(args.tokenizer, 1000000 * args.seed + i, size, *how) for i in range(parts)]
    jobs.append((args.tokenizer, 1000000 * args.seed + 999999, min(600, size), *how))
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        done = pool.map(part, jobs, chunksize=1)
    arrays = {}
    for kind, chosen in (("", done[:-1]), ("valid_", done[-1:])):
        for name, side in (("short", 0), ("long", 1)):
            for field, values in zip(("ids", "tag", "dose"), zip(*(d[side] for d in chosen))):
                arrays[f"{kind}{name}_{field}"] = np.concatenate(values)
    temporary = pathlib.Path(args.out).with_suffix(".part.npz")
    np.savez(temporary, **arrays)
    temporary.rename(args.out)
    for name in ("short", "long"):
        tag = arrays[name + "_tag"]
        print(f"{name}: {tag.shape[0]} rows of {tag.shape[1]}, {(tag > 0).mean():.1%} filled, "
              f"{(tag & 1).mean():.1%} to be predicted")
    print(f"{parts * size} chats, {sum((arrays[n + '_tag'] > 0).sum() for n in ('short', 'long')) / 1e6:.1f} M "
          f"tokens, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
