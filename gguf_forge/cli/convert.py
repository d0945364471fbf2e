"""`gguf-forge convert`: a checkpoint becomes GGUF files."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from gguf_forge.cli.help import MAKE
from gguf_forge.cli.options import DryRun, Messages, add_command
from gguf_forge.cli.other_tools import SupportedModels, WithoutEffect
from gguf_forge.cli.token_check import CheckTokens, TokenTexts, compare_tokens, texts_to_check
from gguf_forge.errors import UsageError
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings
from gguf_forge.storage.paths import is_folder


def register(app: typer.Typer) -> None:
    add_command(app, "convert", convert, panel=MAKE)


def convert(
    request: Request,
    run: RunSettings,
    messages: Messages,
    ignored: WithoutEffect,
    dry_run: DryRun = False,
    check_tokens: CheckTokens = False,
    token_texts: TokenTexts = None,
    print_supported_models: SupportedModels = False,
) -> None:
    """Convert a Hugging Face folder to a quantized GGUF file, in one pass.

    A GGUF file is a source, too: it is quantized, as `gguf-forge quantize` does it.

    Examples:

    - `gguf-forge convert Qwen3-0.6B`
    - `gguf-forge convert Qwen3-0.6B -o models/ -t Q4_K_M,Q8_0`
    - `gguf-forge convert Qwen3-0.6B -o 'qwen-{ftype}.gguf' --tensor-type 'ffn_down=q6_k'`
    - `gguf-forge convert Qwen3-235B-A22B --split-max-size 50G`
    - `gguf-forge convert gemma-3-4b-it --parts all -t Q4_K_M,Q8_0 -t mmproj:BF16 -o models/`
    - `gguf-forge convert my-finetune --pre-tokenizer qwen2 --check-tokens`
    - `gguf-forge convert Qwen3-0.6B --dry-run --json | jq '.files[0].tensors[].name'`
    """
    del ignored, print_supported_models
    from gguf_forge.cli.making import make_and_show, plan_and_show
    from gguf_forge.cli.streams import is_read, tell
    from gguf_forge.cli.tables import line

    if dry_run:
        plan_and_show(request, run, messages, "converting", only_planned=True)
        return
    texts = texts_to_check(is_asked=check_tokens, file=token_texts)
    if texts is not None and not is_folder(Path(request.source)):
        raise UsageError("tokens are compared with those of a model folder", hint="leave out --check-tokens")
    results = make_and_show(request, run, messages)
    if is_read() and not messages.quiet and not request.types:
        name = results[0].file.file_type.name
        advice = f"{name} is the default type here; `gguf-forge types {shlex.quote(request.source)}` compares all types"
        tell(line((advice, "dim"), no_wrap=True))
    if is_read() and not messages.quiet and request.lora and request.model_name is None:
        tell(line(("the file has the name of the base model; --model-name gives it its own", "dim"), no_wrap=True))
    if texts is not None:
        from gguf_forge.planning.adapters import folder_of_tokenizer

        folder = folder_of_tokenizer(Path(request.source), request.lora)
        compare_tokens(results[0].file.metadata, folder, texts, messages)
