"""Writes data/gyaru_pairs.json: what the material says on each topic, in standard and in gyaru.

Three pairs per topic, each a statement and an advice or a question, so that both texts of a pair
say the same thing at about the length of an answer. Statements whose gyaru side says 「あーし」 come
first, because that is the word the persona is known by.
"""
import json

import build_data


def main():
    pairs = []
    for topic in build_data.Material().topics:
        said = sorted(topic["s"], key=lambda t: "あーし" not in t[2])
        second = [topic["a"][0], topic["a"][1], topic["q"][0]]
        for first, then in zip(said, second):
            pairs.append({"topic": topic["topic"], "standard": first[0] + then[0],
                          "gyaru": first[2] + then[2]})
    path = build_data.DATA / "gyaru_pairs.json"
    lines = ",\n".join("  " + json.dumps(p, ensure_ascii=False) for p in pairs)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(len(pairs), "pairs over", len({p["topic"] for p in pairs}), "topics")


if __name__ == "__main__":
    main()
