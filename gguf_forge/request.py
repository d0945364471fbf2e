"""What somebody asks for (`Request`). How to run it is in `RunSettings` (`run_settings.py`).

Both are made once, where a job enters the program: from the command line, in a public function, or from a plan file.
From there they are passed on as a whole. The spelling and the help of an option are written only at its field, so a new
option is a new field.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from gguf_forge.errors import InputError, UsageError, printable
from gguf_forge.file_choices import FileChoices, RecipeChoices, SplitChoices
from gguf_forge.name_pattern import MOST_PATTERNS
from gguf_forge.option import MODEL, OUTPUT, Option, parse_names, parse_types

# The file types for the help. The recipe package has the facts, and a test compares the two.
TYPE_NAMES = (
    "F32 F16 BF16 auto Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K "
    "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE Q1_0 Q2_0"
)

_LONGEST_TEXT = 4096  # characters of one text of a request; Linux takes no longer path


def names_folder(out: str | None, n_types: int) -> bool:
    """Whether an output can only be a folder: it ends with a slash, or it is a plain name for files of several types.

    Example:
        >>> names_folder("models/", 1), names_folder("models", 2), names_folder("models", 1)
        (True, True, False)
    """
    return out is not None and (out.endswith(os.sep) or (n_types > 1 and not Path(out).suffix and "{" not in out))


@dataclass(frozen=True, kw_only=True)
class ModelHints:
    """Facts that a user adds to a checkpoint that lacks them, and options for how it is read."""

    model_name: Annotated[
        str | None,
        Option(
            "--model-name",
            "The model's name. [default: from the model card, the config, the folder]",
            MODEL,
            metavar="NAME",
        ),
    ] = None
    metadata: Annotated[
        str | None,
        Option("--metadata", "A JSON file with general.* keys that outrank the model card.", MODEL, metavar="FILE"),
    ] = None
    pre_tokenizer: Annotated[
        str | None,
        Option(
            "--pre-tokenizer",
            "How text is split before BPE, for a fine-tune whose tokenizer is not recognized: "
            "the name of the model it comes from, such as llama-bpe or qwen2.",
            MODEL,
            metavar="NAME",
            values="pre-tokenizers",
        ),
    ] = None
    target_model_dir: Annotated[
        str | None,
        Option(
            "--target-model-dir",
            "For a draft model (DFlash, DSpark, EAGLE-3): the folder of the model that it predicts for. It needs "
            "config.json and the tokenizer.",
            MODEL,
            metavar="FOLDER",
        ),
    ] = None
    mistral_format: Annotated[
        bool,
        Option(
            "--mistral-format",
            "Read Mistral's own form of a checkpoint (params.json, consolidated*.safetensors), even if config.json "
            "is also there.",
            MODEL,
        ),
    ] = False
    disable_mistral_community_chat_template: Annotated[
        bool,
        Option(
            "--disable-mistral-community-chat-template",
            "For Mistral's own form: no chat template where the folder has none.",
            MODEL,
        ),
    ] = False
    drop_tensor: Annotated[
        tuple[str, ...],
        Option(
            "--drop-tensor",
            "Leave out the checkpoint's tensors whose name matches the pattern, which is one as for --tensor-type. "
            "Repeatable.",
            MODEL,
            metavar="REGEX",
        ),
    ] = ()
    lora: Annotated[
        tuple[str, ...],
        Option(
            "--lora",
            "Merge a LoRA adapter (a folder that PEFT wrote) into the model. SCALE multiplies its change. Repeat it "
            "for more adapters, which are merged in that order.",
            MODEL,
            metavar="ADAPTER[:SCALE]",
        ),
    ] = ()
    fp8_as_q8: Annotated[
        bool,
        Option(
            "--fp8-as-q8",
            "Matrices that the checkpoint holds in FP8 become Q8_0, also in files of float types.",
            MODEL,
        ),
    ] = False
    keep_quantized: Annotated[
        bool,
        Option(
            "--keep-quantized",
            "Tensors of a quantized checkpoint become blocks of a type that holds their values exactly, if one does; "
            "only the rest gets the file type.",
            MODEL,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class PartChoices:
    """Which part of a checkpoint a file is made of."""

    mmproj: Annotated[
        bool,
        Option(
            "--mmproj",
            "Only the encoders of pictures and sound, with the projector into the language model. "
            "The usual name of the file begins with mmproj-.",
            MODEL,
        ),
    ] = False

    mtp: Annotated[
        bool,
        Option(
            "--mtp",
            "Only the layers that predict further tokens, with what they share: a draft model for speculative "
            "decoding. The usual name of the file begins with mtp-.",
            MODEL,
        ),
    ] = False
    no_mtp: Annotated[
        bool, Option("--no-mtp --no-nextn", "Leave out the layers that predict further tokens.", MODEL)
    ] = False
    dspark: Annotated[
        bool,
        Option(
            "--dspark",
            "Only the DSpark draft that a checkpoint of DeepSeek V4 holds; its vocabulary comes from "
            "--target-model-dir.",
            MODEL,
        ),
    ] = False
    sentence_transformers_dense_modules: Annotated[
        bool,
        Option(
            "--sentence-transformers-dense-modules",
            "With the dense modules of sentence-transformers, which an embedding goes through in the end: for "
            "EmbeddingGemma.",
            MODEL,
        ),
    ] = False

    fuse_qkv: Annotated[
        bool, Option("--fuse-qkv", "Queries, keys and values of a layer as one tensor, where they are several.", MODEL)
    ] = False
    fuse_gate_up_exps: Annotated[
        bool,
        Option("--fuse-gate-up-exps", "Gates and ups of a layer's experts as one tensor, where they are two.", MODEL),
    ] = False

    @property
    def part(self) -> Literal["text", "mmproj"]:
        """The part of the model."""
        return "mmproj" if self.mmproj else "text"


def file_types_option(default: str) -> Option:
    """The option for file types, of a command that takes `default` without it."""
    return Option(
        "-t --type --outtype",
        "File type, in any case; several with commas or by repeating it, all of a kind as 'Q4_*', or all. "
        f"[default: {default}] One of {TYPE_NAMES}; COPY keeps all types of a GGUF file, and Q3_K, "
        "Q4_K and Q5_K are Q3_K_M, Q4_K_M and Q5_K_M. `gguf-forge types MODEL` compares them.",
        OUTPUT,
        metavar="TYPE",
        values="file types",
        parse=parse_types,
    )


BaseModel = Annotated[
    str | None,
    Option(
        "--base",
        "For a LoRA adapter: the folder of its base model, of which config.json is enough. [default: the one that the "
        "adapter names, if it is here]",
        MODEL,
        metavar="FOLDER",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Request(FileChoices, PartChoices, ModelHints):
    """Files to make of a model: the arguments and options of `gguf-forge convert`. It can be written down as JSON.

    Attributes:
        source: A Hugging Face folder, or a GGUF file (the first one of a split).
        out: A file, a folder, a name with `{ftype}` in it; None for the usual name.
        types: File types; none for the default. `mmproj:BF16` is one for a part of the model.
        parts: The parts of the model that become files, or `all`. Without them there is one file for each type.

    Raises:
        UsageError: a value that is not of its field's type. Paths are taken as text, and lists as tuples.

    Example:
        >>> Request(source="Qwen3-0.6B", types=("Q4_K_M",), tensor_type=("ffn_down=q6_k",)).pure
        False
    """

    source: Annotated[
        str,
        Option("SOURCE", "A Hugging Face folder: config.json, tokenizer files, .safetensors files. Or a GGUF file."),
    ]
    out: Annotated[
        str | None,
        Option(
            "-o --outfile",
            "A file, a folder, or a name with {ftype} in it, or {FTYPE} for capitals. A name that ends in a slash is a "
            "folder; missing folders are made. [default: NAME-TYPE.gguf in the current folder; for a GGUF file, "
            "ggml-model-TYPE.gguf next to it]",
            OUTPUT,
            metavar="OUT",
        ),
    ] = None
    types: Annotated[tuple[str, ...], file_types_option("Q4_K_M; for a checkpoint that is quantized itself, auto")] = ()
    bigendian: Annotated[
        bool,
        Option(
            "--bigendian",
            "A file for big-endian machines, of type auto, F32, F16, BF16, Q8_0, TQ1_0 or TQ2_0. [default type: auto] "
            "The quantized ones are those of llama.cpp's converter, which has no mix.",
            OUTPUT,
        ),
    ] = False
    parts: Annotated[
        tuple[str, ...],
        Option(
            "--parts",
            "Several parts of the model, read once and written together: all, or some of main, mmproj (--mmproj), mtp "
            "(--mtp), dspark (--dspark) and lora-TASK (adapters that the checkpoint holds). -t mmproj:Q8_0,F16 names "
            "the types of one part; types without a part are for main, or for the only part. By default mmproj is auto "
            "(16 bits), drafts have main's types, and adapters are F32. The options of the mix and of the split are "
            "for main and drafts.",
            OUTPUT,
            metavar="PART,PART...",
            parse=parse_names,
        ),
    ] = ()
    vocab_only: Annotated[bool, Option("--vocab-only", "Metadata and vocabulary, no tensors.", MODEL)] = False
    base_model: BaseModel = None
    base_model_id: Annotated[
        str | None,
        Option(
            "--base-model-id",
            "For a LoRA adapter, instead of --base: the base model's name on the hub. Its config.json is taken from "
            "the hub's cache on this machine, and the file's general.name is that name.",
            MODEL,
            metavar="ID",
        ),
    ] = None

    @property
    def byte_order(self) -> Literal["<", ">"]:
        """The byte order of the files, as NumPy writes it."""
        return ">" if self.bigendian else "<"

    @property
    def choices(self) -> frozenset[str]:
        """The choices that are passed to declarations, as in `Site.choices`.

        Raises:
            UsageError: two of them exclude each other.
        """
        if self.mtp + self.no_mtp + self.dspark > 1:
            raise UsageError("--mtp, --no-mtp and --dspark exclude each other", hint="make a file with each")
        named = {
            "mtp_only": self.mtp,
            "no_mtp": self.no_mtp,
            "dspark": self.dspark,
            "dense_modules": self.sentence_transformers_dense_modules,
            "no_community_template": self.disable_mistral_community_chat_template,
            "as_reference": self.as_reference,
            "fuse_qkv": self.fuse_qkv,
            "fuse_gate_up_exps": self.fuse_gate_up_exps,
        }
        return frozenset(name for name, is_chosen in named.items() if is_chosen)

    def __post_init__(self) -> None:
        for name, kind in _field_types().items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind))

    @classmethod
    def of(cls, *choices: RecipeChoices | SplitChoices | PartChoices | ModelHints, source: str, **more: Any) -> Request:
        """A request that takes those of its fields that `choices` has from there."""
        return cls(source=source, **{name: value for part in choices for name, value in vars(part).items()}, **more)

    def as_json(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as JSON values."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {field.name: found[field.name] for field in fields(self) if found[field.name] != field.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_json(cls, value: Any, file: Path) -> Request:
        """Reads what `as_json` wrote. `file` is named in errors.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(value, dict):
            raise InputError("the request is not an object", file=file)
        unknown = sorted(value.keys() - _field_types().keys())
        if unknown:
            raise InputError(f"the request has an option {printable(unknown[0])!r}, which is not known", file=file)
        if "source" not in value:
            raise InputError("the request lacks a source", file=file)
        try:
            return cls(**value)
        except UsageError as error:
            raise InputError(error.words.problem, file=file) from error


def refuse_unknown(function: Callable[..., Any], given: Iterable[str]) -> None:
    """Raises TypeError, as Python itself does, if a keyword is neither one of `function` nor a field of `Request`.

    Args:
        function: The public function that was called.
        given: The keywords that its signature does not name.
    """
    known = {*_field_types(), *signature(function).parameters}
    for name in given:
        if name not in known:
            near = get_close_matches(name, sorted(known), 1)
            more = f". Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {printable(name)!r}{more}")


@cache
def _field_types() -> Mapping[str, Any]:
    return get_type_hints(Request)


def _checked(name: str, value: Any, wanted: Any) -> Any:
    """A value as JSON can have it: a path as text, texts as a tuple. Raises UsageError if it is not what is wanted."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if wanted == tuple[str, ...]:
        texts = (value,) if isinstance(value, str) else () if value is None else value
        if isinstance(texts, list | tuple) and all(isinstance(text, str | os.PathLike) for text in texts):
            if len(texts) > MOST_PATTERNS:
                raise UsageError(f"the request's {name} has {len(texts):,} texts; {MOST_PATTERNS:,} are read")
            return tuple(_usable(name, os.fspath(text)) for text in texts)
    elif type(value) in (get_args(wanted) or (wanted,)):  # in Python a bool is also an int, so the types are compared
        return _usable(name, value) if isinstance(value, str) else value
    described = wanted.__name__ if isinstance(wanted, type) else str(wanted)
    raise UsageError(f"the request's {name} is {value!r:.80}, and should be {described}")


def _usable(name: str, text: str) -> str:
    """A text as a command line can have it: bytes that the system takes, without NUL, and not longer than a path."""
    try:
        is_usable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_usable = False
    if not is_usable:
        raise UsageError(f"the request's {name} {printable(text)} has a character that no command line can have")
    if len(text) > _LONGEST_TEXT:
        raise UsageError(f"the request's {name} has {len(text):,} characters; {_LONGEST_TEXT:,} are read")
    return text
