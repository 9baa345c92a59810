"""Combines the material into chats, seeded.

Every answer is built from the same choices whatever its style: a reply to what happened or what is
asked, or an opener that picks up the user's own word X; then a sentence of the very subtopic that
fits the user's feeling. Only the column of the triple
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
import random
import re

HERE = pathlib.Path(__file__).parent
MATERIAL = HERE / "material"
DATA = HERE.parent.parent / "data"
STYLES = ("standard", "butler", "gyaru")
POLITE = re.compile(json.loads((DATA / "gyaru_style.json").read_text(encoding="utf-8"))["polite"])
def load(name):
    return json.loads((MATERIAL / name).read_text(encoding="utf-8"))


def bare(text):
    """A user's message without decoration, for the comparison with the held-out ones."""
    return re.sub(r"[\s、。！？!?…〜～ー・「」w笑]", "", text)


def sentences(text):
    return {part for part in re.split(r"[。！\n]", text) if part}


def bigrams(text):
    return {text[i:i + 2] for i in range(len(text) - 1)}


class HeldOut:
    """What is asked for choosing and for evaluation: no message that is one of these or comes near
    one may be trained."""

    FILES = ("heldout_messages.json", "selection_messages.json")

    NEAR = 0.6  # of the held-out message's pairs of characters

    def __init__(self):
        messages = [bare(m) for name in self.FILES
                    for m in json.loads((DATA / name).read_text(encoding="utf-8"))]
        self.messages, self.sizes, self.where = messages, [], {}
        for i, message in enumerate(messages):
            pairs = bigrams(message)
            self.sizes.append(len(pairs))
            for pair in pairs:
                self.where.setdefault(pair, []).append(i)

    def touches(self, user):
        """Is the message held out, or does it hold most of one that is?"""
        hits = {}
        for pair in bigrams(bare(user)):
            for i in self.where.get(pair, ()):
                hits[i] = hits.get(i, 0) + 1
        return any(n >= self.NEAR * self.sizes[i] for i, n in hits.items())

    def holds(self, phrase):
        """Is this piece of material (of some length) part of a held-out message?"""
        phrase = bare(phrase)
        return len(phrase) > 7 and any(phrase in m for m in self.messages)


class Material:
    def __init__(self):
        self.topics = [t for i in range(1, 5) for t in load(f"topics{i}.json")]
        self.frames, self.generic = load("frames.json"), load("generic.json")
        self.social, self.follow = load("social.json"), load("followups.json")
        self.unknown, self.prompts = load("unknown.json"), load("prompts.json")
        self.scenes, self.openers = load("scenes.json"), load("openers.json")
        self.bodies = load("bodies.json")
        self.events, self.questions = load("events.json"), load("questions.json")
        self.noun_frames = [k for k, f in self.frames.items() if f["cls"] == "*"]
        self.class_frames = {}
        for name, frame in self.frames.items():
            self.class_frames.setdefault(frame["cls"], []).append(name)
        more = load("phrases.json")
        for topic in self.topics:
            extra = more[topic["topic"]]
            topic["words"].setdefault("n", []).extend(extra["w"].split())
            topic["m"] = topic["m"] + extra["m"].split("|")
            topic["tails"] = {k: extra[k].split("|") for k in FEELINGS}
        for source in load("statements.json").items():
            topic = next(t for t in self.topics if t["topic"] == source[0])
            for kind, triples in source[1].items():
                topic[kind] = topic[kind] + triples
        self.subs = self.read_subs()
        for kind in self.events.values():
            kind.update(u=kind["u"].split("|"), k=re.compile(kind["k"]))
        for kind in self.questions.values():
            kind.update(f="a", k=re.compile(kind["k"].replace("？", "[?？]")))
        self.kinds = [*self.questions.values(), *self.events.values()]
        self.markers = json.loads((DATA / "gyaru_markers.json").read_text(encoding="utf-8"))
        # The second prompt of each style in data/prompts.json is for evaluation only: neither it
        # nor any of its sentences is trained.
        shown = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))
        self.held_out_prompts = {style[1] for style in shown.values()}
        self.held_out_sentences = set().union(*map(sentences, self.held_out_prompts))
        self.held_out = HeldOut()
        self.check()

    def read_subs(self):
        """The subtopics of fine*.json. Each becomes a source of its own, whose words find it."""
        subs, topics = [], {t["topic"]: t for t in self.topics}
        for path in sorted(MATERIAL.glob("fine*.json")):
            for sub in load(path.name):
                sub["tails"] = {k: sub[k] for k in FEELINGS}
                general = topics.get(sub["topic"])
                # What the whole topic has to say, for a turn that goes on talking.
                sub["more"] = general["s"] if general else sub["s"]["any"]
                wide = sum(general["words"].values(), []) if general else []
                sub["find"] = sorted({*sub["words"], *wide}, key=lambda w: (-len(w), w))
                sub["wide"] = general["tails"] if general else sub["tails"]
                subs.append(sub)
        return subs

    def check(self):
        pieces = [p for t in self.topics for p in t["m"] + sum(t["tails"].values(), [])]
        pieces += sum(self.scenes["tails"].values(), []) + sum(self.scenes["end"].values(), [])
        pieces += [u for f in self.frames.values() for u in f["u"]]
        pieces += [u for x in (*self.events.values(), *self.questions.values()) for u in x["u"]]
        pieces += [p for sub in self.subs for p in sum(sub["tails"].values(), [])]
        bad = [p for p in pieces if self.held_out.holds(p)]
        assert not bad, f"material that a held-out message holds: {bad}"


FEELINGS = "pntda"  # pleased, troubled, planning, telling, asking: what a user's message does
NOISE = 0.05  # share of chats whose style is drawn without regard to the system prompt
NOISE_LATE = 0.004  # the same in the second stage, where strength 0 must obey its prompt
DOSE_MOST = 0.75  # of what strength 12 adds, unless told: beyond it a model is left to itself

HIRAGANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわがぎぐげござじずぜぞだでどばびぶべぼぱぴぷぺぽん"
KATAKANA = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワガギグゲゴザジズゼゾダデドバビブベボパピプペポンーーッ"
# JIS level 1: the model learns to copy kanji that the material does not hold, byte by byte.
KANJI = [bytes([row, cell]).decode("euc_jp") for row in range(0xB0, 0xCF)
         for cell in range(0xA1, 0xFF)]
LATIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def random_word(rng):
    """A word that no list holds, so that copying is learnt as such and not word by word."""
    kind = rng.random()
    if kind < 0.5:
        return "".join(rng.choice(KATAKANA[:-3]) if i == 0 else rng.choice(KATAKANA)
                       for i in range(rng.randint(2, 6)))
    if kind < 0.75:
        return "".join(rng.choice(HIRAGANA) for _ in range(rng.randint(2, 5)))
    if kind < 0.88:
        return "".join(rng.choice(KANJI) for _ in range(rng.randint(1, 3)))
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

    def __init__(self, material, seed, invent=True, steered=0.0, dose_most=DOSE_MOST):
        self.m, self.rng, self.invent = material, random.Random(seed), invent
        self.steered, self.dose_most = steered, dose_most
        self.said = set()  # statements of this chat, which it does not repeat

    def pick(self, triples, col):
        return self.rng.choice(triples)[col]

    def fresh(self, triples, col):
        for _ in range(4):
            text = self.pick(triples, col)
            if text not in self.said:
                break
        self.said.add(text)
        return text

    def body(self, source, feeling, col, word=None):
        """One or two sentences on a topic, `source` holds the lists s, a, q; or on whatever the
        word is, to the user's feeling."""
        rng = self.rng
        if word and rng.random() < (0.55 if source is self.m.generic or feeling in "pn" else 0.2):
            return self.fresh(self.m.bodies[feeling], col).replace("{X}", word)
        advice = rng.random() < {"p": 0.0, "n": 0.9, "t": 0.45, "d": 0.1, "a": 0.7}[feeling]
        main = self.fresh(source["a" if advice else "s"], col)
        if rng.random() < 0.7 or feeling in "na":
            return main
        return main + self.fresh(source["q"], col)

    # What of a subtopic answers a feeling: lists and their weights.
    FITTING = {"p": (("p", 7), ("any", 2), ("q", 1)), "n": (("n", 5), ("v", 4)),
               "t": (("v", 5), ("any", 4), ("q", 1)), "d": (("any", 7), ("q", 3)),
               "a": (("v", 8), ("any", 1))}

    def fitting(self, sub, feeling, col):
        """A sentence of the subtopic to the user's feeling, sometimes with a question behind it."""
        rng = self.rng
        kinds, weights = zip(*self.FITTING[feeling])
        kind = rng.choices(kinds, weights)[0]
        text = self.fresh(sub["s"].get(kind) or sub[kind], col)
        asks = {"p": 0.2, "n": 0.08, "t": 0.15, "d": 0.3, "a": 0.05}[feeling]
        if text[-1] in "？?" or "？" in text or rng.random() >= asks:
            return text
        return text + self.fresh(sub["q"], col)

    def picked(self, triples, col, word):
        """One of the triples, its {X} filled; without a word one that needs none, or ""."""
        fit = triples if word else [t for t in triples if "{X}" not in t[0]]
        return self.fresh(fit, col).replace("{X}", word or "") if fit else ""

    def happening(self):
        """(what happened or what is asked, its feeling, an ending for a word)"""
        rng, m = self.rng, self.m
        kind = rng.choice(list((m.questions if rng.random() < 0.35 else m.events).values()))
        return kind, kind["f"], rng.choice(kind["u"])

    def reply(self, sub, feeling, col, word, user, kind=None):
        """An answer to a message on a subtopic: to what happened or what is asked, then to the
        point. sub None: the word is of no topic. kind: what happened, where it is known."""
        rng, m = self.rng, self.m
        first, own, share = "", sub is None, 0.75
        if kind is None:
            share = 0.5
            kind = next((k for k in m.kinds if k["f"] == feeling and k["k"].search(user)), None)
        if kind and rng.random() < (0.9 if own else share):
            first = self.picked(kind["r"], col, word)
        if first and (own or "？" in first or "ませんか" in first or rng.random() < 0.4):
            return first
        if not first and rng.random() < (0.95 if own else 0.6):
            first = self.picked(m.openers[feeling], col, word)
        if own:
            return first + self.picked(m.bodies[feeling], col, word)
        return first + self.fitting(sub, feeling, col)

    def word(self, topic):
        """(word, its class) of a topic, or of none."""
        rng, m = self.rng, self.m
        if topic is None:
            invented = self.invent and rng.random() < 0.4
            return (random_word(rng) if invented else rng.choice(m.unknown)), "unknown"
        if rng.random() < 0.05:
            return topic["topic"], "n"
        classes = list(topic["words"])
        cls = rng.choices(classes, [len(topic["words"][c]) for c in classes])[0]
        return rng.choice(topic["words"][cls]), cls

    def lead(self):
        """What may stand before a word: a time or a place, and a property."""
        rng, scenes = self.rng, self.m.scenes
        head = rng.choice(scenes["when"]) if rng.random() < 0.35 else ""
        return head + (rng.choice(scenes["which"]) if rng.random() < 0.2 else "")

    def fine(self, col, sub=None):
        """(user, answer, source): a message on a subtopic."""
        rng, m = self.rng, self.m
        sub = sub or rng.choice(m.subs)
        word, roll, kind = rng.choice(sub["words"]), rng.random(), None
        if roll < 0.45:
            feeling = rng.choice(FEELINGS)
            tails = sub["wide"] if rng.random() < 0.15 else sub["tails"]
            user = self.lead() + word + rng.choice(tails[feeling])
        elif roll < 0.7:
            user, feeling = rng.choice(sub["m"])
            found = next((w for w in sub["find"] if w in user), None)
            if found and rng.random() < 0.35:
                user = user.replace(found, word)
            else:
                word = found
        else:
            kind, feeling, ending = self.happening()
            user = self.lead() + word + ending
        user = decorate(user, rng, plain=True)
        return user, self.reply(sub, feeling, col, word, user, kind), sub

    def stray(self, col):
        """What happened to a word of no topic, or what is asked about it."""
        word, _ = self.word(None)
        kind, feeling, ending = self.happening()
        user = decorate(self.lead() + word + ending, self.rng, plain=True)
        return user, self.reply(None, feeling, col, word, user, kind), self.m.generic

    def topical(self, col, topic=None):
        """(user, answer, source): a message about a topic, a drawn one if it is not given, or
        about a word that is of no topic."""
        rng, m = self.rng, self.m
        if topic is None:
            roll = rng.random()
            if roll < 0.62:
                return self.fine(col)
            if roll < 0.74:
                return self.stray(col)
        if topic is None and rng.random() < 0.83:
            topic = rng.choice(m.topics)
        word, cls = self.word(topic)
        source = topic or m.generic
        roll = rng.random()
        if topic and roll < 0.14:
            word, openers, user, feeling = topic["topic"], m.frames["extract"]["o"], None, "d"
            user = m.frames["extract"]["u"][0].replace("{X}", word)
        elif topic and roll < 0.3:
            word, openers, feeling = topic["topic"], m.openers["topic"], rng.choice("da")
            user = decorate(rng.choice(topic["m"]), rng, plain=True)
        elif roll < 0.65:
            own = m.class_frames.get(cls, [])
            if topic is None:
                own = ["fallback"]
            name = rng.choice(own if own and rng.random() < 0.55 else m.noun_frames)
            openers = m.frames[name]["o"]
            feeling = {"advice": "a", "trouble": "n", "like": "p"}.get(name, "d")
            user = decorate(rng.choice(m.frames[name]["u"]).replace("{X}", word), rng)
        else:
            feeling = rng.choice(FEELINGS)
            openers = m.openers[feeling]
            user = decorate(self.scene(word, cls, topic, feeling), rng, plain=True)
        opener = ""
        if rng.random() < (0.8 if openers is m.openers["topic"] else 0.95):
            opener = self.pick(openers, col).replace("{X}", word)
        plain = openers is m.openers["topic"]  # the message's own words are not known to us
        return user, opener + self.body(source, feeling, col, None if plain else word), source

    def scene(self, word, cls, topic, feeling):
        """A longer message with the word somewhere in the middle of it."""
        rng, scenes = self.rng, self.m.scenes
        head = rng.choice(scenes["when"]) if rng.random() < 0.5 else ""
        if rng.random() < 0.3:
            head += rng.choice(scenes["which"])
        if topic and cls not in ("do", "go") and rng.random() < 0.45:
            return head + word + rng.choice(topic["tails"][feeling])
        if feeling in scenes["end"] and rng.random() < 0.45:
            return head + word + rng.choice(scenes["because"]) + rng.choice(scenes["end"][feeling])
        return head + word + rng.choice(scenes["tails"][feeling])

    def social(self, col):
        entry = self.rng.choice(self.m.social)
        user = decorate(self.rng.choice(entry["u"]), self.rng, plain=True)
        return user, self.pick(entry["r"], col), None

    def follow(self, source, col):
        kind = self.rng.choice(list(self.m.follow))
        entry = self.m.follow[kind]
        user = decorate(self.rng.choice(entry["u"]), self.rng, plain=True)
        if "more" in source:
            more = source["more"] if self.rng.random() < 0.4 else source["s"]["any"]
            return user, self.pick(entry["o"], col) + self.fresh(more, col), source
        return user, self.pick(entry["o"], col) + self.body(source, "d", col), source

    def firm(self, answer, col):
        """Does the answer show its style as it is measured?"""
        if STYLES[col] == "gyaru":
            return any(k in answer for k in self.m.markers)
        return POLITE.search(answer) is not None

    def turn(self, source, col):
        while True:
            roll = self.rng.random()
            if source is not None and roll < 0.35:
                out = self.follow(source, col)
            elif source is not None and source is not self.m.generic and roll < 0.55:
                out = (self.fine if "more" in source else self.topical)(col, source)
            elif self.rng.random() < 0.2:
                out = self.social(col)
            else:
                out = self.topical(col)
            # Held-out messages are never shown, whatever the combination brings forth.
            if not self.m.held_out.touches(out[0]) and self.firm(out[1], col):
                return out

    def fill(self, template, style):
        """A template of a prompt with its slots filled."""
        p, rng = self.m.prompts, self.rng
        for slot, values in (("adj", p[style]["adj"]), ("role", p[style]["role"]),
                             ("act", p["act"])):
            if "{" + slot + "}" in template:
                template = template.replace("{" + slot + "}", rng.choice(values))
        return template

    def system(self, style):
        """A system prompt that asks for the style: by a role, by traits alone, or by both."""
        p, rng = self.m.prompts, self.rng
        own = p[style]
        if rng.random() < 0.22:
            return rng.choice(own["fixed"])
        by_role = rng.random() < 0.72
        lines = [self.fill(rng.choice(own["intro"]), style)] if by_role else []
        traits = rng.choices([0, 1, 2, 3], [0.3, 0.35, 0.25, 0.1])[0]
        rest = [rng.choice(own["strong"] if rng.random() < 0.4 else own["weak"])
                for _ in range(traits)]
        if not by_role:
            rest.append(rng.choice(own["strong"]))
        if rng.random() < 0.3:
            rest.append(rng.choice(p["context"]))
        rest = list(dict.fromkeys(self.fill(t, style) for t in rest))
        rng.shuffle(rest)
        lines += rest
        if len(lines) > 1 and rng.random() < 0.15:
            return "\n".join(("- " if rng.random() < 0.5 else "") + line for line in lines)
        return "".join(lines)

    def prompt(self, style):
        """(system prompt, the persona's name)"""
        p, rng = self.m.prompts, self.rng
        if rng.random() < 0.13:
            return rng.choice(p["free"]), "りんね"  # names no style: the words before decide
        if style == "standard" and rng.random() < 0.4:
            return p["default"], "りんね"
        while True:
            system = self.system(style)
            if not sentences(system) & self.m.held_out_sentences:
                break
        name = "りんね" if rng.random() < 0.5 else rng.choice(p["names"])
        return (system.replace("{name}", name), name) if "{name}" in system else (system, "りんね")

    def chat(self):
        """(style, system prompt, [(user, answer), ...], dose)

        dose: how much of the control vector is added while this chat is trained, 1 = strength 12;
        0 in the first stage. Below about half a dose the system prompt's style stands; from 0.95 on
        the answer is gyaru whatever the prompt says.
        """
        rng = self.rng
        style = rng.choices(STYLES, [0.3, 0.35, 0.35])[0]
        system, name = self.prompt(style)
        dose = 0.0
        if rng.random() < self.steered:
            dose = rng.uniform(0, self.dose_most)
            if rng.random() < (dose - 0.45) / 0.5:
                style = "gyaru"
        elif rng.random() < (NOISE_LATE if self.steered else NOISE):
            style = rng.choice(STYLES)
        roll = rng.random()
        n = 1 if roll < 0.5 else 2 if roll < 0.77 else 3 if roll < 0.965 else rng.randint(6, 24)
        turns, source = [], None
        self.said.clear()
        for _ in range(n):
            user, answer, source = self.turn(source, STYLES.index(style))
            if name != "りんね":
                user, answer = user.replace("りんね", name), answer.replace("りんね", name)
            turns.append((user, answer))
        return style, system, turns, dose


def build(count, seed, invent=True, steered=0.0, dose_most=DOSE_MOST):
    builder = Builder(Material(), seed, invent, steered, dose_most)
    chats = [builder.chat() for _ in range(count)]
    held_out = set(builder.m.held_out.messages)
    shown = {bare(user) for _, _, turns, _ in chats for user, _ in turns}
    asked = set().union(*(sentences(system) for _, system, _, _ in chats))
    assert not asked & builder.m.held_out_sentences, "a held-out prompt is in the training data"
    assert not shown & held_out, "a held-out message is in the training data"
    return chats


def main():
    ap = argparse.ArgumentParser(description="Prints chats.")
    ap.add_argument("--count", type=int, default=20)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--steered", type=float, default=0.0, help="share of chats with a dose")
    args = ap.parse_args()
    chats = build(args.count, args.seed, steered=args.steered)
    for style, system, turns, dose in chats:
        print(style, dose, "|", system)
        for user, answer in turns:
            print("   U:", user, "\n   A:", answer)
    print(len(chats), "chats,", sum(len(c[2]) for c in chats), "turns")


if __name__ == "__main__":
    main()
