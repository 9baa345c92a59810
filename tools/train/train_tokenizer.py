"""Trains the small byte-level BPE tokenizer and writes tokenizer.json and tokenizer_config.json.

The structure is that of the reference checkpoints (NFC, their split pattern, ByteLevel, three added
tokens at the end), so that one reader serves both. The merges are learnt over characters and
written over bytes: the bytes of each known character merge first, and no token holds a part of a
character beside a whole one. Learnt over bytes, many tokens of an unfamiliar message were
such halves, and a particle before a rare kanji was another token than before a common one.
"""
import argparse
import collections
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

import build_data
import chat

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def corpus(count, seed):
    """Plain texts, without the invented words: those stay bytes and characters."""
    for _, system, turns, _ in build_data.build(count, seed, invent=False):
        yield f"system\n{system}"
        for user, answer in turns:
            yield f"user\n{user}"
            yield f"assistant\n{answer}"


def byte_letters():
    """The letter that byte-level BPE writes for each byte: printable ones stand for themselves."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def learn(texts, size):
    """(vocabulary, merges) of byte-level BPE with `size` tokens, learnt over characters."""
    letters = byte_letters()
    texts = list(texts)
    count = collections.Counter(c for text in texts for c in text)
    known = sorted(c for c, n in count.items() if n >= RARE)
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    trainer = trainers.BpeTrainer(vocab_size=len(count) + size, show_progress=False,
                                  max_token_length=LONGEST)
    tok.train_from_iterator(texts, trainer)

    def written(text):
        return "".join(letters[b] for b in text.encode())

    vocab = {letters[b]: b for b in range(256)}
    merges = []

    def merge(left, right):
        if left in vocab and right in vocab and left + right not in vocab and len(vocab) < size:
            vocab[left + right] = len(vocab)
            merges.append((left, right))

    for char in map(written, known):
        for i in range(1, len(char)):
            merge(char[:i], char[i])
    for left, right in json.loads(tok.to_str())["model"]["merges"]:
        merge(written(left), written(right))
    return vocab, merges


RARE = 3     # a character seen less often stays bytes
LONGEST = 5  # tokens have fewer characters: longer ones are phrases of the material, not words


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--vocab", type=int, default=6144, help="with the three added tokens")
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    vocab, merges = learn(corpus(20000, seed=0), args.vocab - len(SPECIAL))
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.normalizer = normalizers.NFC()
    byte_level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)])
    tok.decoder = decoders.ByteLevel(**byte_level)
    tok.post_processor = processors.ByteLevel(**byte_level)
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    data = json.loads(tok.to_str())
    # The trainer leaves these null; readers of the reference layout expect empty strings.
    data["model"].update(continuing_subword_prefix="", end_of_word_suffix="")
    (out / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    first = tok.token_to_id(SPECIAL[0])
    default = build_data.load("prompts.json")["default"]
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(first + i): dict(content=t, single_word=False, lstrip=False, rstrip=False,
                                 normalized=False, special=True) for i, t in enumerate(SPECIAL)},
        "bos_token": None,
        "chat_template": chat.TEMPLATE.replace("DEFAULT", default),
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (out / "tokenizer_config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    texts = list(corpus(500, seed=5))
    print("vocab", tok.get_vocab_size(), "characters per token",
          sum(map(len, texts)) / sum(len(tok.encode(t).ids) for t in texts))


if __name__ == "__main__":
    main()
