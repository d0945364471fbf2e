"""Files that are small, or cost their author nothing, and would take all memory, hang, or end the program."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from random import Random
from typing import Any

import seeds

NAMES = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json", "README.md",
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "chat_template.jinja", "chat_template.json",
    "preprocessor_config.json", "params.json", "adapter_config.json", "hf_quant_config.json", "modules.json",
    "qwen.tiktoken", "hy.tiktoken", "tiktoken.model", "rwkv_vocab_v20230424.txt", "LICENSE",
)  # fmt: skip
OPTIONS = ("--metadata", "--tensor-type-file", "--imatrix", "--target-model-dir", "--base")
SIZES = (10, 1000, 50_000, 400_000, 3_000_000, 15_000_000, 60_000_000)
REGEXES = (
    "", ".", "(?=.)", "(?!x)", "\\b", "^", "$", "(?:\\D|\\D){20}\\d{50}", "(\\D|\\D)*\\d{50}", "(a*)*b", "(?i)[^a]+?",
    "(?<=.)", "(.+)+$", "\\p{L}+", "(" * 60 + "a" + ")" * 60, "a{1,1000}{1,1000}", "[[:alpha:]]{0,999}x",
    "(?<n>a|b\\g<n>c)*",
)  # fmt: skip
TEXTS = ("", "x", "aa", "\ufdfa", "\u0130", "\U0001f917", "▁", "Ġ" * 100, "a" * 1000, "x" * 20_000, "\0", "é́", " ")


def special_files(source: Random, folder: Path) -> list[str]:
    """A pipe, a device, a socket, a folder, a link in a circle or a sparse file, as a file of a model or an option."""
    model = seeds.checkpoint(folder)
    if source.random() < 0.7:
        _special(model / source.choice(NAMES), source)
        return seeds.on(model, source)
    path = folder / source.choice(("special", "special.gguf", "special.json"))
    _special(path, source)
    if source.random() < 0.5:
        return seeds.on(path, source)
    return ["plan", str(model), source.choice(OPTIONS), str(path)]


def _special(path: Path, source: Random) -> None:
    path.unlink(missing_ok=True)
    kind = source.choice(("pipe", "device", "socket", "folder", "circle", "sparse", "nowhere", "proc"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        bound = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(path.parent)
        bound.bind(path.name)
        os.chdir(here)
        bound.close()
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        path.touch()
        os.truncate(path, source.choice((1 << 20, 90 << 20, 1 << 40)))
    else:
        targets = {
            "device": ("/dev/zero", "/dev/random", "/dev/tty", "/dev/stdin", "/dev/full"),
            "circle": (path.name,),
            "nowhere": ("/no/such",),
            "proc": ("/proc/self/mem", "/proc/kcore", "/proc/self/maps", "/proc/self/fd/0", "/proc/kmsg"),
        }
        path.symlink_to(source.choice(targets[kind]))


def tokenizers(source: Random, folder: Path) -> list[str]:
    """A tokenizer.json whose normalizer, pre-tokenizer, post-processor, decoder or tokens grow, backtrack or nest."""
    model = seeds.checkpoint(folder)
    (model / "tokenizer.model").unlink(missing_ok=True)
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }  # fmt: skip
    for _ in range(source.randint(1, 3)):
        part = source.choice(
            ("normalizer", "pre_tokenizer", "decoder", "post_processor", "added_tokens", "padding", "model")
        )
        tokenizer[part] = _part(part, tokenizer[part], source)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    if source.random() < 0.3:
        config = {
            "tokenizer_class": source.choice(("LlamaTokenizer", "BertTokenizer", "Qwen2Tokenizer", "XLNetTokenizer"))
        }
        (model / "tokenizer_config.json").write_text(json.dumps(config))
    return [*seeds.on(model, source), *source.choice(([], ["--pre-tokenizer", "llama-bpe"]))]


def _part(part: str, old: Any, source: Random) -> Any:
    if part == "added_tokens":
        count = source.choice((1, 100, 20_000))
        flags = {flag: source.random() < 0.5 for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        return [{"id": 300 + at, "content": source.choice(TEXTS) + str(at), **flags} for at in range(count)]
    if part == "padding":
        return {
            "strategy": {"Fixed": source.choice((10, 10**9, 2**63))}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": source.choice(TEXTS),
        }  # fmt: skip
    if part == "model":
        count = source.choice((10, 1000, 100_000))
        kind = source.choice(("BPE", "WordPiece", "Unigram", "WordLevel"))
        if kind == "Unigram":
            return {"type": kind, "unk_id": 0, "vocab": [[source.choice(TEXTS) + str(at), -1.0] for at in range(count)]}
        vocabulary = {"a" * (at % 200) + str(at): at for at in range(count)}
        more = (
            {"merges": [["a", "a"]] * count} if kind == "BPE" else {"unk_token": "0", "max_input_chars_per_word": 2**40}
        )
        return {"type": kind, "vocab": vocabulary, **more, "continuing_subword_prefix": source.choice(TEXTS)}
    if part == "post_processor":
        token, count = source.choice(TEXTS), source.choice((1, 100, 20_000))
        special = {token: {"id": token, "ids": [0] * count, "tokens": [token] * count}}
        pieces = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        return {"type": "TemplateProcessing", "single": pieces * count, "pair": pieces, "special_tokens": special}
    inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[part]
    steps = [_step(part, source) for _ in range(source.randint(1, 4))] * source.choice((1, 5, 30, 60))
    for _ in range(source.choice((0, 0, 1, 100))):
        steps = [{"type": "Sequence", inner: steps}]
    return {
        "type": "Sequence",
        inner: steps,
        **({"normalizers": [{}]} if part == "decoder" and source.random() < 0.1 else {}),
    }


def _step(part: str, source: Random) -> dict[str, Any]:
    pattern = source.choice(({"Regex": source.choice(REGEXES)}, {"String": source.choice(TEXTS)}))
    replace = {"type": "Replace", "pattern": pattern, "content": source.choice(TEXTS)}
    if part == "normalizer":
        kind = source.choice(("NFD", "NFKD", "NFC", "NFKC", "Lowercase", "ByteLevel", "StripAccents", "Nmt"))
        return source.choice((replace, replace, {"type": "Prepend", "prepend": source.choice(TEXTS)}, {"type": kind}))
    if part == "decoder":
        kinds = (
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 2**40},
        )
        return source.choice((replace, replace, *kinds))
    behavior = source.choice(("Isolated", "Removed", "MergedWithNext", "Contiguous"))
    return source.choice(
        (
            {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": source.random() < 0.3},
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": source.random() < 0.5},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            {"type": "Digits", "individual_digits": True},
            {"type": "UnicodeScripts"},
        )
    )


def json_bombs(source: Random, folder: Path) -> list[str]:
    """A JSON file that is valid and becomes far more objects than it has bytes."""
    model = seeds.checkpoint(folder)
    file = model / source.choice([name for name in NAMES if name.endswith(".json")])
    text = file.read_text() if file.exists() else "{}"
    bomb = _json_bomb(source)
    key = source.choice(
        ("zz", "weight_map", "added_tokens", "added_tokens_decoder", "vocab", "model", "architectures", "eos_token_id")
    )
    if source.random() < 0.8 and text.rstrip().endswith("}"):
        comma = "," if len(text.strip()) > 2 else ""
        text = f'{text.rstrip()[:-1]}{comma}"{key}":{bomb}}}'
    else:
        text = bomb
    file.write_text(text)
    return seeds.on(model, source)


def _json_bomb(source: Random) -> str:
    size = source.choice(SIZES)
    unit = source.choice(
        ("[],", "{},", '{"":0},', '"ab",', "300,", "1e9,", "[[]],", '"a\U0001f680",', "null,", '{"a":{"b":[]}},')
    )
    kind = source.choice(("list", "object", "deep", "text", "number"))
    if kind == "list":
        return "[" + unit * (size // len(unit)) + "0]"
    if kind == "object":
        return "{" + "".join(f'"{at:x}":{unit}' for at in range(min(size, 20_000_000) // (len(unit) + 9))) + '"":0}'
    if kind == "deep":
        depth = min(size, 300_000)
        return '{"a":' * depth + "0" + "}" * depth if source.random() < 0.5 else "[" * depth + "]" * depth
    if kind == "text":
        return '"' + source.choice(("a", "é", "\U0001f680", "\\u0000", "\\ud800")) * (size // 4) + '"'
    return "1" * min(size, 1_000_000)


def cards(source: Random, folder: Path) -> list[str]:
    """A model card whose front matter becomes far more than it has bytes, or takes long to parse."""
    model = seeds.checkpoint(folder)
    count, long = source.choice((10, 1000, 30_000, 400_000)), "x" * source.choice((1, 1000, 300_000))
    key = source.choice(("tags", "base_model", "datasets", "language", "license", "x", "model-index", "<<"))
    bodies = (
        f'{key}:\n- &a "{long}"\n' + "- *a\n" * count,
        f"{key}:\n- &a {{name: {long}}}\n" + "- *a\n" * count,
        f"{key}: [" * min(count, 3000),
        f"{key}: " + source.choice("[{") * min(count, 300_000),
        "- " * count,
        f'{key}: !!int "' + ":".join(["1"] * count) + '"',
        f"{key}: !!binary " + "A" * count,
        f"{key}: b\n" * count,
        f"{key}: b\n" * count + "x: [",
        f"{key}: 'a" + "''" * count + "'",
        f'{key}: "' + "\\x41" * count + '"',
        "? " * count,
        f"{key}: |\n" + "  a\n" * count,
        "#" * count + "\n" + f"{key}: a",
        "a: &a [" + "x," * min(count, 1000) + "]\n" + "b: &b [" + "*a," * 1000 + "]\nc: [" + "*b," * 1000 + "]",
        "a: &a {<<: *a}\n" * min(count, 1000),
        "m: &m {" + ",".join(f"k{at}: v" for at in range(min(count, 3000))) + "}\n"
        + "".join(f"n{at}: {{<<: *m}}\n" for at in range(min(count, 3000))),
        f"{key}:\n" + "- [1]\n" * count,
        f"{key}: " + "1" * count,
        f"%TAG ! tag:{'x' * count}:\n--- a",
    )  # fmt: skip
    (model / "README.md").write_text("---\n" + source.choice(bodies) + source.choice(("\n---\n", "\n", "")))
    return seeds.on(model, source)


def headers(source: Random, folder: Path) -> list[str]:
    """A safetensors or GGUF header with many empty tensors, many keys, or arrays in a hole of a file."""
    count = source.choice((100, 5000, 60_000, 400_000))
    if source.random() < 0.4:
        model = seeds.checkpoint(folder)
        name = source.choice(("%x", "model.layers.%d.mlp.up_proj.weight", "lm_head.%d"))
        shape = source.choice(("[0]", "[0,0,0,0]", "[" + "0," * 31 + "0]"))
        entries = ",".join(
            f'"{name % at}":{{"dtype":"U8","shape":{shape},"data_offsets":[0,0]}}' for at in range(count)
        )
        text = ("{" + entries + "}").encode()
        for number in range(source.choice((1, 1, 3))):
            shard = "model.safetensors" if not number else f"model-{number:05}-of-00003.safetensors"
            (model / shard).write_bytes(len(text).to_bytes(8, "little") + text)
        return seeds.on(model, source)
    path = seeds.gguf(folder, source)
    raw = path.read_bytes()
    n_tensors, n_keys = struct.unpack_from("<QQ", raw, 8)
    kind = source.choice((0, 5, 7, 8, 9, 10, 12))
    items = source.choice((count, 10 * count, 1 << 22, 1 << 27, 1 << 29, 1 << 62))
    nbytes = items * {0: 1, 5: 4, 7: 1, 8: 8, 9: 12, 10: 8, 12: 8}[kind]
    key = source.choice((b"x.big", b"tokenizer.ggml.scores", b"tokenizer.ggml.tokens", b"llama.rope.scaling"))
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, kind, items)
    if source.random() < 0.3:
        entry, nbytes = (
            b"".join(struct.pack("<Q", 9) + b"k%08d" % at + struct.pack("<II", 4, 1) for at in range(count)),
            0,
        )
        n_keys += count - 1
    with path.open("wb") as file:
        file.write(raw[:8] + struct.pack("<QQ", n_tensors, n_keys + 1) + entry)
        file.truncate(min(file.tell() + nbytes, 1 << 40))
        file.seek(0, 2)
        file.write(raw[24:])
    return seeds.on(path, source)


def vocabularies(source: Random, folder: Path) -> list[str]:
    """Texts, SentencePiece models and ranks with millions of entries."""
    model = seeds.checkpoint(folder)
    size = source.choice(SIZES[:-1])
    name = source.choice(
        ("tokenizer.model", "vocab.txt", "merges.txt", "qwen.tiktoken", "tiktoken.model", "rwkv_vocab_v20230424.txt")
    )
    unit = source.choice(
        (b"a b\n", b"\n", b"YQ== 1\n", b"a\n", b"1 'a' 1\n", b"\x0a\x02\x0a\x00", b"\x0a\x03\x0a\x01a", b"\0", b"\xff")
    )
    if source.random() < 0.5:
        (model / "tokenizer.model").unlink(missing_ok=True)
    if source.random() < 0.5:
        (model / "vocab.json").write_text('{"a":0,"b":1,"ab":2}')
    if name == "tokenizer.model" and source.random() < 0.7:
        pieces = (
            b"\x0a" + bytes([len(text) + 2]) + b"\x0a" + bytes([len(text)]) + text
            for text in (b"%x" % at for at in range(size // 8))
        )
        (model / name).write_bytes(b"".join(pieces))
    else:
        (model / name).write_bytes(unit * (size // len(unit)))
    if source.random() < 0.5:
        config = json.loads((model / "config.json").read_text())
        kinds = (
            "QWenLMHeadModel",
            "LlamaForCausalLM",
            "BertModel",
            "Rwkv6ForCausalLM",
            "GPT2LMHeadModel",
            "XverseForCausalLM",
        )
        config["architectures"] = [source.choice(kinds)]
        (model / "config.json").write_text(json.dumps(config))
    return [*seeds.on(model, source)]


GENERATORS = (special_files, tokenizers, json_bombs, cards, headers, vocabularies)
