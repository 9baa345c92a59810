"""Combines the material into chats, seeded.

Every answer is built from the same choices whatever its style: an opener that picks up the user's
own word X, then a statement, an advice or a question of the topic. Only the column of the triple
(standard, butler, gyaru) differs. So the three styles share one content, and the model is invited
to keep style as one separable property of its state, which is what a control vector needs.

Three more decisions serve steering. A share of the chats has a system prompt that names no style and
an answer style drawn per chat: there the model must read the style off the words before, so its
state carries the style from token to token. A few chats (NOISE) ignore their system prompt
altogether: so "gyaru in spite of the butler prompt" is a state the model has seen and can go on
from coherently, while sampling with top-p cuts so rare a choice off at strength 0. And nothing
ever switches style within one chat.
"""
import argparse
import json
import pathlib
import pickle
import random
import re

HERE = pathlib.Path(__file__).parent
MATERIAL = HERE / "material"
DATA = HERE.parent.parent / "data"
STYLES = ("standard", "butler", "gyaru")
# Names no style: the words before decide.
FREE_PROMPTS = ["りんねとして会話してください。", "自由に話してください。", "会話を続けてください。",
                "あなたはりんねです。", "おしゃべりをしましょう。"]


def load(name):
    return json.loads((MATERIAL / name).read_text(encoding="utf-8"))


def bare(text):
    """A user's message without decoration, for the comparison with the held-out ones."""
    return re.sub(r"[\s、。！？!?…〜～ー・「」w笑]", "", text)


class Material:
    def __init__(self):
        self.topics = [t for i in range(1, 5) for t in load(f"topics{i}.json")]
        self.frames, self.generic = load("frames.json"), load("generic.json")
        self.social, self.follow = load("social.json"), load("followups.json")
        self.unknown, self.prompts = load("unknown.json"), load("prompts.json")
        self.scenes = load("scenes.json")
        self.noun_frames = [k for k, f in self.frames.items() if f["cls"] == "*"]
        self.class_frames = {}
        for name, frame in self.frames.items():
            self.class_frames.setdefault(frame["cls"], []).append(name)
        # The second prompt of each style in data/prompts.json is for evaluation only.
        shown = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))
        self.held_out_prompts = {style[1] for style in shown.values()}
        self.held_out = {bare(m) for m in
                         json.loads((DATA / "heldout_messages.json").read_text(encoding="utf-8"))}


NOISE = 0.07  # share of chats whose style is drawn without regard to the system prompt
NOISE_LATE = 0.004  # the same in the second stage, where strength 0 must obey its prompt

HIRAGANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわがぎぐげござじずぜぞだでどばびぶべぼぱぴぷぺぽん"
KATAKANA = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワガギグゲゴザジズゼゾダデドバビブベボパピプペポンーーッ"
# JIS level 1: the model learns to copy kanji that the material does not hold, byte by byte.
KANJI = [bytes([row, cell]).decode("euc_jp") for row in range(0xB0, 0xCF)
         for cell in range(0xA1, 0xFF)]
LATIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def random_word(rng):
    """A word that no list holds, so that copying is learnt as such and not word by word."""
    kind = rng.random()
    if kind < 0.4:
        return "".join(rng.choice(KATAKANA[:-3]) if i == 0 else rng.choice(KATAKANA)
                       for i in range(rng.randint(2, 6)))
    if kind < 0.6:
        return "".join(rng.choice(HIRAGANA) for _ in range(rng.randint(2, 5)))
    if kind < 0.9:
        return "".join(rng.choice(KANJI) for _ in range(rng.randint(1, 4)))
    return "".join(rng.choice(LATIN) for _ in range(rng.randint(2, 6)))


PREFIX = ["ねえ、", "ねえねえ、", "あのさ、", "りんね、", "りんねちゃん、", "ところで、", "えっと、", "そういえば、", "実は、",
          "ちょっと聞いて、", "あのね、", "なんか", "最近ね、", "今日さ、", "もしよければ、", "すみません、"]
SUFFIX = ["", "", "", "。", "！", "？", "〜", "…", "w", "笑", "！！", "んだよね", "、どう思う？", "。聞いて", "。どうかな", "よ",
          "ね", "な", "、なんてね"]
PLAIN_SUFFIX = ["", "", "", "。", "！", "〜", "…", "w", "！！"]


def decorate(text, rng, plain=False):
    if text.startswith("トピック"):
        return text
    if rng.random() < 0.2:
        text = rng.choice(PREFIX) + text
    if text[-1] in "？?":
        return text if rng.random() < 0.8 else text[:-1]
    return text + rng.choice(PLAIN_SUFFIX if plain or rng.random() < 0.6 else SUFFIX)


class Builder:
    """Draws chats. `invent` off: no random words, for the tokenizer's corpus."""

    def __init__(self, material, seed, invent=True, steered=0.0):
        self.m, self.rng, self.invent = material, random.Random(seed), invent
        self.steered = steered

    def pick(self, triples, col):
        return self.rng.choice(triples)[col]

    def body(self, source, advice, col):
        """One or two sentences on a topic; `source` holds the lists s, a, q."""
        rng = self.rng
        main = self.pick(source["a" if advice else "s"], col)
        roll = rng.random()
        if roll < 0.62:
            return main
        if roll < 0.9:
            return main + self.pick(source["q"], col)
        return self.pick(source["q"], col)

    def topical(self, col):
        """(user, answer, source) from a frame and a word, known or not."""
        rng, m = self.rng, self.m
        roll = rng.random()
        if roll < 0.07:
            topic = rng.choice(m.topics)
            name, word, source = "extract", topic["topic"], topic
        elif roll < 0.25:
            topic = rng.choice(m.topics)
            name, word, source = "free", rng.choice(topic["m"]), topic
        elif roll < 0.82:
            topic = rng.choice(m.topics)
            classes = list(topic["words"])
            cls = rng.choices(classes, [len(topic["words"][c]) for c in classes])[0]
            word, source = rng.choice(topic["words"][cls]), topic
            if rng.random() < 0.05:
                word = topic["topic"]
                cls = "n"
            own = m.class_frames.get(cls, [])
            if rng.random() < 0.35:
                return self.scene(word, source, col)
            name = rng.choice(own if own and rng.random() < 0.6 else m.noun_frames)
        else:
            invented = self.invent and rng.random() < 0.5
            word, source = random_word(rng) if invented else rng.choice(m.unknown), m.generic
            if rng.random() < 0.3:
                return self.scene(word, source, col)
            name = rng.choice(["fallback"] * 3 + m.noun_frames)
        frame = m.frames[name]
        user = decorate(rng.choice(frame["u"]).replace("{X}", word), rng, name == "free")
        advice = name in ("advice", "trouble") or (name == "free" and rng.random() < 0.5)
        opener = ""
        if rng.random() < (0.5 if name in ("extract", "free") else 0.88):
            opener = self.pick(frame["o"], col).replace("{X}", word)
        return user, opener + self.body(source, advice, col), source

    def scene(self, word, source, col):
        """A longer message with the word somewhere in the middle of it."""
        rng, scenes = self.rng, self.m.scenes
        user = rng.choice(scenes["when"]) if rng.random() < 0.65 else ""
        user = decorate(user + word + rng.choice(scenes["then"]), rng, plain=True)
        opener = "" if rng.random() < 0.12 else self.pick(scenes["o"], col).replace("{X}", word)
        return user, opener + self.body(source, rng.random() < 0.4, col), source

    def social(self, col):
        entry = self.rng.choice(self.m.social)
        user = decorate(self.rng.choice(entry["u"]), self.rng, plain=True)
        return user, self.pick(entry["r"], col), None

    def follow(self, source, col):
        kind = self.rng.choice(list(self.m.follow))
        entry = self.m.follow[kind]
        user = decorate(self.rng.choice(entry["u"]), self.rng, plain=True)
        return user, self.pick(entry["o"], col) + self.body(source, False, col), source

    def turn(self, source, col):
        while True:
            if source is not None and self.rng.random() < 0.35:
                out = self.follow(source, col)
            elif self.rng.random() < 0.2:
                out = self.social(col)
            else:
                out = self.topical(col)
            # Held-out messages are never shown, whatever the combination brings forth.
            if bare(out[0]) not in self.m.held_out:
                return out

    def chat(self):
        """(style, system prompt, [(user, answer), ...], dose)

        dose: how much of the control vector is added while this chat is trained, 1 = strength 12;
        0 in the first stage. Below about half a dose the system prompt's style stands, near a full
        dose it is gyaru whatever the prompt says.
        """
        rng, prompts = self.rng, self.m.prompts
        style = rng.choices(STYLES, [0.34, 0.33, 0.33])[0]
        if rng.random() < 0.15:
            system = rng.choice(FREE_PROMPTS)
        elif style == "standard" and rng.random() < 0.6:
            system = prompts["default"]
        elif rng.random() < 0.35:
            system = rng.choice(prompts[style])
        else:
            while True:
                system = "".join(rng.choice(part) for part in prompts["parts"][style])
                if system not in self.m.held_out_prompts:
                    break
        dose = 0.0
        if rng.random() < self.steered:
            dose = rng.uniform(0, 1.1)
            if rng.random() < (dose - 0.4) / 0.45:
                style = "gyaru"
        elif rng.random() < (NOISE_LATE if self.steered else NOISE):
            style = rng.choice(STYLES)
        roll = rng.random()
        n = 1 if roll < 0.5 else 2 if roll < 0.75 else 3 if roll < 0.95 else rng.randint(6, 24)
        turns, source = [], None
        for _ in range(n):
            user, answer, source = self.turn(source, STYLES.index(style))
            turns.append((user, answer))
        return style, system, turns, dose


def build(count, seed, invent=True, steered=0.0):
    builder = Builder(Material(), seed, invent, steered)
    chats = [builder.chat() for _ in range(count)]
    shown = {bare(user) for _, _, turns, _ in chats for user, _ in turns}
    systems = {system for _, system, _, _ in chats}
    assert not systems & builder.m.held_out_prompts, "a held-out prompt is in the training data"
    assert not shown & builder.m.held_out, "a held-out message is in the training data"
    return chats


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--count", type=int, default=150000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", required=True)
    ap.add_argument("--show", type=int, default=0, help="print this many chats")
    ap.add_argument("--steered", type=float, default=0.0, help="share of chats with a dose")
    args = ap.parse_args()
    chats = build(args.count, args.seed, steered=args.steered)
    pathlib.Path(args.out).write_bytes(pickle.dumps(chats))
    for style, system, turns, dose in chats[: args.show]:
        print(style, dose, "|", system)
        for user, answer in turns:
            print("   U:", user, "\n   A:", answer)
    print(len(chats), "chats,", sum(len(c[2]) for c in chats), "turns")


if __name__ == "__main__":
    main()
