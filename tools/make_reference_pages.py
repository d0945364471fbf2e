"""Writes docs/cli.md, docs/python.md, docs/models.md and docs/quantized-inputs.md from help texts, docstrings and
declarations.

    python tools/make_reference_pages.py

tests/docs/test_reference_pages.py compares the pages with what this script makes, so they cannot become stale.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, get_args, get_type_hints

import typer

import gguf_forge
from gguf_forge.architectures.supported import supported_classes
from gguf_forge.checkpoint.quantized import schemes
from gguf_forge.cli.app import program
from gguf_forge.cli.verify import MISMATCH
from gguf_forge.errors import ForgeError

DOCS = Path(__file__).resolve().parents[1] / "docs"
GENERATED = "This page is made by `python tools/make_reference_pages.py`. Change {} instead of this page.\n"

QUANTIZED_TITLE = """# Quantized checkpoints

{generated}
A checkpoint may be quantized already. Its weights are put together row by row while the file is written: in float32,
as llama.cpp's converter does it, or by the formula of the format's own library where that converter refuses the format.
They are then rounded to the base type and quantized like any others. NVFP4, and the MXFP4 experts of GPT-OSS,
DeepSeek V4, Kimi K3 and MiMo V2, stay the blocks that they are, and `general.file_type` says so. Such a file is
quantized again only with `--allow-requantize`, or keeps these blocks with `--keep-quantized`. `--fp8-as-q8` makes Q8_0
of matrices that were FP8.

The shapes of a weight's parts tell its bits and groups for GPTQ, AWQ and compressed-tensors, so one model may mix them.
A part that is missing, whose shape does not fit, or that holds infinities or no numbers is an error that names the
weight. A zero scale of a block stands for a block of zeros; as the one scale of a tensor, it is an error. A config that
is left over on 16-bit weights is told and changes nothing.

## Blocks that are kept

With `--keep-quantized`, a tensor becomes blocks of the smallest type that holds its values exactly, and nothing is
rounded. The other tensors get the types that they have without the option, and `general.file_type` is that of `-t`.

| codes of the source | blocks |
| --- | --- |
| up to 4 bits, symmetric (GPTQ, AutoRound, compressed-tensors) | Q4_0 |
| up to 4 bits with biases (MLX, quanto) or zero points, if float16 holds every minimum | Q4_1 |
| up to 4 bits with other zero points (AWQ, asymmetric GPTQ and compressed-tensors); 5 bits | Q5_0, Q5_1 |
| 6 and 8 bits, symmetric; int8 with a scale for a row or group (compressed-tensors, EETQ, quanto, torchao) | Q8_0 |
| MXFP4 of compressed-tensors, Quark and MLX; NVFP4 of MLX | MXFP4; NVFP4 |
| NVFP4, and the MXFP4 of GPT-OSS, DeepSeek V4, Kimi K3 and MiMo V2 | as they are |
| bf16 and f16 weights that are levels of Q4_0 times scales, rounded to their type | Q4_0 |

A scale must be a float16 number for 32 neighbouring columns, or for a multiple of 32. In GPTQ's activation order, this
holds only if the order moves whole blocks. To prove it, planning reads all scales and zero points, which are a small
part of the weights, and no codes. A model that was trained for Q4_0 may be stored in 16 bits. Planning looks at 16 rows
of each tensor of 16 bits, and a row off Q4_0's grid is then an error when the file is written. Tensors that are stored
transposed, as GPT-2's are, are left out: blocks go along the rows of the file, and each of these is a column there, so
planning would have to read the whole matrix. For the same reason, weights whose scales go down the columns of a matrix
have no blocks in ggml.

What no type holds exactly, such as FP8 or bitsandbytes' NF4, is quantized as usual. `gguf-forge plan` says how many
tensors keep their blocks. A type that `--tensor-type`, `--output-tensor-type` or `--token-embedding-type` names for a
tensor outranks its blocks.

Quantizing twice adds the errors of both times. A trained Llama of 7 million weights shows it, whose projections were
rounded to 4 bits in symmetric groups of 32. `python bench/kept_blocks.py MODEL` measures this for any model.

| projections | bits per weight | error against the 4-bit weights | error against the original weights |
| --- | --- | --- | --- |
| in the 4-bit checkpoint | 4.50 | 0 | 9.52 % |
| kept as Q4_0 by `--keep-quantized` | 4.50 | 0 | 9.52 % |
| dequantized and quantized to Q4_0 | 4.50 | 6.98 % | 11.84 % |
| dequantized and quantized to Q4_K_M | 4.70 | 5.21 % | 10.89 % |

The error is the root mean square of the differences, over that of the weights.

## Speed and memory

A model of 1.1 billion weights, of which 970 million are quantized, becomes Q4_K_M. The speed is that of the same model
in bf16 divided by it, by the processor time of both, in alternating runs of which the median counts. The two processors
were busy with other work.

| source | speed beside bf16 | memory beside bf16 |
| --- | --- | --- |
| bf16 | 1 | 1 |
| FP8, blocks of 128 x 128 | 0.80 | 1.1 |
| GPTQ, 4 bits, groups of 128 | 0.69 | 1.25 |

With NumPy instead of C kernels, and whole matrices at a time, GPTQ had a speed of 0.32 and took 4 times the memory. By
the clock of a quiet machine, FP8 has 0.81 and GPTQ 0.64 of the speed of bf16. They take 84 and 94 MiB of memory, and
bf16 takes 75. In the same model with 6 layers, where two thirds of the weights are quantized, the speeds are:

| source | speed beside bf16 | memory beside bf16 |
| --- | --- | --- |
| compressed-tensors, 4 bits, groups of 128 | 0.81 | 1.1 |
| MLX, 4 bits, groups of 64 | 0.80 | 1.1 |
| GPTQ, 3 bits | 0.74 | 1.2 |
| bitsandbytes, NF4 | 0.73 | 1.1 |
| GPTQ, 4 bits, activation order | 0.70 | 1.2 |
| AWQ, groups of 128 | 0.65 | 1.2 |

## BitNet

The mean by which BitNet's weights are rounded once more is a sum of float32. llama.cpp's converter lets torch's threads
share it, and the last bit of each value then depends on how many they are; this is the sum of one thread.

The scale divides, or multiplies where `linear_class` is `autobitlinear`, as in microsoft/bitnet-b1.58-2B-4T.
llama.cpp's converter always divides, and `--as-reference` gives its file.

## Schemes

| scheme | what is stored | file |
| --- | --- | --- |
"""

CLI_TITLE = """# Command-line reference

{generated}
`gguf-forge COMMAND --help` shows the same texts in a terminal.

## Exit codes

| code | meaning |
| --- | --- |
{exit_codes}
| 128 + N | Signal number N stopped the command: 129 SIGHUP, 130 SIGINT, 143 SIGTERM. |
| 141 | The reader of the output went away, as `head` does. |

[Scripts](guide/scripting.md#exit-codes) lists the kinds of code 8.

Errors and progress go to standard error. With `--json`, an error is also one JSON object on standard output.
"""

PYTHON_TITLE = """# Python reference

{generated}
Every name on this page is an attribute of the package: `import gguf_forge`, then `gguf_forge.convert(...)`. Only the
classes under [Parts of results](#parts-of-results) are not: functions make them, and no caller has to. `Progress` is
`Callable[[int], None]`.
"""

MODELS_TITLE = """# Models

{generated}
`architectures` in a checkpoint's config.json names its class. `gguf-forge convert` reads {classes} classes, which
become {architectures} GGUF architectures; `gguf-forge info --models` prints the same table. The part `mmproj` is a
projector with its encoders, which `convert --mmproj` writes.

A proof is a small checkpoint of which llama.cpp's own tools made files, and every byte of ours is the same. "As" names
another class with the same declaration, whose checkpoint it is. Without a proof yet: {unproved}. For a class that is
not here, see [Add a model](add-a-model.md).

| class | part | GGUF architecture | vocabulary | proved by |
| --- | --- | --- | --- | --- |
"""

OTHER_EXIT_CODES = {
    0: "The command did what it was asked to do.",
    1: "The system gave no more memory, or there is a bug in gguf-forge.",
    MISMATCH: "`verify` or `compare` found a difference.",
}

PROPERTIES = (property, cached_property)
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples):$")
TITLES = {"Args": "Arguments", "Examples": "Example"}


def cli_page() -> str:
    """docs/cli.md: exit codes, then every command that `gguf-forge --help` lists."""
    every = typer.main.get_command(program())
    codes = OTHER_EXIT_CODES | {error.exit_code: f"`{error.__name__}`: {summary(error)}" for error in error_classes()}
    table = "\n".join(f"| {code} | {meaning} |" for code, meaning in sorted(codes.items()))
    parts = [CLI_TITLE.format(generated=GENERATED.format("the help text in `gguf_forge/cli/`"), exit_codes=table)]
    panels: dict[str, list[tuple[str, Any]]] = {}
    for name, command in shown(every):
        panels.setdefault(text(command.rich_help_panel, "Commands"), []).append((name, command))
    for panel, commands in panels.items():
        parts.append(f"## {panel}\n")
        for name, command in commands:
            parts.extend(command_sections(f"gguf-forge {name}", command))
    return "\n".join(parts)


def shown(group: Any) -> Iterator[tuple[str, Any]]:
    return ((name, command) for name, command in group.commands.items() if not command.hidden)


def command_sections(path: str, command: Any) -> Iterator[str]:
    """The section of a command, or those of all commands of a group."""
    if hasattr(command, "commands"):
        for name, inner in shown(command):
            yield from command_sections(f"{path} {name}", inner)
        return
    arguments = [each for each in command.params if not hasattr(each, "is_flag")]
    options = [each for each in command.params if hasattr(each, "is_flag") and not each.hidden]
    usage = " ".join((path, "[OPTIONS]" * bool(options), *(each.metavar for each in arguments))).replace("  ", " ")
    yield f"### {path.removeprefix('gguf-forge ')}\n\n```text\n{usage}\n```\n"
    yield f"{inspect.cleandoc(command.help)}\n"
    lines = [f"- `{each.metavar}`: {each.help}" for each in arguments]
    panels: dict[str, list[str]] = {}
    for each in options:
        panels.setdefault(text(each.rich_help_panel, "Options"), []).append(option_line(each))
    if lines:
        yield "\n".join(lines) + "\n"
    for panel, of_panel in panels.items():
        yield f"**{panel}**\n\n" + "\n".join(of_panel) + "\n"


def option_line(option: Any) -> str:
    """An option as an item of a list: its names, its metavar and its help."""
    names = ", ".join(sorted(option.opts, key=len))
    variable = f" The environment variable `{option.envvar}` sets it, too." if option.envvar else ""
    return f"- `{names}{' ' + option.metavar if option.metavar else ''}`: {option.help}{variable}"


def python_page() -> str:
    """docs/python.md: the functions, the classes and the errors that the package exports."""
    exported = {name: getattr(gguf_forge, name) for name in gguf_forge.__all__}
    errors = error_classes()
    classes = {name: each for name, each in exported.items() if inspect.isclass(each) and each not in errors}
    functions = {name: each for name, each in exported.items() if isinstance(each, FunctionType)}
    parts = [PYTHON_TITLE.format(generated=GENERATED.format("the docstrings"))]
    parts += ["## Functions\n", *(member(name, each) for name, each in functions.items())]
    parts += ["## Classes\n", *(class_section(name, each) for name, each in classes.items())]
    held = {each.__name__: each for each in held_classes((*functions.values(), *classes.values()))}
    parts += ["## Parts of results\n", *(class_section(name, each) for name, each in sorted(held.items()))]
    table = (f"| `{error.__name__}` | {error.exit_code} | {summary(error)} |" for error in errors)
    parts += ["## Errors\n", as_markdown(ForgeError)]
    parts += ["\n".join(("| class | exit code | meaning |", "| --- | --- | --- |", *table)) + "\n"]
    return "\n".join(parts)


def models_page() -> str:
    """docs/models.md: every class that a family declares."""
    found = supported_classes()
    lines = [
        f"| {each.name} | {each.part} | {', '.join(each.architectures)} | {', '.join(each.vocabularies) or 'none'} | "
        f"{each.proof_text} |"
        for each in found
    ]
    title = MODELS_TITLE.format(
        generated=GENERATED.format("the declarations in `gguf_forge/architectures/families/`"),
        classes=len({each.name for each in found}),
        architectures=len({name for each in found for name in each.architectures}),
        unproved=sum(not each.proof for each in found) or "none",
    )
    return title + "\n".join(lines) + "\n"


def quantized_page() -> str:
    """docs/quantized-inputs.md: every scheme of quantized storage."""
    lines = []
    for scheme in schemes():
        module = sys.modules[scheme.logical.__module__]
        file = f"{module.__name__.replace('.', '/')}.py"
        lines.append(f"| {scheme.name} | {summary(module)} | `{file}` |")
    generated = GENERATED.format("the declarations in `gguf_forge/checkpoint/quantized/`")
    return QUANTIZED_TITLE.format(generated=generated) + "\n".join(lines) + "\n"


def error_classes() -> list[type[ForgeError]]:
    """The children of `ForgeError` that users meet, by exit code."""
    public = (getattr(gguf_forge, name) for name in gguf_forge.__all__)
    children = (each for each in public if inspect.isclass(each) and issubclass(each, ForgeError))
    return sorted((each for each in children if each is not ForgeError), key=lambda error: error.exit_code)


def held_classes(public: Iterable[Any]) -> list[type]:
    """The classes of the package that functions, fields and methods name, those of `public` left out."""
    queue = list(public)
    known = set(queue) | set(error_classes())
    found: list[type] = []
    while queue:
        for each in _named_by(queue.pop()):
            if each not in known:
                known.add(each)
                found.append(each)
                queue.append(each)
    return found


def _named_by(each: Any) -> Iterator[type]:
    members = [each]
    if inspect.isclass(each):
        members += [getter(value) for name, value in vars(each).items() if is_shown(name, value)]
    for member in members:
        for name, hint in _hints(member).items():
            if not name.startswith("_"):
                yield from _classes_in(hint)


def _hints(each: Any) -> dict[str, Any]:
    try:
        return get_type_hints(each)
    except NameError:  # a name that is imported for type checkers only
        return {}


def _classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and hint.__module__.startswith("gguf_forge"):
        yield hint
    for inner in hint if isinstance(hint, list) else get_args(hint):
        yield from _classes_in(inner)


def getter(value: Any) -> Any:
    """The function behind a method or property."""
    return value.func if isinstance(value, cached_property) else getattr(value, "fget", value)


def is_shown(name: str, value: Any) -> bool:
    """Whether a member of a class is on the page."""
    is_public = not name.startswith("_") or name == "__getitem__"
    return is_public and isinstance(value, (FunctionType, *PROPERTIES)) and bool(inspect.getdoc(value))


def class_section(name: str, each: type) -> str:
    methods = [
        f"- `{method_call(method, value)}`: {summary(value)}"
        for method, value in vars(each).items()
        if is_shown(method, value)
    ]
    listed = "**Methods and properties**\n\n" + "\n".join(methods) + "\n" if methods else ""
    return "\n".join(filter(None, (member(name, each), listed)))


def method_call(name: str, value: Any) -> str:
    if isinstance(value, PROPERTIES):
        return name
    _, *parameters = inspect.signature(value).parameters
    return f"[{parameters[0]}]" if name == "__getitem__" else f"{name}({', '.join(parameters)})"


def member(name: str, each: Any) -> str:
    return f"### {name}\n\n```python\n{signature(name, each)}\n```\n\n{as_markdown(each)}"


def signature(name: str, each: Any) -> str:
    """The call as it could be written down, one parameter a line if there are more than two; of an enumeration its
    members."""
    if inspect.isclass(each) and issubclass(each, Enum):
        return "\n".join(f"{name}.{found.name} = {json.dumps(found.value)}" for found in each)
    found = inspect.signature(each)
    types = _field_types(each)
    words, keyword_only = [], False
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            words.append("*")
        words.append(parameter_text(parameter.replace(annotation=types.get(parameter.name, parameter.annotation))))
    result = found.return_annotation
    arrow = "" if inspect.isclass(each) or result is found.empty else f" -> {annotation(result)}"
    if len(words) > 2:
        return f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){arrow}"
    return f"{name}({', '.join(words)}){arrow}"


def _field_types(each: Any) -> dict[str, str]:
    """The annotations of a dataclass whose fields are options, without what the command line says of them."""
    if not any("Option" in str(field.type) for field in getattr(each, "__dataclass_fields__", {}).values()):
        return {}
    return {name: inspect.formatannotation(found) for name, found in get_type_hints(each).items()}


def parameter_text(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    typed = stars.get(parameter.kind, "") + parameter.name
    if parameter.annotation is not parameter.empty:
        typed += f": {annotation(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return typed
    plain = parameter.default is None or isinstance(parameter.default, (bool, int, float, str, tuple))
    return f"{typed} = {parameter.default!r}" if plain else f"{typed} = ..."


def annotation(given: Any) -> str:
    return given if isinstance(given, str) else inspect.formatannotation(given)


def as_markdown(each: Any) -> str:
    """The docstring, its sections as lists and code."""
    parts: list[str] = []
    title, body = "", list[str]()
    for line in (*(inspect.getdoc(each) or "").splitlines(), "Args:"):
        found = SECTION.match(line)
        if not found:
            body.append(line)
            continue
        if any(body):
            parts.append(section(title, body))
        title, body = found[1], []
    return "\n".join(parts)


def section(title: str, body: Iterable[str]) -> str:
    written = inspect.cleandoc("\n" + "\n".join(body))
    heading = f"**{TITLES.get(title, title)}**\n\n" if title else ""
    if title in ("Example", "Examples"):
        return f"{heading}```python\n{written.replace('  # doctest: +SKIP', '')}\n```\n"
    if title in ("Args", "Attributes", "Raises"):
        items = re.sub(r"\n\s+", " ", written)
        return heading + re.sub(r"^([^:\n]+):", r"- `\1`:", items, flags=re.MULTILINE) + "\n"
    return f"{heading}{written}\n"


def summary(each: Any) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(each) or "").partition("\n\n")[0].split())


def text(panel: Any, default: str) -> str:
    return panel if isinstance(panel, str) and panel else default


PAGES = {"cli.md": cli_page, "python.md": python_page, "models.md": models_page, "quantized-inputs.md": quantized_page}

if __name__ == "__main__":
    for page, made in PAGES.items():
        (DOCS / page).write_text(made())
