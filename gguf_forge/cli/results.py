"""What commands show of planned and written files: text for people, objects for scripts."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from gguf_forge.cli.options import Messages
from gguf_forge.cli.streams import print_data, print_json, tell
from gguf_forge.cli.tables import duration, facts_text, line, table_of
from gguf_forge.planning.file_plan import FilePlan, WrittenFile
from gguf_forge.storage.paths import nearest_folder
from gguf_forge.storage.profile import PHASE_WORDS, PHASES, Profile
from gguf_forge.tensors.dequantized import stored_as

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from gguf_forge.cli.tables import Table
    from gguf_forge.distributed.job import Job


def show_plans(files: Sequence[FilePlan], messages: Messages, job: Job | None = None, *, summary: bool = False) -> None:
    """Planned files, and the job whose plan was written, if there is one; with `summary` only the sizes of files."""
    if messages.json:
        shown = {"files": [_without_tensors(file) if summary else plan_object(file) for file in files]}
        print_json(shown if job is None else {**shown, "plan": _job_object(job)})
    elif not messages.quiet:
        texts = () if summary else (*_spaced(map(plan_text, files)), *([""] if len(files) > 1 else []))
        print_data(*texts, *(_sizes_of_files(files) if summary or len(files) > 1 else ()))
        if job is not None:
            print_data("", _job_text(job))


def _job_object(job: Job) -> dict[str, Any]:
    return {
        "path": str(job.file),
        "tasks": [{"task": task, "size": sum(part.size for part in job.parts(task))} for task in range(job.n_tasks)],
    }


def _job_text(job: Job) -> Text:
    sizes = [sum(part.size for part in job.parts(task)) for task in range(job.n_tasks)]
    span = decimal(max(sizes)) if min(sizes) == max(sizes) else f"{decimal(min(sizes))} to {decimal(max(sizes))}"
    file = shlex.quote(str(job.file))
    last = f" ... {job.n_tasks - 1}" if job.n_tasks > 1 else ""
    joined = sum(parts[-1].piece.stop for parts in job.parts_of_outputs if len(parts) > 1)
    steps = {
        "plan": f"{job.file}: {job.n_tasks} tasks of {span}"
        + (f"; {decimal(joined)} more to join them" if joined else ""),
        "each task": f"gguf-forge job work {file} --task 0{last}",
        "last": f"gguf-forge job finish {file}",
    }
    return facts_text(steps, no_wrap=True)


def show_results(results: Sequence[WrittenFile], messages: Messages, profile: Profile | None = None) -> None:
    """Shows the written files. A profile is part of the JSON object, or is printed on standard error."""
    if messages.json:
        shown = {"files": [result_object(result) for result in results]}
        print_json(shown if profile is None else {**shown, "profile": profile.as_object()})
        return
    if not messages.quiet:
        print_data(*(result_text(results[0]) if len(results) == 1 else _results_text(results)))
    if profile is not None:
        tell("", _profile_table(profile), "", line((_profile_words(profile), "dim")))


def _without_tensors(file: FilePlan) -> dict[str, Any]:
    return {key: value for key, value in plan_object(file).items() if key != "tensors"}


def plan_object(file: FilePlan) -> dict[str, Any]:
    """A planned file. Sizes are in bytes; shapes in GGUF order, the row length first."""
    return {
        "path": str(file.path),
        "part": file.part,
        "type": file.file_type.name,
        "size": file.size,
        "source_size": file.source_bytes,
        "bits_per_weight": round(file.bits_per_weight, 4),
        "types": file.types,
        "fallbacks": file.fallbacks,
        "fallback_share": round(file.fallback_share, 6),
        "kept": file.kept,
        "warnings": file.warnings,
        "parts": [
            {"path": str(shard.path), "size": shard.layout.size, "tensors": len(shard.sources)} for shard in file.shards
        ],
        "disk": {"needed": file.size, "free": _free(file.path.parent)},
        "tensors": [
            {
                "name": info.name,
                "shape": info.shape,
                "source_type": stored_as(source.expr),
                "type": info.type.name,
                "nbytes": info.nbytes,
                "rule": file.rules.get(info.name),
            }
            for info, source in zip(file.tensors, file.sources, strict=True)
        ],
    }


def result_object(result: WrittenFile) -> dict[str, Any]:
    """A written file: what was planned, the seconds it took, and what an earlier run had finished."""
    return {
        **plan_object(result.file),
        "seconds": round(result.seconds, 3),
        "resumed_tensors": result.resumed_tensors,
        "was_complete": result.was_complete,
    }


def plan_text(file: FilePlan) -> Iterator[RenderableType]:
    """A table of every tensor of a file, with the totals."""
    ruled = ("decided by",) if file.rules else ()
    spare = ("from", "shape", *ruled)
    tensors = table_of("tensor", "shape", "from", "type", "size", *ruled, right=("shape", "size"), spare=spare)
    fallbacks = set(file.fallbacks)
    for info, source in zip(file.tensors, file.sources, strict=True):
        tensors.add_row(
            info.name,
            " x ".join(map(str, info.shape)),
            stored_as(source.expr),
            line((info.type.name, "yellow" if info.name in fallbacks else _style(info.type.is_float))),
            decimal(info.nbytes),
            *(line((file.rules.get(info.name, ""), "dim")) for _ in ruled),
        )
    facts = {
        **_sizes(file),
        "tensors": _counts(file),
        **_kept(file),
        "disk": _disk(file.path.parent, file.size),
    }
    yield _title(file)
    if file.tensors:
        yield from ("", tensors)
    yield from _parts(file)
    yield from ("", facts_text(facts), *_fallback_note(file))


def result_text(result: WrittenFile) -> Iterator[RenderableType]:
    """The closing table of one file."""
    file = result.file
    seconds = max(result.seconds, 1e-9)
    read, wrote = (decimal(int(n / seconds)) for n in (file.source_bytes, file.size))
    facts = {**_sizes(file), **_kept(file), "time": duration(result.seconds)}
    if result.resumed_tensors:  # a speed would be wrong: an earlier run read and wrote some of these bytes
        facts["resumed"] = f"{result.resumed_tensors} of {len(file.tensors)} tensors were finished by an earlier run"
    else:
        facts["speed"] = f"{read}/s read, {wrote}/s written"
    yield from (_title(file), "", facts_text(facts))
    yield from _parts(file)
    if file.tensors:
        yield from ("", _types(file))
    yield from _fallback_note(file)


def _results_text(results: Sequence[WrittenFile]) -> Iterator[RenderableType]:
    """One table for the files of a run, which were written together."""
    yield from _sizes_of_files([result.file for result in results], written=True)
    seconds = max(result.seconds for result in results)
    facts = {"time": duration(seconds)}
    resumed = sum(result.resumed_tensors for result in results)
    if resumed:
        facts["resumed"] = f"{resumed} tensors were finished by an earlier run"
    yield from ("", facts_text(facts))
    for result in results:
        yield from _fallback_note(result.file, f"{result.path.name}: ")


def _sizes_of_files(files: Sequence[FilePlan], *, written: bool = False) -> Iterator[RenderableType]:
    """The sizes of several files side by side."""
    numbers = ("size", "of source", "bits")
    has_parts = len({file.part for file in files}) > 1
    table = table_of(*(("part",) if has_parts else ()), "type", *numbers, "file", right=numbers)
    for file in files:
        bits = f"{file.bits_per_weight:.2f}" if file.tensors else ""
        share = f"{file.size / file.source_bytes:.0%}" if file.source_bytes else ""
        parts = f" ({len(file.shards)} parts)" if len(file.shards) > 1 else ""
        part = (file.part,) if has_parts else ()
        name = line((f"{file.path}{parts}", "bold green"))
        table.add_row(*part, file.file_type.name, decimal(file.size), share, bits, name)
    yield table
    if not written:
        yield from ("", line(f"all files: {_disk(files[0].path.parent, sum(file.size for file in files))}"))


def _title(file: FilePlan) -> Text:
    return line((str(file.path), "bold green"), f"  {file.file_type}", no_wrap=True)


def _sizes(file: FilePlan) -> dict[str, str]:
    weights = sum(info.n_elements for info in file.tensors)
    if not weights:
        return {"size": decimal(file.size)}
    share = file.size / file.source_bytes
    return {
        "size": f"{decimal(file.source_bytes)} -> {decimal(file.size)} ({share:.0%})",
        "bits per weight": f"{8 * file.source_bytes / weights:.2f} -> {file.bits_per_weight:.2f}",
    }


def _counts(file: FilePlan) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in file.types.items())
    return f"{len(file.tensors)}: {counts}" if counts else "none"


def _kept(file: FilePlan) -> dict[str, str]:
    """How many tensors keep the blocks of the source, if that was wished."""
    if file.kept is None:
        return {}
    names = set(file.kept)
    kept = [info for info in file.tensors if info.name in names]
    share = sum(info.n_elements for info in kept) / max(1, sum(info.n_elements for info in file.tensors))
    types = ", ".join(f"{n} {name}" for name, n in Counter(info.type.name for info in kept).most_common())
    counts = f"{len(kept)} of {len(file.tensors)} tensors ({share:.1%} of the weights)"
    return {"kept blocks": f"{counts}: {types}" if kept else counts}


def _types(file: FilePlan) -> Table:
    counts = ("tensors", "weights", "size")
    table = table_of("type", *counts, right=counts, header_style="dim")
    weights, sizes = Counter[str](), Counter[str]()
    for info in file.tensors:
        weights[info.type.name] += info.n_elements
        sizes[info.type.name] += info.nbytes
    for name, size in sizes.most_common():
        share = weights[name] / weights.total()
        table.add_row(name, str(file.types[name]), f"{share:.1%}", decimal(size))
    return table


def _profile_table(profile: Profile) -> Table:
    """The seconds of each phase, one line for each thread, and how many of these seconds a processor worked."""
    used = [phase for phase in PHASES if any(watch.seconds[phase] for watch in profile.watches)]
    table = table_of("seconds", *used, right=used)
    for watch in profile.watches:
        table.add_row(watch.thread, *(_seconds(watch.seconds[phase]) for phase in used))
    busy = (sum(watch.busy[phase] for watch in profile.watches) for phase in used)
    table.add_row("processor busy", *map(_seconds, busy), style="dim")
    return table


def _profile_words(profile: Profile) -> str:
    """What the columns of the table mean, in one line."""
    used = [phase for phase in PHASES if any(watch.seconds[phase] for watch in profile.watches)]
    return "; ".join(f"{phase}: {PHASE_WORDS[phase]}" for phase in used) + "; busy: a processor worked on it"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds else ""


def _parts(file: FilePlan) -> Iterator[RenderableType]:
    """The files of a split one."""
    if len(file.shards) == 1:
        return
    table = table_of("part", "tensors", "size", right=("tensors", "size"), header_style="dim")
    for shard in file.shards:
        table.add_row(shard.path.name, str(len(shard.sources)), decimal(shard.layout.size))
    yield from ("", table)


def _fallback_note(file: FilePlan, name: str = "") -> Iterator[RenderableType]:
    """A note on tensors that got another type than the mix names, because their rows do not divide into its blocks.

    Among several files, `name` says of which one.
    """
    if not file.fallbacks:
        return
    have = "has" if len(file.fallen) == 1 else "have"
    types = ", ".join(f"{n} {name}" for name, n in Counter(info.type.name for info in file.fallen).most_common())
    yield ""
    yield line(
        ("fallback: ", "bold yellow"),
        name,
        f"{len(file.fallen)} of {len(file.tensors)} tensors ({file.fallback_share:.1%} of the weights) {have} another "
        f"type than the mix names, because their row length is not a multiple of its block size: {types}",
    )


def _disk(folder: Path, needed: int) -> str:
    free = _free(folder)
    return f"{decimal(needed)} needed" + (f", {decimal(free)} free" if free is not None else "")


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(nearest_folder(folder)).free
    except OSError:
        return None


def _style(is_float: bool) -> str:
    return "dim" if is_float else ""


def _spaced(texts: Iterable[Iterable[RenderableType]]) -> Iterator[RenderableType]:
    for number, text in enumerate(texts):
        if number:
            yield ""
        yield from text
