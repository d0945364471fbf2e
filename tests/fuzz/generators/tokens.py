"""Vocabularies that are read from ranks and pieces: lawful ones with damage in one place, in folders of their kind."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random
from typing import Any

import seeds
import tekken_folders
from generators.models import _line, _wrong_numbers, odd_numbers
from generators.texts import changed, nasty, strange

TIKTOKEN = {
    "qwen.tiktoken": ("QWenLMHeadModel",),
    "hy.tiktoken": ("HunYuanDenseV1ForCausalLM", "HunYuanMoEV1ForCausalLM"),
    "tiktoken.model": ("DeepseekV3ForCausalLM", "KimiLinearForCausalLM", "KimiVLForConditionalGeneration"),
}
COMMANDS = (
    *(("convert", "{}", "--vocab-only", "-t", "F16", "-o", "out.gguf"),) * 3,
    ("plan", "{}"),
    ("convert", "{}", "-t", "Q8_0", "-o", "out.gguf"),
    ("convert", "{}", "--vocab-only", "-t", "F16", "-o", "out.gguf", "--check-tokens"),
)
NATIVE_COMMANDS = (
    *COMMANDS,
    ("plan", "{}", "--mistral-format"),
    ("convert", "{}", "--mistral-format", "-t", "F16", "-o", "out.gguf"),
    ("convert", "{}", "--mistral-format", "-t", "F16", "-o", "o.gguf", "--disable-mistral-community-chat-template"),
    ("plan", "{}", "--mmproj"),
    ("types", "{}", "--fit", "1G"),
)
# The names of Mistral's own form -> those of transformers.
NATIVE = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    **{
        f"layers.0.{native}.weight": f"model.layers.0.{name}.weight"
        for native, name in {
            **{f"attention.w{letter}": f"self_attn.{letter}_proj" for letter in "qkvo"},
            **{f"feed_forward.w{n}": f"mlp.{name}_proj" for n, name in ((1, "gate"), (2, "down"), (3, "up"))},
            "attention_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
        }.items()
    },
}


def _tokens(source: Random) -> list[bytes]:
    """The bytes, and tokens that others make: words, or texts of one letter, each a letter longer."""
    more = source.choice(
        (
            [b"th", b"the", b" the"],
            [b"a" * length for length in range(2, source.choice((30, 700)))],
            [b"ab" * length for length in range(1, 100)],
            [bytes([first, second]) for first in range(97, 123) for second in range(97, 123)],
            [source.randbytes(2) for _ in range(40)],
            [b"a" * source.choice((5000, 20_000))],
        )
    )
    return list(dict.fromkeys([*(bytes([byte]) for byte in range(256)), *more]))


def tiktoken_files(source: Random, folder: Path) -> list[str]:
    """A file of ranks in the folder of a family that reads it, with other ranks, tokens or sizes in some places."""
    model = seeds.checkpoint(folder)
    for name in ("tokenizer.model", "tokenizer.json"):
        (model / name).unlink(missing_ok=True)
    name = source.choice(list(TIKTOKEN))
    tokens = _tokens(source)
    lines = [b"%s %d" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens)]
    for _ in range(source.choice((0, 0, 1, 3))):
        at = source.randrange(len(lines))
        lines[at] = source.choice(
            (
                b"YQ== -1",
                b"YQ==",
                b" 5",
                b"YQ== 5 5",
                b"YQ== " + b"9" * 5000,
                b"!! 3",
                b"YQ== 0x3",
                b"",
                b"YQ== \xb2",
                b"=",
            )
        )
    if source.random() < 0.2:
        source.shuffle(lines)
    (model / name).write_bytes(source.choice((b"\n", b"\r\n", b"\x0b", b"\n\n")).join(lines))
    config = json.loads((model / "config.json").read_text())
    size = source.choice((len(tokens) + 300, len(tokens) + 300, len(tokens), 300, 10**6, 2**31, *odd_numbers()))
    config |= {"architectures": [source.choice(TIKTOKEN[name])], "vocab_size": size}
    (model / "config.json").write_text(json.dumps(config))
    if source.random() < 0.7:
        said: dict[str, Any] = {
            "added_tokens_decoder": {
                str(len(tokens) + at): {"content": f"<t{at}>", "special": True} for at in range(source.choice((3, 300)))
            },
            "tokenizer_class": "TikTokenTokenizer",
            "bos_token": "<t0>",
            "eos_token": {"content": "<t1>"},
        }
        if source.random() < 0.5:
            said = changed(said, source)
        (model / "tokenizer_config.json").write_text(json.dumps(said))
    return _line(model, source, COMMANDS)


def tekken_files(source: Random, folder: Path) -> list[str]:
    """A lawful tekken.json of Mistral's with strange values in some places, or with other tokens."""
    model = tekken_folders.write_tekken(folder / "model")
    file = model / "tekken.json"
    value = json.loads(file.read_text())
    if source.random() < 0.5:
        _other_tokens(value, source)
    for _ in range(source.choice((0, 1, 1, 3))):
        value = _changed_tekken(value, source)
    file.write_text(json.dumps(value))
    _add_templates(model, source)
    return _line(model, source, COMMANDS)


def _other_tokens(value: dict[str, Any], source: Random) -> None:
    tokens = _tokens(source)
    value["vocab"] = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(tokens)
    ]
    size = max(value["config"]["default_vocab_size"], len(tokens) + 5)
    value["config"] |= {"num_vocab_tokens": len(tokens), "default_vocab_size": size}
    value["config"]["default_num_special_tokens"] = size - len(tokens)


def _changed_tekken(value: Any, source: Random) -> Any:
    kind = source.randrange(4)
    if kind == 0:
        return changed(value, source)
    if kind == 1 and isinstance(value.get("config"), dict):
        value["config"][source.choice([*value["config"], "x"])] = source.choice((*odd_numbers(), strange(source)))
    elif kind == 2 and isinstance(value.get("special_tokens"), list) and value["special_tokens"]:
        at = source.randrange(len(value["special_tokens"]))
        value["special_tokens"][at] = source.choice(
            (
                {"rank": source.choice(odd_numbers()), "token_str": nasty(source)},
                {"rank": at, "token_str": ""},
                strange(source),
            )
        )
    elif isinstance(value.get("vocab"), list) and value["vocab"]:
        at = source.randrange(len(value["vocab"]))
        value["vocab"][at] = source.choice(
            ({"rank": at, "token_bytes": source.choice(("YQ==", "", "!", "YQ", nasty(source)))}, strange(source), {})
        )
    return value


def _add_templates(model: Path, source: Random) -> None:
    """Chat templates in several files, some named alike, some empty or no text."""
    (model / "chat_templates").mkdir(exist_ok=True)
    for _ in range(source.choice((0, 0, 1, 3))):
        name = source.choice(
            (
                "chat_template.jinja",
                "chat_templates/a.jinja",
                "chat_templates/default.jinja",
                "chat_templates/A.jinja",
                "chat_templates/.jinja",
                "chat_template.json",
                "chat_template",
            )
        )
        text = source.choice(("", "{{ x }}", "{% if", "\ufeff{{ x }}", "x" * 100_000, '{"chat_template": "y"}', "\0"))
        (model / name).write_bytes(text.encode() + source.choice((b"", b"", b"\xff")))
    if source.random() < 0.3:
        config = {
            "chat_template": source.choice(("x", None, "", [{"name": "default", "template": "y"}] * 2, {"a": "b"}, 7))
        }
        (model / "tokenizer_config.json").write_text(json.dumps(config))


def native_models(source: Random, folder: Path) -> list[str]:
    """A whole model in Mistral's own form, whose numbers, names of tensors or vocabulary are strange in one place."""
    model = seeds.checkpoint(folder)
    path = model / "model.safetensors"
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    named = {native: header[name] for native, name in NATIVE.items() if name in header}
    if source.random() < 0.3:
        old = source.choice(list(named))
        named[source.choice((f"{old}_scale", "layers.-1.x.weight", "vision_encoder.ln_pre.weight", nasty(source)))] = (
            named.pop(old)
        )
    if source.random() < 0.3:
        named["layers.0.attention.wq.qscale_weight"] = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}
    text = json.dumps(named).encode()
    (model / "consolidated.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw[begin:])
    path.unlink()
    config = json.loads((model / "config.json").read_text())
    params: dict[str, Any] = {
        "dim": 96,
        "n_layers": 1,
        "head_dim": 48,
        "hidden_dim": 96,
        "n_heads": 2,
        "n_kv_heads": 2,
        "norm_eps": 1e-5,
        "vocab_size": config["vocab_size"],
        "rope_theta": 1e4,
        "max_position_embeddings": 128,
    }
    more: dict[str, Any] = {
        "moe": {"num_experts": 4, "num_experts_per_tok": 2, "expert_hidden_dim": 96, "first_k_dense_replace": 0},
        "yarn": {"factor": 8.0, "original_max_position_embeddings": 128, "beta": 32, "alpha": 1, "apply_scale": False},
        "vision_encoder": {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "patch_size": 14,
                           "image_size": 56, "intermediate_size": 64, "rope_theta": 1e4, "num_channels": 3},
        "llama_4_scaling": {"beta": 0.1, "original_max_position_embeddings": 128},
        "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"},
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 48,
        "sliding_window": source.choice((4096, [4096, None], "x")),
        "model_type": "transformer",
        "tied_embeddings": True,
    }  # fmt: skip
    params |= {key: more[key] for key in source.sample(list(more), source.choice((0, 0, 1, 2, 4)))}
    for _ in range(source.choice((0, 1, 1, 2))):
        if source.random() < 0.5:
            _wrong_numbers(params, source)
        else:
            params = changed(params, source)
    (model / "params.json").write_text(json.dumps(params))
    if source.random() < 0.7:
        (model / "config.json").unlink()
    if source.random() < 0.5:
        for name in ("tokenizer.model", "tokenizer.json"):
            (model / name).unlink(missing_ok=True)
        tekken = json.loads((tekken_folders.write_tekken(folder / "other") / "tekken.json").read_text())
        count = config["vocab_size"] - len(tekken["vocab"])
        tekken["config"] |= {"default_vocab_size": config["vocab_size"], "default_num_special_tokens": max(5, count)}
        if source.random() < 0.5:
            tekken = _changed_tekken(tekken, source)
        (model / "tekken.json").write_text(json.dumps(tekken))
    elif source.random() < 0.5 and (model / "tokenizer.model").exists():
        (model / "tokenizer.model").rename(
            model / source.choice(("tokenizer.model.v3", "tokenizer.model.v99", "tokenizer.model.v"))
        )
    _add_templates(model, source)
    return _line(model, source, NATIVE_COMMANDS)


GENERATORS = (tiktoken_files, tekken_files, native_models)
