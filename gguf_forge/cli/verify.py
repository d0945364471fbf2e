"""`gguf-forge verify`: a GGUF file is proved right, or shown where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.help import PROVE
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.shown import rule_object
from gguf_forge.cli.tables import facts_text, line, lines, table_of
from gguf_forge.cli.token_check import MISMATCH, CheckTokens, TokenTexts, texts_to_check, tokens_object
from gguf_forge.errors import printable
from gguf_forge.file_choices import AsReference, RecipeChoices
from gguf_forge.option import MESSAGES, MIX, Option
from gguf_forge.request import BaseModel, ModelHints, PartChoices, Request
from gguf_forge.run_settings import RunSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gguf_forge.toolbox.verify.checksums import SumsCheck
    from gguf_forge.toolbox.verify.differences import Differences, DifferentByte
    from gguf_forge.toolbox.verify.verdict import TensorCheck
    from gguf_forge.toolbox.verify.verify import Verification

_AGAINST = "What it is compared with"

_MOST_ROWS = 20
_NO_SOURCE = "not compared with a source"
_UNSEEN = " (only --source or --check-sums shows changed weights)"


@dataclass(frozen=True, kw_only=True)
class VerifyChoices:
    """The options of `verify`: what the file is compared with, and how the file was made."""

    source: Annotated[
        Path | None,
        Option(
            "--source",
            "The model that FILE was made of. FILE is made again, a few rows at a time, and compared byte by byte.",
            _AGAINST,
            metavar="DIR|GGUF",
        ),
    ] = None
    check_sums: Annotated[
        Path | None,
        Option(
            "--check-sums",
            "A file of checksums: of --write-sums, llama-gguf-hash (not its xxh64), sha256sum, sha1sum or md5sum. "
            "Lines for other files do not count. Or the SHA-256 of FILE itself, as 64 digits.",
            _AGAINST,
            metavar="SUMS|SHA256",
        ),
    ] = None
    write_sums: Annotated[
        Path | None,
        Option(
            "--write-sums",
            "Write the checksums of each tensor and of the file, if nothing is wrong with it.",
            _AGAINST,
            metavar="SUMS",
            writes=True,
        ),
    ] = None
    check_tokens: CheckTokens = False
    token_texts: TokenTexts = None
    as_reference: AsReference = False
    only_tensors: Annotated[bool, Option("--only-tensors", "Leave out the metadata.", _AGAINST)] = False
    allow_fused: Annotated[
        bool,
        Option(
            "--allow-fused",
            "Accept a file that differs only because of fused multiply-add, such as one made by llama.cpp on arm64.",
            _AGAINST,
        ),
    ] = False
    type: Annotated[
        str | None,
        Option(
            "-t --type --outtype",
            "The file type it should have. [default: the file's own, and each tensor's own type]",
            MIX,
            metavar="TYPE",
            values="file types",
        ),
    ] = None
    base_type: Annotated[
        str | None,
        Option(
            "--base-type",
            "The type of the file that was quantized: F32, F16 or BF16. [default: the checkpoint's own]",
            MIX,
            metavar="TYPE",
            values="float types",
        ),
    ] = None
    base_model: BaseModel = None
    all: Annotated[
        bool,
        Option("--all", "List all tensors and how each is made, not only those that differ.", MESSAGES),
    ] = False


def register(app: typer.Typer) -> None:
    add_command(app, "verify", verify, panel=PROVE)


def verify(
    file: Annotated[Path, Option("FILE", "A GGUF file, or the first one of a split.")],
    comparison: VerifyChoices,
    recipe: RecipeChoices,
    parts: PartChoices,
    hints: ModelHints,
    run: Annotated[RunSettings, only("overwrite", "threads", "backend")],
    messages: Messages,
) -> None:
    """Check a GGUF file: its structure, its blocks, its checksums, and every byte against its source.

    What the options leave open is read from the file: its file type, and the type of each tensor. The exit code is 7
    if anything differs.

    Examples:

    - `gguf-forge verify model-Q4_K_M.gguf`
    - `gguf-forge verify model-Q4_K_M.gguf --source Qwen3-0.6B`
    - `gguf-forge verify model-Q4_K_M.gguf --source Qwen3-0.6B --check-tokens`
    - `gguf-forge verify model-IQ3_S.gguf --source model-BF16.gguf --imatrix imatrix.gguf`
    - `gguf-forge verify model.gguf --write-sums model.gguf.sums`
    - `gguf-forge verify model.gguf --check-sums model.gguf.sums --json | jq .ok`
    """
    from gguf_forge.cli.progress import counting
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.toolbox.verify.checksums import write_sums

    request = _request(comparison, recipe, parts, hints)
    found = _verified(file, request, comparison, run, messages)
    is_right = found.ok or (comparison.allow_fused and found.only_fused)
    if messages.json:
        print_json(_object(found, is_right))
    elif not messages.quiet:
        print_data(*_text(found, is_right, with_all=comparison.all))
    if not is_right:
        raise typer.Exit(MISMATCH)
    sums = comparison.write_sums
    if sums is not None:
        with counting("hashing", 3 * found.size, messages) as progress:
            write_sums(file, sums, threads=run.threads, overwrite=run.overwrite, progress=progress)
        if not (messages.json or messages.quiet):
            print_data(facts_text({"checksums": f"written to {sums}"}))


def _request(comparison: VerifyChoices, recipe: RecipeChoices, parts: PartChoices, hints: ModelHints) -> Request | None:
    """What the file was made of, and how; None if it is not compared with a source."""
    from gguf_forge.toolbox.verify.verify import refuse_recipe_without_source

    given = comparison
    if given.source is not None:
        types = (given.type,) if given.type else ()
        more: dict[str, Any] = {"as_reference": given.as_reference, "base_model": given.base_model}
        return Request.of(recipe, parts, hints, source=str(given.source), types=types, **more)
    of_the_file = (given.type, given.base_type, given.base_model)
    of_the_comparison = (given.only_tensors, given.allow_fused, given.as_reference)
    has_recipe = (recipe, parts, hints) != (RecipeChoices(), PartChoices(), ModelHints())
    if has_recipe or any((*of_the_file, *of_the_comparison)):
        refuse_recipe_without_source()
    return None


def _sources(request: Request) -> Iterator[str | PathLike[str] | None]:
    """What a request reads."""
    yield from (request.source, request.base_model, request.target_model_dir, *request.lora)
    yield from (request.imatrix, request.metadata, request.tensor_type_file)


def _verified(
    file: Path, request: Request | None, comparison: VerifyChoices, run: RunSettings, messages: Messages
) -> Verification:
    from gguf_forge.cli.progress import counting
    from gguf_forge.planning.making import files_of_sources
    from gguf_forge.recipe import Options
    from gguf_forge.recipe.requested import options_of
    from gguf_forge.storage.local.publish import check_output
    from gguf_forge.toolbox.verify.checksums import SUMS
    from gguf_forge.toolbox.verify.verify import open_to_verify
    from gguf_forge.toolbox.verify.verify import verify as verify_file

    options = options_of(request) if request is not None else Options()
    with open_to_verify(file, of_source=request is not None) as gguf:
        size = sum(tensor.nbytes for tensor in gguf.tensors)
        if comparison.write_sums is not None:
            read = (comparison.check_sums, *_sources(request)) if request is not None else (comparison.check_sums,)
            inputs = (*gguf.paths, *files_of_sources(*read))
            check_output(comparison.write_sums, 0, inputs, overwrite=run.overwrite, content=SUMS)
    passes = 1 + (request is not None) + 3 * (comparison.check_sums is not None)
    with counting("verifying", passes * size, messages) as progress:
        return verify_file(
            file,
            request,
            run,
            options,
            base_type=comparison.base_type,
            sums=comparison.check_sums,
            only_tensors=comparison.only_tensors,
            texts=texts_to_check(is_asked=comparison.check_tokens, file=comparison.token_texts),
            progress=progress,
        )


def _object(found: Verification, is_right: bool) -> dict[str, Any]:
    """Sizes are in bytes; rows and blocks count from 0."""
    from gguf_forge.cli.key_differences import key_object

    sums = found.sums
    source = None
    if found.verdict is not None:
        source = {
            "verdict": found.verdict.value,
            "sentences": found.sentences,
            "notes": found.notes,
            "metadata": [key_object(each) for each in found.keys],
            "names": [key_object(each) for each in found.names],
            "out_of_order": found.order,
            "tensors": [_tensor_object(check) for check in found.tensors],
        }
    return {
        "ok": is_right,
        "files": [str(path) for path in found.paths],
        "size": found.size,
        "tensors": found.n_tensors,
        "problems": [vars(problem) for problem in found.problems],
        "broken_rules": list(map(rule_object, found.broken)),
        "sums": None if sums is None else {"ok": sums.ok, **vars(sums)},
        "tokens": None if found.tokens is None else tokens_object(found.tokens),
        "source": source,
    }


def _tensor_object(check: TensorCheck) -> dict[str, Any]:
    info, found = check.info, check.differences
    return {
        "name": info.name,
        "shape": info.shape,
        "type": info.type.name,
        "verdict": check.verdict.value,
        "made_of": check.sources,
        "steps": check.steps,
        "expected": check.expected,
        "explanation": check.explanation,
        "blocks": check.blocks,
        "differences": None if found is None else _differences_object(found),
    }


def _differences_object(found: Differences) -> dict[str, Any]:
    return {
        "blocks": found.blocks,
        "bytes": found.bytes,
        "fields": found.fields,
        "first": found.first and vars(found.first),
        "judged_blocks": found.judged,
        "odd_blocks": found.odd_blocks,
        "first_odd": found.first_odd and vars(found.first_odd),
        "misplaced_values": found.misplaced,
        "cosine": round(found.errors.cosine, 6),
        "expected_cosine": round(found.errors.expected_cosine, 6),
    }


def _text(found: Verification, is_right: bool, *, with_all: bool) -> Iterator[RenderableType]:
    from rich.filesize import decimal

    from gguf_forge.cli.key_differences import keys_table

    style = "bold green" if is_right else "bold red"
    yield line((str(found.paths[0]), "bold"), "  ", (_word(found, is_right), style), no_wrap=True)
    facts = {
        "size": decimal(found.size) + (f" in {len(found.paths)} files" if len(found.paths) > 1 else ""),
        "tensors": str(found.n_tensors),
        "structure": "ok" if not found.problems else f"{len(found.problems)} problems",
    }
    if found.sums is not None:
        facts["checksums"] = f"{found.sums.matching} match" + _other_sums(found.sums)
    if found.tokens is not None:
        facts["tokens"] = found.tokens.sentences[0]
    facts["source"] = " ".join(found.sentences) or _NO_SOURCE + ("" if found.sums is not None else _UNSEEN)
    yield facts_text(facts)
    for problem in found.problems:
        where = f"{problem.file}: " + (f"{problem.tensor}: " if problem.tensor else "")
        yield line((f"{problem.kind}: ", "bold red"), where, problem.what)
    if found.sums is not None:
        for title, names in (("wrong", found.sums.different), ("not there", found.sums.missing)):
            yield from (line((f"{title}: ", "bold red"), name) for name in names)
        if found.sums.unnamed:
            yield line(("without a checksum: ", "bold red"), ", ".join(found.sums.unnamed))
    for sentence in found.tokens.sentences[1:] if found.tokens is not None else ():
        yield line(("token: ", "bold red"), sentence)
    for note in (*(broken.everywhere().as_written for broken in found.broken), *found.notes):
        yield line(("note: ", "dim"), note)
    first = found.first
    if first is not None:
        yield from ("", line(("the first tensor that differs", "bold")), _first_text(first))
    shown = [check for check in found.tensors if with_all or check.verdict.value != "identical"]
    if shown and (with_all or len(shown) > 1):
        yield from ("", *_tensors_table(shown, with_all=with_all))
    if found.keys or found.names:
        yield from ("", keys_table(found.keys or found.names, "expected", "found"))
    if found.order:
        yield line(("order of tensors: ", "bold red"), f"another one stands at the place of {found.order}")
    if found.tensors and not with_all:
        yield from ("", _ways(found))


def _word(found: Verification, is_right: bool) -> str:
    """The verdict in a few words. A file that was compared with nothing is not called verified."""
    is_compared = found.verdict is not None or found.sums is not None
    if is_right:
        return "verified" if is_compared else "no problem found (nothing compared)"
    if found.only_metadata:
        return f"tensors verified; {'metadata differs' if found.keys else 'their order differs'}"
    return "DIFFERS" if is_compared else "problems found"


def _other_sums(sums: SumsCheck) -> str:
    counts = {
        "wrong": len(sums.different),
        "not there": len(sums.missing),
        "without": len(sums.unnamed),
        "for other files": sums.others,
    }
    listed = "" if sums.listed_as is None else f" (listed as {printable(sums.listed_as)})"
    return "".join(f", {count} {what}" for what, count in counts.items() if count) + listed


def _first_text(check: TensorCheck) -> RenderableType:
    info, found = check.info, check.differences
    facts = {
        "tensor": f"{info.name}, {info.type} of {' x '.join(map(str, info.shape))}",
        "made of": _made_of(check),
        "steps": ", ".join(check.steps) or "as it is",
        "verdict": check.verdict.value + (f": {check.explanation} it is the same" if check.explanation else ""),
    }
    if check.expected is not None:
        facts["should be"] = check.expected
    if found is not None and found.first is not None:
        unit = "values" if info.type.block_elements == 1 else "blocks"
        fields = ", ".join(f"{count} in {name}" for name, count in found.fields.items())
        share = 100 * found.blocks / max(1, check.blocks)
        facts["differ"] = f"{found.blocks} of {check.blocks} {unit} ({share:.3g} %), {found.bytes} bytes: {fields}"
        facts["first"] = _place(found.first, check)
        if found.first_odd is not None and found.first_odd != found.first:
            facts["first odd"] = _place(found.first_odd, check)
        facts["cosine"] = (
            f"{found.errors.cosine:.4f} to the source (a correct file would have {found.errors.expected_cosine:.4f})"
        )
    return facts_text({name: text for name, text in facts.items() if text})


def _made_of(check: TensorCheck) -> str:
    names = [printable(name) for name in check.sources]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _place(place: DifferentByte, check: TensorCheck) -> str:
    if check.info.type.block_elements == 1:
        where = f"row {place.row}, column {place.block}"
    else:
        where = f"row {place.row}, block {place.block}, {place.field}"
    return f"{where} (byte {place.offset} of the tensor): {place.found:#04x} instead of {place.expected:#04x}"


def _tensors_table(checks: list[TensorCheck], *, with_all: bool) -> Iterator[RenderableType]:
    counts = ("blocks differ", "of", "bytes")
    spare = ("of", "bytes", "first", "steps") if with_all else ("steps", "of", "bytes", "first")
    columns = ("tensor", "type", "verdict", *counts, "first", "steps")
    table = table_of(*columns, right=counts, folding=("steps",), spare=spare)
    rows = checks if with_all else checks[:_MOST_ROWS]
    for check in rows:
        found = check.differences
        place = found.first if found else None
        table.add_row(
            check.info.name,
            check.info.type.name,
            check.verdict.value,
            str(found.blocks) if found else "",
            str(check.blocks),
            str(found.bytes) if found else "",
            f"{place.row}:{place.block} {place.field}" if place else "",
            ", ".join(check.steps),
        )
    yield table
    if len(rows) < len(checks):
        yield line((f"and {len(checks) - len(rows)} more: --all or --json lists them", "dim"))


def _ways(found: Verification) -> RenderableType:
    """Prints the steps between the source and the file, each different list of steps once."""
    ways = Counter(", ".join(check.steps) or "as they are" for check in found.tensors if check.sources or check.steps)
    title = line(("tensors, from the source to the file", "bold"))
    return lines([title, *(line(f"{count:>7}  {way}") for way, count in ways.most_common())])
