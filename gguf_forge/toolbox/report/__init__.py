"""`gguf_forge.report`: a page of charts about a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path

from gguf_forge.engine.threads import Progress
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.planning.making import files_of_sources
from gguf_forge.planning.open_model import open_origin
from gguf_forge.planning.parts import for_part_of
from gguf_forge.request import Request
from gguf_forge.storage.local.held_folder import made_folder
from gguf_forge.storage.local.publish import check_output, published
from gguf_forge.toolbox.report.data import Report
from gguf_forge.toolbox.report.gather import Origin, gather


def report(
    file: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    source: str | PathLike[str] | None = None,
    drop_tensor: Sequence[str] = (),
    lora: Sequence[str] = (),
    base_model: str | PathLike[str] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda n_bytes: None,
) -> Report:
    """Looks at every tensor of a GGUF file, and draws a page of it.

    Args:
        file: The file, or the first one of a split.
        out: The page: one HTML file that needs no other. None for no page.
        source: What the file was made of: a Hugging Face folder, or a GGUF file of more bits. With it, the report
            says how far every tensor is from its source.
        drop_tensor: Patterns of names of a checkpoint's tensors that are left out of the source.
        lora: Adapters that are merged into the source, as ADAPTER or ADAPTER:SCALE.
        base_model: The folder of the base model of a source that is an adapter.
        threads: Defaults to the processors this process may use.
        overwrite: Replace an existing page.
        progress: Told the bytes of tensors as they are done: all of them once, and once more with a source.

    Returns:
        The data behind the page.

    Raises:
        InputError: a file is damaged.
        UsageError: nothing of the file can be compared with the source.
        RefusedError: the page exists, or is one of the inputs.
        ForgeError: what else was wrong, where, and what to do.

    Example:
        >>> found = report("Qwen3-0.6B-Q4_K_M.gguf", "page.html", source="Qwen3-0.6B")  # doctest: +SKIP
        >>> max(found.tensors, key=lambda tensor: tensor.error.relative).name  # doctest: +SKIP
    """
    with ExitStack() as opened:
        gguf = opened.enter_context(open_gguf(file))
        origin = None
        if source is not None:
            origin = opened.enter_context(_origin(gguf, source, drop_tensor, lora, base_model))
        target = Path(out) if out is not None else None
        folder = None
        if target is not None:
            folder = opened.enter_context(made_folder(target.parent))
            read = files_of_sources(source, base_model, *lora)
            inputs = (*gguf.paths, *(origin.files if origin else ()), *read)
            check_output(target, 0, inputs, overwrite=overwrite, folder=folder, content="a page")
        found = gather(gguf, origin, threads=threads, progress=progress)
        gguf.check_unchanged()
        if target is not None:
            from gguf_forge.toolbox.report.page import page

            drawn = page(found).encode()
            with published(target, len(drawn), overwrite=overwrite, folder=folder) as written:
                written.write_at(0, memoryview(drawn))
    return found


@contextmanager
def _origin(
    gguf: GgufFile,
    source: str | PathLike[str],
    drop_tensor: Sequence[str],
    lora: Sequence[str],
    base_model: str | PathLike[str] | None,
) -> Iterator[Origin]:
    """The tensors of a source by the names that the GGUF file has for them, as long as its files are open."""
    with open_origin(source, base=base_model, drop_tensor=drop_tensor, lora=lora) as model:
        names = [tensor.name for tensor in gguf.tensors]
        request = for_part_of(gguf.metadata, names, model, Request(source=os.fspath(source)))
        yield Origin(model.name, model.tensors(request))
        model.check_unchanged()
