"""Several things that are each lawful and do not go together: jobs whose inputs change, tokens that files disagree on,
sparse shards, folders and paths of /proc as options, and settings of one quantization beside weights of another."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import quantized_checkpoints as formats
import seeds
from generators.models import _line
from generators.quantized import COMMANDS as QUANTIZED
from generators.several import _adapter, _change_one, _copied
from generators.stored import _formats
from generators.texts import changed, nasty

PLACES = (
    *("/proc/self/mem", "/proc/self/fd/0", "/proc/self/fd/9", "/proc/self/environ", "/proc/self/cwd", "/proc/self/exe"),
    *(
        "/dev/stdin",
        "/dev/fd/1",
        "/dev/null",
        "/dev/full",
        "-",
        ".",
        "..",
        "/",
        "//",
        "~",
        "$HOME",
        "",
        " ",
        "file:///x",
    ),
    *(
        "/proc/self/root/etc/passwd",
        "/sys/kernel/mm/hugepages",
        "{model}/config.json/",
        "{model}/config.json/.",
        "{gguf}/x",
    ),
    *("{model}", "{gguf}", "{empty}", "{big}", "{model}/model.safetensors", "caf\u00e9", "cafe\u0301", "CAF\u00c9"),
)
OF_MODELS = (
    *("--imatrix", "--metadata", "--tensor-type-file", "--token-texts", "--lora", "--base", "--target-model-dir"),
    *("-o", "--base-model-id", "--model-name"),
)
OF_FILES = ("--source", "--check-sums", "--write-sums", "--imatrix", "--token-texts", "--lora")
WITH_FILES = (
    ("verify", "{gguf}", "--source", "{}"),
    ("verify", "{gguf}", "--check-sums", "{}"),
    ("verify", "{gguf}", "--write-sums", "{}"),
    ("verify", "{gguf}", "--write-sums", "{}", "--check-sums", "{}"),
    ("edit", "{gguf}", "-o", "{}", "--set", "general.name=x"),
    ("edit", "{gguf}", "-o", "out.gguf", "--chat-template", "{}"),
    ("dequantize", "{gguf}", "--safetensors", "-o", "out", "--config", "{}"),
    ("dequantize", "{gguf}", "-o", "{}"),
    ("quantize", "--allow-requantize", "{gguf}", "{}", "Q8_0"),
    ("quantize", "--allow-requantize", "--imatrix", "{}", "{gguf}", "out.gguf", "Q4_0"),
    ("split", "{gguf}", "{}", "--split-max-tensors", "3"),
    ("merge", "{}", "out.gguf"),
    ("merge", "{gguf}", "{}"),
    ("report", "{gguf}", "-o", "{}"),
    ("report", "{gguf}", "--source", "{}"),
    ("compare", "{gguf}", "{}"),
    ("compare", "{}", "{gguf}"),
    ("inspect", "{}"),
    ("imatrix", "show", "{}"),
    ("types", "{}", "--fit", "1G"),
    ("job", "plan", "{model}", "--save-plan", "{}"),
    ("job", "work", "{}", "--task", "0"),
    ("job", "finish", "{}"),
)


def _encodable(words: list[str]) -> list[str]:
    return [os.fsdecode(word.replace("\0", "").encode(errors="replace")) for word in words]


def places(source: Random, folder: Path) -> list[str]:
    """A folder, a path of /proc, a name in another form or case, or nothing, wherever a command takes a path."""
    model, gguf = seeds.checkpoint(folder), seeds.gguf(folder, source)
    with (folder / "big").open("wb") as big:
        big.truncate(1 << 40)
    here = folder.parent / "here"
    (here / "empty").mkdir(parents=True)
    for name in source.sample(("caf\u00e9", "cafe\u0301", "CAF\u00c9"), source.choice((0, 1, 2))):
        shutil.copyfile(source.choice((gguf, model / "config.json")), here / name)
    named = {"{model}": str(model), "{gguf}": str(gguf), "{empty}": "empty", "{big}": str(folder / "big")}

    def place() -> str:
        # A folder above is lawful for an output, and the judge would take it for an escape.
        found = source.choice([each for each in PLACES if each not in ("..", "/", "//", "/proc/self/root/etc/passwd")])
        for key, value in named.items():
            found = found.replace(key, value)
        return unicodedata.normalize(source.choice(("NFC", "NFD")), found) if source.random() < 0.1 else found

    if source.random() < 0.6:
        words = [named.get(word, word) for word in source.choice(WITH_FILES)]
        words = [place() if word == "{}" else word for word in words]
    else:
        is_file = source.random() < 0.3
        words = seeds.on(gguf if is_file else model, source)
        for option in source.sample(OF_FILES if is_file else OF_MODELS, source.choice((1, 1, 2))):
            words += [option, place()]
    # A new file in the folder of the model is what such an output asks for, and the judge would take it for a change.
    before = ("-o", "--save-plan", *([str(gguf)] if words[0] in ("quantize", "split", "merge") else []))
    new = (str(folder),) if words[0] == "split" else ()  # its output is the beginning of names that are new
    for at in range(1, len(words)):
        if words[at - 1] in before and (words[at] == str(model) or words[at].startswith(new)):
            words[at] = "empty"
    return _encodable(words)


def changed_jobs(source: Random, folder: Path) -> list[str]:
    """A job for several parts or types, whose model, plan or finished tasks change before its next step."""
    from gguf_forge.cli import main

    has_parts = source.random() < 0.5
    model = _copied("all-parts", folder) if has_parts else seeds.checkpoint(folder)
    here = folder.parent / "here"
    here.mkdir()
    plan = here / "plan.json"
    parts = ["--parts", source.choice(("all", "main,mmproj", "main")), "--pre-tokenizer", "qwen2"] * has_parts
    options = source.choice(([], ["--split-max-tensors", "4"], ["-t", "Q8_0"], ["-t", "F16"], ["--pure"]))
    words = ["job", "plan", str(model), *parts, *options, "-o", f"{here}/{source.choice(('', 'x.gguf'))}"]
    tasks = source.choice((1, 2, 3))
    code = main([*words, "--tasks", str(tasks), "--save-plan", str(plan), "-q"])
    if code == 0:
        for task in range(tasks):
            if source.random() < 0.8:
                main(["job", "work", str(plan), "--task", str(task), "-q"])
    kind = source.randrange(7)
    if kind == 0:
        _change_one(model, source)
    elif kind == 1:
        weights = source.choice(sorted(model.rglob("*.safetensors")))
        weights.write_bytes(weights.read_bytes()[: source.choice((0, 9, 1000, -1))])
    elif kind == 2:
        shutil.rmtree(model)
    elif kind == 3 and plan.exists():
        plan.write_text(json.dumps(changed(json.loads(plan.read_text()), source)))
    elif kind == 4:
        for file in source.sample(sorted(here.iterdir()), min(2, len(list(here.iterdir())))):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    elif kind == 5:
        file = source.choice(sorted(path for path in model.rglob("*") if path.is_file()))
        content = bytearray(file.read_bytes())
        if content:
            content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        times = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    other = [*source.choice((["--parts", "main"], ["-t", "Q4_0"], [])), *["--pre-tokenizer", "qwen2"] * has_parts]
    return source.choice(
        (
            ["job", "finish", str(plan)],
            ["job", "finish", str(plan), "--overwrite"],
            ["job", "work", str(plan), "--task", str(source.choice((0, tasks - 1, tasks, 10**9)))],
            ["job", "plan", str(model), "--save-plan", str(plan), *other, "-o", f"{here}/", "--overwrite"],
            ["convert", str(model), *other, "-o", f"{here}/", "--resume"],
        )
    )


def token_lists(source: Random, folder: Path) -> list[str]:
    """Added tokens on which tokenizer.json, its config, added_tokens.json, config.json and adapters disagree."""
    model = seeds.checkpoint(folder)
    config = json.loads((model / "config.json").read_text())
    size = config["vocab_size"]
    texts = (
        "<x>",
        "<s>",
        "",
        " ",
        "\u2581",
        "a",
        "</s>",
        "\x00",
        "<unk>",
        "\ud800",
        "[PAD0]",
        "x" * 70_000,
        nasty(source),
    )
    odd = (0, 1, 2, size, size + 1, size + 7, 2**31, -1, 10**19, 1.5, True)
    ids = (*range(size - 20, size), *odd) if source.random() < 0.3 else tuple(range(size - 20, size))

    def tokens() -> list[tuple[str, Any]]:
        return [(source.choice(texts), source.choice(ids)) for _ in range(source.choice((1, 2, 5, 20)))]

    def entry(text: Any) -> Any:
        flags = {
            key: source.choice((True, False, True, False, True, False, None, "x"))
            for key in ("special", "normalized", "lstrip", "rstrip")
        }
        whole = {"content": text, **flags}
        return source.choice((whole, whole, whole, whole, {"content": text}, text, None))

    def into(name: str, **values: Any) -> None:
        found = json.loads((model / name).read_text()) if (model / name).exists() else {}
        (model / name).write_text(json.dumps({**found, **values}))

    if source.random() < 0.7:
        into("tokenizer_config.json", added_tokens_decoder={str(id): entry(text) for text, id in tokens()})
    if source.random() < 0.5:
        into("added_tokens.json", **dict(tokens()))
    if source.random() < 0.4:
        into(
            "special_tokens_map.json",
            **{k: entry(t) for k, (t, _) in zip(("eos_token", "pad_token"), tokens(), strict=False)},
        )
    if source.random() < 0.3:
        into("generation_config.json", **{f"{kind}_token_id": source.choice(ids) for kind in ("bos", "eos", "pad")})
    if source.random() < 0.3:
        into("config.json", vocab_size=source.choice((size + 1, size + 64, size - 1, 1, 10**6)))
    if (model / "tokenizer.json").exists() and source.random() < 0.5:
        added = [{"id": id, **(each if isinstance(each := entry(text), dict) else {})} for text, id in tokens()]
        into("tokenizer.json", added_tokens=added)
    words = _line(model, source)
    if source.random() < 0.4:
        adapter = _adapter(source, folder, "adapter", model)
        file = source.choice(("added_tokens.json", "tokenizer_config.json", "tokenizer.json"))
        content = dict(tokens())
        decoder = {"added_tokens_decoder": {str(id): entry(text) for text, id in tokens()}}
        (adapter / file).write_text(json.dumps(source.choice((content, decoder))))
        words = ["plan", str(model), "--lora", str(adapter), "-t", "Q8_0"]
    return words


def sparse_shards(source: Random, folder: Path) -> list[str]:
    """Shards with holes of many terabytes, and an index with absurd numbers, types and names of files."""
    model = seeds.checkpoint(folder)
    whole = model / "model.safetensors"
    raw = whole.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    names = [name for name in header if name != "__metadata__"]
    count = source.choice((1, 2, 3, len(names)))
    files = [f"model-{at + 1:05}-of-{count:05}.safetensors" for at in range(count)]
    held: dict[str, dict[str, Any]] = {file: {} for file in files}
    ends = dict.fromkeys(files, 0)
    for name in names:
        file, (start, stop) = source.choice(files), header[name]["data_offsets"]
        shape = list(header[name]["shape"])
        if source.random() < 0.05:
            shape[0] = source.choice((10**6, 10**9, 10**12, 2**40, 2**62))
        nbytes = (stop - start) // max(1, header[name]["shape"][0]) * shape[0]
        held[file][name] = {**header[name], "shape": shape, "data_offsets": [ends[file], ends[file] + nbytes]}
        ends[file] += nbytes
    for file, tensors in held.items():
        text = json.dumps(tensors).encode()
        with (model / file).open("wb") as shard:
            shard.write(len(text).to_bytes(8, "little") + text)
            with suppress(OSError, OverflowError):  # no file has 2**62 bytes: it is then cut short
                shard.truncate(8 + len(text) + ends[file])
    whole.unlink()
    weight_map: dict[str, Any] = {name: file for file, tensors in held.items() for name in tensors}
    numbers = (0, -1, 2**63, 2**64, 10**400, 1e308, "12", None, [], {})
    index: dict[str, Any] = {"metadata": {"total_size": source.choice(numbers)}, "weight_map": weight_map}
    kind = source.randrange(8)
    if kind == 0:
        index["metadata"] = source.choice((None, [], "x", {"total_parameters": source.choice(numbers)}))
    elif kind == 1:
        weight_map[source.choice(names)] = source.choice(
            (*numbers, files[0].upper(), f"./{files[0]}", "", ".", "..", "/")
        )
    elif kind == 2:
        weight_map |= {f"x.{at}": source.choice(files) for at in range(source.choice((1, 5000)))}
    elif kind == 3:
        index = changed(index, source)
    if source.random() < 0.9:
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return source.choice(
        (
            ["plan", str(model)],
            ["plan", str(model), "--json", "--max-memory", "300M"],
            ["types", str(model), "--fit", "1G"],
            ["convert", str(model), "-t", "Q8_0", "-o", "out.gguf"],
            ["job", "plan", str(model), "--tasks", source.choice(("1", "7", "100000")), "-o", "out.gguf"],
            ["verify", str(seeds.gguf(folder, source)), "--source", str(model)],
        )
    )


def other_settings(source: Random, folder: Path) -> list[str]:
    """Weights that one scheme stored, with the settings of another, of two at once, or of groups that contradict."""
    model = seeds.checkpoint(folder)
    config, make = _formats(source)
    try:
        formats.quantize_folder(model, config, make)
    except (ValueError, IndexError, AssertionError):  # these sizes do not go together; the folder is then plain
        return _line(model, source, QUANTIZED)
    file = model / "config.json"
    values = json.loads(file.read_text())
    other, _ = _formats(source)
    kind = source.randrange(6)
    if kind == 0:
        for key in ("quantization_config", "quantization", "compression_config"):
            values.pop(key, None)
        values |= other
    elif kind == 1:
        values |= {"compression_config": next(iter(other.values()))}
    elif kind == 2:
        (model / "hf_quant_config.json").write_text(json.dumps({"quantization": next(iter(other.values()))}))
    elif kind == 3:
        for settings in (values.get("quantization_config"), values.get("quantization")):
            if isinstance(settings, dict):
                settings |= next(iter(other.values()))
    elif kind == 4 and isinstance(settings := values.get("quantization_config"), dict):
        one = {"num_bits": source.choice((2, 4, 8)), "type": source.choice(("int", "float")), "strategy": "group"}
        group = {"targets": source.choice((["Linear"], ["re:.*q_proj"], [])), "weights": {**one, "group_size": 32}}
        settings["config_groups"] = {f"group_{at}": group for at in range(source.choice((1, 2, 3000)))}
        settings["ignore"] = source.choice(([], ["lm_head"], ["re:.*"], "lm_head", [1]))
    else:
        values = changed(values, source)
    file.write_text(json.dumps(values))
    return _line(model, source, QUANTIZED)


GENERATORS = (places, changed_jobs, token_lists, sparse_shards, other_settings)
