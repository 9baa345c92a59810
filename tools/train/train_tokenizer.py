"""Trains the small byte-level BPE tokenizer and writes tokenizer.json and tokenizer_config.json.

The structure is that of the reference checkpoints (NFC, their split pattern, ByteLevel, three added
tokens at the end), so that one reader serves both.
"""
import argparse
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


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--vocab", type=int, default=2816, help="with the three added tokens")
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    byte_level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)])
    tok.decoder = decoders.ByteLevel(**byte_level)
    tok.post_processor = processors.ByteLevel(**byte_level)
    trainer = trainers.BpeTrainer(vocab_size=args.vocab - len(SPECIAL), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(corpus(20000, seed=0), trainer)
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
