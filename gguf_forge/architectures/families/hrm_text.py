"""HRM-Text: two stacks of layers, a slow and a fast one, that take turns. Norms have no weights."""

from __future__ import annotations

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import half, keep, part_of
from gguf_forge.architectures.renames import Appended, inside, starts
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe

_ATTENTION = ("attn_gate", "attn_q", "attn_k", "attn_v")


def _with_stack(site: Site) -> Config:
    """The config whose count of layers is that of one stack, which some configs give another name."""
    return site.config.updated(n_layers=site.config.get("num_layers_per_stack") or site.config.block_count)


def _turns(site: Site) -> int:
    """How many layers a token goes through: each has keys and values of its own, and the file counts these."""
    cycles = site.config.integer("H_cycles"), site.config.integer("L_cycles")
    return site.config.block_count * cycles[0] * (cycles[1] + 1)


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
    # the fast stack's layers come first
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
