"""Checks `gyaru bake` against transformers: bakes each model with its vector, loads the result as
transformers does, and compares its logits with `gyaru eval` and the live vector.

    python tools/check_bake.py [--gyaru build/gyaru] [--dtype-study] MODEL_DIR...

A MODEL_DIR holds a checkpoint and a vector (vector.safetensors, gyaru.safetensors or vectors.pt).
Per model, in float32 with weights dequantised exactly as the file says:
  - LlamaForCausalLM built from the baked config takes every tensor, none missing, none left over;
  - relative error of the logits against `gyaru eval -v ... -s ... --dump` below 1e-3;
  - at strength 0, the same against no vector; and the steering changes something at all.
Then as a user loads it (from_pretrained, 4-bit stays 4-bit): every bias has arrived, and the
tokenizer gives the original's ids. Needs torch, transformers, bitsandbytes and safetensors.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

LIMIT = 1e-3
IDS = [(7 * i * i + 31 * i + 5) % 1000 for i in range(48)]
TEXTS = ["こんにちは、元気？", "Hello world 123", "<|im_start|>user\nあーし<|im_end|>\n"]


def gyaru(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, done.args))}: {done.stderr}")
    return done.stdout


def vector_of(model):
    for name in ("vector.safetensors", "gyaru.safetensors", "vectors.pt"):
        if (model / name).exists():
            return model / name
    sys.exit(f"{model}: no vector there")


def read_checkpoint(folder):
    """All tensors by the index, which must name exactly what the files hold."""
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    tensors = {}
    for name in sorted(set(places.values())):
        with safe_open(folder / name, "pt") as f:
            for key in f.keys():
                assert places.pop(key) == name, key
                tensors[key] = f.get_tensor(key)
    assert not places, f"in the index only: {list(places)[:3]}"
    return tensors


def dequantise(tensors):
    """4-bit matrices as float32, exactly; everything else as float32."""
    out = {}
    for name, tensor in tensors.items():
        state = {k: v for k, v in tensors.items() if k.startswith(name + ".")}
        if state:
            quant = QuantState.from_dict(state, device=torch.device("cpu"))
            quant.dtype = torch.float32
            out[name] = dequantize_4bit(tensor, quant).float()
        elif ".weight." not in name:
            out[name] = tensor.float()
    return out


def llama_logits(folder, round_to=None):
    config = LlamaConfig.from_pretrained(folder)
    for key in ("quantization_config", "dtype"):
        if hasattr(config, key):
            delattr(config, key)
    model = LlamaForCausalLM(config).float().eval()
    state = dequantise(read_checkpoint(folder))
    if round_to:
        state = {k: v.to(round_to).float() if k.endswith("down_proj.bias") else v
                 for k, v in state.items()}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0]


def our_logits(program, model, steering, strength):
    with tempfile.TemporaryDirectory() as scratch:
        dump = pathlib.Path(scratch) / "dump.safetensors"
        gyaru(program, "eval", "-m", model, "--ids", ",".join(map(str, IDS)), *steering,
              "-s", strength, "--kv", "f32", "--dump", dump)
        return load_file(dump)["logits"]


def error(a, b):
    return float((a - b).norm() / b.norm())


def run(model):
    """Logits, None if bitsandbytes finds a matrix stored in another way than the config says (a
    plain linear among 4-bit ones that llm_int8_skip_modules does not name)."""
    try:
        with torch.no_grad():
            return model(torch.tensor([IDS], device=model.device)).logits[0].float().cpu()
    except AssertionError:
        return None


def check_loading(folder, original):
    """As a user loads it: the biases of every linear are there, 4-bit or not."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is LlamaForCausalLM, type(model)
    stored = read_checkpoint(folder)
    four_bit = 0
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            bias = stored[name + ".bias"]
            assert torch.equal(module.bias.cpu(), bias.to(module.bias.dtype)), name
            four_bit += type(module).__name__ == "Linear4bit"
    native = run(model)
    if native is None and run(AutoModelForCausalLM.from_pretrained(original)) is not None:
        sys.exit(f"{folder}: transformers runs the original but not the baked model")
    ours, theirs = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(original)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
    chat = [{"role": "user", "content": TEXTS[0]}]
    if theirs.chat_template:
        assert (ours.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) ==
                theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    return four_bit, native


def check_copies(folder, original):
    """The weight files are the original's, byte for byte."""
    files = sorted(folder.glob("model-*.safetensors"))[:-1]
    theirs = sorted(original.glob("model*.safetensors"))
    assert len(files) == len(theirs)
    for a, b in zip(files, theirs):
        assert a.read_bytes() == b.read_bytes(), a


def check(program, model, strength, study):
    # A direction at the input of block 0 cannot be baked; the reference vectors have one.
    last = json.loads((model / "config.json").read_text())["num_hidden_layers"] - 1
    steering = "-v", vector_of(model), "--layers", f"1-{last}"
    with tempfile.TemporaryDirectory() as scratch:
        baked, plain = pathlib.Path(scratch) / "baked", pathlib.Path(scratch) / "plain"
        for folder, x in ((baked, strength), (plain, 0)):
            gyaru(program, "bake", "-m", model, *steering, "-s", x, "-o", folder)
        check_copies(baked, model)
        steered, unsteered = (our_logits(program, model, steering, x) for x in (strength, 0))
        logits = llama_logits(baked)
        errors = error(logits, steered), error(llama_logits(plain), unsteered)
        moved = error(steered, unsteered)
        four_bit, native = check_loading(baked, model)
        own = "not runnable, nor is the original" if native is None else \
            f"{error(native, steered):.1e} in its own precision"
        print(f"{model.name}: baked {errors[0]:.1e}, strength 0 {errors[1]:.1e} "
              f"(steering moves the logits by {moved:.1e}); loaded by transformers: "
              f"{four_bit} 4-bit linears, {own}")
        if study:
            for dtype in (torch.bfloat16, torch.float16):
                print(f"  biases stored as {dtype}: {error(llama_logits(baked, dtype), steered):.1e}")
    return max(errors) < LIMIT and moved > 10 * LIMIT


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--gyaru", default="build/gyaru")
    parser.add_argument("--strength", type=float, default=6)
    parser.add_argument("--dtype-study", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    good = [check(args.gyaru, model, args.strength, args.dtype_study) for model in args.models]
    print(f"{sum(good)} of {len(good)} models agree (limit {LIMIT:g})")
    sys.exit(not all(good))


main()
