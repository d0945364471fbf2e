"""HRM-Text: two stacks of layers, a slow and a fast one, that take turns. Norms have no weights."""

from __future__ import annotations

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import half, keep, part_of
from gguf_forge.architectures.renames import Appended, inside, starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import bpe

# As many layers as any other model may have.
_MOST_TURNS = 10_000
_ATTENTION = ("attn_gate", "attn_q", "attn_k", "attn_v")


def _with_stack(site: Site) -> Config:
    """The config with the number of layers of one stack, for which some configs have another key."""
    return site.config.updated(n_layers=site.config.get("num_layers_per_stack") or site.config.block_count)


def _turns(site: Site) -> int:
    """The number of layers that a token passes through. Each has its own keys and values, so the file counts all."""
    cycles = site.config.integer("H_cycles"), site.config.integer("L_cycles")
    turns = site.config.block_count * cycles[0] * (cycles[1] + 1)
    if turns > _MOST_TURNS:
        raise InputError(f"a token passes through {turns} layers, more than {_MOST_TURNS}", file="config.json")
    return turns


hrm_text = Architecture(
    "hrm_text",
    hf=("HrmTextForCausalLM",),
    metadata=(
        *DECODER,
        u32("rope.dimension_count", lambda site: site.config.head_dim),
        f32("embedding_scale", "embedding_scale"),
        u32("hrm.layers_per_stack", "n_layers"),
        u32("hrm.h_cycles", "H_cycles"),
        u32("hrm.l_cycles", "L_cycles"),
        flag("hrm.prefix_lm", lambda site: bool(site.config.get("prefix_lm", False))),
    ),
    tokenizer=bpe,
    # The layers of the fast stack come first.
    renames=(
        starts("model.L_module.layers.", "model.layers."),
        Appended("model.H_module.layers.{i}."),
        inside(".attn.", ".self_attn."),
    ),
    rules=(
        Rule(("model.z_L_init",), "hrm.z_l_init", keep),
        *(
            Rule(("model.layers.{i}.self_attn.gqkv_proj.weight",), f"blk.{{i}}.{role}.weight", part_of(number, 4))
            for number, role in enumerate(_ATTENTION)
        ),
        Rule(("model.layers.{i}.mlp.gate_up_proj.weight",), "blk.{i}.ffn_gate.weight", half(0)),
        Rule(("model.layers.{i}.mlp.gate_up_proj.weight",), "blk.{i}.ffn_up.weight", half(1)),
    ),
    prepare=_with_stack,
    block_count=_turns,
    model_tensors=("token_embd", "output", "hrm.z_l_init"),
    layer_tensors=lambda site: (
        (*_ATTENTION, "attn_output", *GATED) if (site.layer or 0) < 2 * site.config.block_count else ()
    ),
)
