"""Writes a trained model as a Hugging Face directory in bitsandbytes' NF4 layout, and checks it.

The packing is our own (nf4.py and `double` below); `--check` then loads the directory through
transformers + bitsandbytes and compares with our own float32 forward over the dequantised weights.
"""
import argparse
import json
import pathlib
import shutil
import struct

import torch
from safetensors.torch import load_file, save_file

import nf4
from model import Config, Qwen2

NESTED = 256  # absmax values per nested block


def dynamic_map():
    """bitsandbytes' create_dynamic_map(signed=True): the 256 values a nested absmax can take."""
    values = []
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2 ** i + 1)
        means = (edges[:-1] + edges[1:]) / 2
        values += (10.0 ** (i - 6) * means).tolist()
        values += (-(10.0 ** (i - 6)) * means).tolist()
    return torch.tensor(sorted(values + [0.0, 1.0]), dtype=torch.float32)


def double(absmax):
    """absmax [n] -> (codes U8 [n], nested_absmax [ceil(n/256)], map [256], offset)."""
    table = dynamic_map()
    offset = absmax.mean()
    rest = absmax - offset
    pad = -len(rest) % NESTED
    grouped = torch.nn.functional.pad(rest, (0, pad)).reshape(-1, NESTED)
    top = grouped.abs().amax(1)
    edges = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(grouped / top[:, None].clamp_min(1e-12), edges)
    return codes.reshape(-1)[: len(rest)].to(torch.uint8), top, table, float(offset)


def pack(name, weight, dtype="bfloat16"):
    """The seven tensors of one 4-bit linear, without its bias."""
    code, absmax = nf4.blocks(weight)
    code = code.reshape(-1, 2).to(torch.uint8)
    codes, nested, table, offset = double(absmax.reshape(-1))
    state = dict(quant_type="nf4", blocksize=nf4.BLOCK, dtype=dtype, shape=list(weight.shape),
                 nested_blocksize=NESTED, nested_dtype="float32", nested_offset=offset)
    return {
        name: (code[:, :1] << 4 | code[:, 1:]).contiguous(),  # the even element in the high nibble
        name + ".absmax": codes,
        name + ".quant_map": nf4.CODE.clone(),
        name + ".nested_absmax": nested,
        name + ".nested_quant_map": table,
        name + ".quant_state.bitsandbytes__nf4":
            torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }


def unpack(tensors, name):
    """The inverse of pack, from the file's own maps: float32 [N, K]."""
    raw = tensors[name + ".quant_state.bitsandbytes__nf4"]
    state = json.loads(bytes(raw.tolist()).rstrip(b"\0"))
    codes = tensors[name + ".absmax"].long()
    nested = tensors[name + ".nested_absmax"].repeat_interleave(state["nested_blocksize"])
    absmax = tensors[name + ".nested_quant_map"][codes] * nested[: len(codes)]
    absmax = absmax + state["nested_offset"]
    byte = tensors[name].reshape(-1).long()
    code = torch.stack([byte >> 4, byte & 15], 1).reshape(-1, state["blocksize"])
    return (tensors[name + ".quant_map"][code] * absmax[:, None]).reshape(state["shape"])


def load(directory):
    """(Qwen2 in float32 over the dequantised weights, config.json's content)"""
    directory = pathlib.Path(directory)
    c = json.loads((directory / "config.json").read_text())
    model = Qwen2(Config(c["hidden_size"], c["num_hidden_layers"], c["intermediate_size"],
                         c["num_attention_heads"], c["num_key_value_heads"], c["vocab_size"],
                         theta=c["rope_theta"], eps=c["rms_norm_eps"]),
                  max_len=c["max_position_embeddings"])
    tensors = load_file(directory / "model.safetensors")
    state = {}
    for name in model.state_dict():
        quantised = name + ".quant_state.bitsandbytes__nf4" in tensors
        state[name] = unpack(tensors, name) if quantised else tensors[name].float()
    model.load_state_dict(state)
    return model.eval(), c


def config_json(c, eos, bos):
    return {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": bos,
        "eos_token_id": eos, "hidden_act": "silu", "hidden_size": c["hidden"],
        "initializer_range": 0.02, "intermediate_size": c["inter"],
        "layer_types": ["full_attention"] * c["layers"], "max_position_embeddings": 2048,
        "max_window_layers": c["layers"], "model_type": "qwen2",
        "num_attention_heads": c["heads"], "num_hidden_layers": c["layers"],
        "num_key_value_heads": c["kv_heads"], "pad_token_id": bos,
        "quantization_config": {
            "_load_in_4bit": True, "_load_in_8bit": False, "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None,
            "llm_int8_threshold": 6.0, "load_in_4bit": True, "load_in_8bit": False,
            "quant_method": "bitsandbytes"},
        "rms_norm_eps": c["eps"], "sliding_window": None, "tie_word_embeddings": True,
        "transformers_version": "5.17.0", "use_cache": True, "use_sliding_window": False,
        "vocab_size": c["vocab"], "rope_theta": c["theta"], "torch_dtype": "bfloat16",
    }


def write(checkpoint, tokenizer, out):
    saved = torch.load(checkpoint, weights_only=False)
    c, weights = saved["config"], saved["model"]
    tensors = {}
    for name, w in weights.items():
        if name.endswith("_proj.weight"):
            tensors.update(pack(name, w.float()))
        else:
            tensors[name] = w.to(torch.bfloat16).contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(pathlib.Path(tokenizer) / name, out / name)
    ids = {t["content"]: t["id"] for t in
           json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]}
    eos, bos = ids["<|im_end|>"], ids["<|endoftext|>"]
    dump(out / "config.json", config_json(c, eos, bos))
    dump(out / "generation_config.json",
         {"bos_token_id": bos, "do_sample": True, "eos_token_id": [eos, bos], "pad_token_id": bos,
          "repetition_penalty": 1.05, "temperature": 0.7, "top_k": 40, "top_p": 0.9,
          "transformers_version": "5.17.0"})


def dump(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def check(directory):
    """Both readings of one directory must agree, and bitsandbytes must find our packing its own."""
    import bitsandbytes.functional as bnb
    from transformers import AutoModelForCausalLM, AutoTokenizer
    ours, _ = load(directory)
    text = [{"role": "user", "content": "こんにちは。今日はいい天気ですね。"}]
    tok = AutoTokenizer.from_pretrained(directory)
    ids = tok(tok.apply_chat_template(text, tokenize=False, add_generation_prompt=True),
              return_tensors="pt").input_ids
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for name, module in theirs.named_modules():
        if type(module).__name__ == "Linear4bit":
            weight = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            mine = dict(ours.named_modules())[name].weight
            # bitsandbytes hands out the dtype of its quant state, bf16: equal after that rounding.
            assert torch.allclose(weight, mine.bfloat16().float(), rtol=1e-2, atol=1e-4), name
            module.compute_dtype = torch.float32
    with torch.no_grad():
        a, b = ours(ids), theirs(ids).logits.float()
    error = ((a - b).norm() / a.norm()).item()
    same = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
    size = sum(f.stat().st_size for f in pathlib.Path(directory).iterdir())
    print(f"{directory}: relative error of the logits against transformers + bitsandbytes "
          f"{error:.2e}, equal argmax {same:.0%}, {size / 1e6:.2f} MB")
    assert error < 0.03, "the two readings of the checkpoint differ"


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--checkpoint", help="final.pt or last.pt of train.py")
    ap.add_argument("--tokenizer")
    ap.add_argument("--out", required=True)
    ap.add_argument("--check", action="store_true")
    args = ap.parse_args()
    out = pathlib.Path(args.out)
    if args.checkpoint:
        write(args.checkpoint, args.tokenizer, out)
    if args.check:
        check(out)


if __name__ == "__main__":
    main()
