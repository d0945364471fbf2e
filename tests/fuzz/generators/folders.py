"""What lies in a model's folder beside its weights: templates, vocabularies, modules, indexes, pickles, many shards."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import shutil
import zipfile
from pathlib import Path
from random import Random

import seeds
import synthetic
from generators.models import COMMANDS, _line, _same, family, odd_numbers, write_header
from generators.texts import changed, nasty

OUTSIDE = (
    "../secret.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/../../secret.safetensors",
    "./model.safetensors",
    "C:\\x",
    "\\\\x\\y",
    "model.safetensors\0",
    "/dev/zero",
    "1_Dense/../../../secret.safetensors",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "x" * 300,
)
BODIES = (
    "{{ 'a' * 10**10 }}",
    "{% for x in range(10**9) %}{% endfor %}",
    "{{ range(10**9) | list }}",
    "{{ 'x' | center(10**10) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ ('a' * 10**8) | replace('a', 'b' * 100) }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{{ raise_exception('\\x1b[2J') }}",
    "{{ 9**9**9 }}",
    "{{ 10**10**10 }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{{ strftime_now('%Y' * 10**7) }}",
    "{{ messages | tojson(indent=10**9) }}",
    "{{ [1] * 10**9 }}",
    "{{ {}.update }}",
    "{{ lipsum(n=10**6) }}",
    "{{ 1 // 0 }}",
    "{% for a in range(10**5) %}{% for b in range(10**5) %}{% endfor %}{% endfor %}",
    "{{ 'a'.join(range(10**8) | map('string')) }}",
    "{{ messages | map(attribute='content') | join('x' * 10**9) }}",
    "{{ '\\u202e\\x9b31m' }}",
    "{% if",
    "{{ x",
    "{% raw %}",
    "{{ 'x'.encode('utf-16').decode('utf-7') }}",
    "{{ messages | pprint }}",
    "{{ self }}",
    "{{ caller() }}",
    "{{ dict(a=1) | urlize }}",
    "{{ ('(' * 10**5) | urlize }}",
    "{{ '<' * 10**6 | striptags }}",
    "{{ ('a ' * 10**7) | wordwrap(1) }}",
    "{{ messages | batch(10**9) | list }}",
)


def template(source: Random) -> str:
    body = "".join(source.choice(BODIES) for _ in range(source.randint(1, 3)))
    kind = source.random()
    if kind < 0.1:
        depth = source.choice((50, 500, 20_000))
        return source.choice(
            ("{{ " + "(" * depth + "1" + ")" * depth + " }}", "{% if a %}" * depth + "{% endif %}" * depth)
        )
    if kind < 0.2:
        return source.choice(
            ("{{ x }}" * 300_000, "{#" * 500_000, "{{ a" + "|upper" * 50_000 + " }}", "{{ " + "1+" * 50_000 + "1 }}")
        )
    return body


def templates(source: Random, folder: Path) -> list[str]:
    """Chat templates that escape, loop, grow or nest, rendered by inspect and parsed by convert."""
    text = template(source)
    if source.random() < 0.5:
        model = seeds.checkpoint(folder)
        place = source.choice(
            ("chat_template.jinja", "chat_templates/x.jinja", "tokenizer_config.json", "chat_template.json")
        )
        (model / place).parent.mkdir(exist_ok=True)
        several = [{"name": source.choice(("default", nasty(source))), "template": text}] * source.choice((1, 2, 3000))
        value = {"chat_template": source.choice((text, several))}
        (model / place).write_text(json.dumps(value) if place.endswith("json") else text, errors="replace")
        return _line(
            model,
            source,
            (("convert", "{}", "-t", "Q8_0"), ("plan", "{}"), ("convert", "{}", "--vocab-only", "-t", "F16")),
        )
    path = folder / "model.gguf"
    from gguf_forge import edit_gguf

    edit_gguf(seeds._made / "F16.gguf", path, chat_template=text, force=True)
    return [
        "inspect",
        str(path),
        *source.choice((["--template"], [], ["--template", "--json"], ["--key", "*template"])),
    ]


def vocabulary_files(source: Random, folder: Path) -> list[str]:
    """Vocabularies of every kind, cut, changed in bytes or in their JSON, of the wrong size, or with tokens twice."""
    model = family(source, folder)
    kinds = sorted(path for path in synthetic.VOCABULARIES.iterdir() if path.is_dir())
    if source.random() < 0.5:
        for file in source.choice(kinds).iterdir():
            shutil.copyfile(file, model / file.name)
    patterns = (
        "*.model",
        "vocab.*",
        "merges.txt",
        "tokenizer*.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "tekken.json",
    )
    files = [file for pattern in patterns for file in sorted(model.glob(pattern))]
    if files:
        file = source.choice(files)
        raw = bytearray(file.read_bytes())
        kind = source.random()
        if file.suffix == ".json" and kind < 0.7:
            value = json.loads(raw)
            for _ in range(source.randint(1, 3)):
                value = changed(value, source)
            raw = bytearray(json.dumps(value).encode())
        elif raw:
            at = source.randrange(len(raw))
            change = source.randrange(4)
            if change == 0:
                del raw[at:]
            elif change == 1:
                raw[at : at + 8] = source.randbytes(8)
            elif change == 2:
                raw[at:at] = raw[at : at + 5000] * source.choice((1, 100))
            else:
                del raw[at : at + source.choice((1, 10, 10_000))]
        file.write_bytes(raw)
    if source.random() < 0.3:
        count = source.choice((10, 10**4, 10**6))
        added = {nasty(source) + str(at): source.choice((at, 10**9, -1)) for at in range(min(count, 1000))}
        added |= {f"<t{at}>": 5 + at for at in range(count)}
        (model / "added_tokens.json").write_text(json.dumps(added))
    return _line(model, source, (*COMMANDS[:6], ("convert", "{}", "--vocab-only", "-t", "F16", "-o", "out.gguf")))


def outside(source: Random, folder: Path) -> list[str]:
    """Indexes, modules and names of base models that lead out of the folder, links out of it, and hub-cache names."""
    (folder / "secret.safetensors").write_bytes((seeds._made / "narrow" / "Tiny" / "model.safetensors").read_bytes())
    snapshot = source.choice(
        (
            "model",
            "models--a--b/snapshots/x",
            f"models--{'y' * 90}--{'z' * 90}/snapshots/{'0' * 40}",
            "models----/snapshots/-",
        )
    )
    (folder / snapshot).parent.mkdir(parents=True, exist_ok=True)
    model = seeds.checkpoint(folder, snapshot)
    kind = source.randrange(5)
    if kind == 0:
        names = [source.choice(OUTSIDE) for _ in range(3)]
        count = source.choice((3, 10**5, 10**6))
        weights = {
            f"model.layers.{at}.x.weight": source.choice(names) if at < 5 else "model.safetensors"
            for at in range(count)
        }
        (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    elif kind == 1:
        modules = [
            {
                "idx": at,
                "name": str(at),
                "path": source.choice((*OUTSIDE, "2_Dense", "1_Pooling")),
                "type": source.choice(
                    (
                        "sentence_transformers.models.Dense",
                        "sentence_transformers.models.Pooling",
                        "os.system",
                        nasty(source),
                    )
                ),
            }
            for at in range(source.choice((1, 4, 10**5)))
        ]
        (model / "modules.json").write_text(json.dumps(modules))
        for name in ("2_Dense", "1_Pooling"):
            (model / name).mkdir()
            value = {
                "in_features": source.choice(odd_numbers()),
                "out_features": 96,
                "pooling_mode_mean_tokens": source.choice(odd_numbers()),
            }
            (model / name / "config.json").write_text(json.dumps(value))
            write_header(model / name / "model.safetensors", {"linear.weight": ("F32", [96, 96])}, _same)
    elif kind == 2:
        (model / "model.safetensors").unlink()
        count = source.choice((5, 3000))
        for at in range(count):
            name = model / f"model-{at + 1:05}-of-{count:05}.safetensors"
            write_header(name, {f"model.layers.{at}.mlp.up_proj.weight": ("F16", [4, 4])}, _same)
    elif kind == 3:
        (model / "generation_config.json").write_text(
            json.dumps(changed({"eos_token_id": [1], "temperature": 1.0, "top_k": 5}, source))
        )
        (model / "README.md").write_text(f"---\nbase_model: {source.choice(OUTSIDE)}\n---\n".replace("\0", ""))
    else:
        target = source.choice(("../secret.safetensors", "/proc/self/environ", "/etc/passwd", ".."))
        place = model / source.choice(
            ("model.safetensors", "config.json", "chat_template.jinja", "tokenizer.json", "LICENSE")
        )
        place.unlink(missing_ok=True)
        place.symlink_to(target)
    return _line(model, source)


def pickles(source: Random, folder: Path) -> list[str]:
    """Pickled weights in all their forms, which are never read."""
    model = seeds.checkpoint(folder)
    (model / "model.safetensors").unlink()
    name = source.choice(
        ("pytorch_model.bin", "model.pt", "consolidated.00.pth", "adapter_model.bin", "model.ckpt", "model.safetensors")
    )
    raw = pickle.dumps({"a": source.choice((print, (10**50,), [[]] * 9))}, protocol=source.randrange(6))
    if source.random() < 0.3:
        raw = pickletools.optimize(raw)[: source.randrange(len(raw))]
    if source.random() < 0.6:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", raw)
            archive.writestr("archive/data/0", bytes(source.choice((10, 50_000_000))))
            archive.writestr("../../outside", b"x")
        raw = held.getvalue()
    (model / name).write_bytes(raw)
    if source.random() < 0.5:
        (model / "pytorch_model.bin.index.json").write_text(
            json.dumps({"weight_map": {"a": source.choice((*OUTSIDE, name))}})
        )
    if source.random() < 0.3:
        (model / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": nasty(source)})
        )
    return _line(model, source)


def tampered_jobs(source: Random, folder: Path) -> list[str]:
    """A job whose tasks are done, and whose pieces, notes or plan were changed before it is finished."""
    from gguf_forge import Request, plan_work
    from gguf_forge.cli import main

    model = seeds.checkpoint(folder)
    here = folder.parent / "here"
    here.mkdir()
    request = Request(source=str(model), out=str(here / "out.gguf"), types=("Q8_0",))
    tasks = source.randint(1, 3)
    plan_work(request, here / "plan.json", tasks=tasks)
    for task in range(tasks):
        if source.random() < 0.9:
            main(["job", "work", str(here / "plan.json"), "--task", str(task), "-q"])
    files = [file for file in sorted(here.rglob("*")) if file.is_file() and file.name != "plan.json"]
    for file in source.sample(files, min(len(files), source.choice((0, 1, 1, 2)))):
        raw = bytearray(file.read_bytes())
        kind = source.randrange(5)
        if kind == 0 and raw:
            raw[source.randrange(len(raw))] ^= 0xFF
        elif kind == 1:
            del raw[source.randrange(len(raw) + 1) :]
        elif kind == 2:
            raw += source.randbytes(100)
        elif kind == 3 and file.suffix == ".json":
            raw = bytearray(json.dumps(changed(json.loads(raw), source)).encode())
        file.unlink()
        if kind == 4:
            file.symlink_to(source.choice((folder / "model" / "config.json", "/dev/zero", "/etc/passwd", file)))
        else:
            file.write_bytes(raw)
    return source.choice(
        (["job", "finish", str(here / "plan.json")], ["job", "work", str(here / "plan.json"), "--task", "0"])
    )


GENERATORS = (templates, vocabulary_files, outside, pickles, tampered_jobs)
