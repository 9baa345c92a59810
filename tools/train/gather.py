"""Gathers what a training run is worth keeping: the best checkpoints, and everything readable.

Copies the weights of stage 1 and of the best variants of stage 2 (by finish.py's score) as
OUT/MODEL-NAME.safetensors, and packs tokenizer, settings, logs and answers into OUT/results.tar.gz.
"""
import argparse
import json
import pathlib
import shutil
import tarfile


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("work")
    ap.add_argument("out")
    ap.add_argument("--keep", type=int, default=2, help="variants of each model")
    args = ap.parse_args()
    work, out = pathlib.Path(args.work), pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / "results.tar.gz", "w:gz") as tar:
        for path in sorted(work.rglob("*")):
            if path.suffix in (".json", ".jsonl", ".log") and path.is_file():
                tar.add(path, str(path.relative_to(work)))
    for model in ("base", "lite"):
        scores = {}
        for path in (work / model).glob("*.json"):
            found = json.loads(path.read_text(encoding="utf-8"))
            scores[found["name"]] = found["score"]
        print(model, scores)
        for name in ["stage1"] + sorted(scores, key=scores.get)[:args.keep]:
            path = work / model / name / "model.safetensors"
            if path.exists():
                shutil.copyfile(path, out / f"{model}-{name}.safetensors")
    print([(p.name, p.stat().st_size) for p in sorted(out.iterdir())])


if __name__ == "__main__":
    main()
