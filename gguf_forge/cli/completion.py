"""The values of options that a shell completes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gguf_forge.request import TYPE_NAMES


def _tensor_types() -> Iterable[str]:
    from gguf_forge.types.tensor_type import TENSOR_TYPES

    return (kind.name for kind in TENSOR_TYPES.values() if kind.is_target)


def _backends() -> Iterable[str]:
    from gguf_forge.kernels.binding import backends

    return backends()


def _pre_tokenizers() -> Iterable[str]:
    from gguf_forge.tokenizer.pre_tokenizers import known_names

    return known_names()


VALUES: Mapping[str, Callable[[], Iterable[str]]] = {
    "file types": lambda: (*TYPE_NAMES.split(), "COPY", "all"),
    "tensor types": _tensor_types,
    "float types": lambda: ("F32", "F16", "BF16"),
    "backends": _backends,
    "pre-tokenizers": _pre_tokenizers,
}


def completing(values: str) -> Callable[[str], list[str]]:
    """The function that typer asks for what a text may become. Of several with commas, the last one is completed.

    Example:
        >>> completing("file types")("Q8_0,q4_k")
        ['Q8_0,Q4_K_S', 'Q8_0,Q4_K_M']
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in VALUES[values]() if name.lower().startswith(last.lower())]

    return complete
