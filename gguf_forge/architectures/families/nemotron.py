"""Nemotron and Minitron: decoders whose norm weights are stored as the difference from 1."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, Lines, f32, u32
from gguf_forge.architectures.operations import add
from gguf_forge.architectures.shapes import heads, hidden
from gguf_forge.architectures.site import Site
from gguf_forge.gguf_file import values
from gguf_forge.tokenizer import in_order, sentencepiece, special_ids


def _rotated(site: Site) -> int:
    return int(site.config.rope_number("partial_rotary_factor") * hidden(site)) // heads(site)


def _scaling(site: Site) -> Lines:
    factor = site.config.find("factor") or site.config.part("rope_parameters").get("factor")
    yield "rope.scaling.type", values.string("none" if factor is None else "linear")
    yield from f32("rope.scaling.factor", lambda _: factor)(site)


nemotron = Architecture(
    "nemotron",
    hf=("NemotronForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        f32(
            "attention.layer_norm_epsilon",
            *("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
        ),
        u32("rope.dimension_count", _rotated),
        _scaling,
    ),
    tokenizer=in_order(sentencepiece, special_ids({"pad": 0, "unk": 1})),
    operations={"*_norm.weight": add(1)},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)
