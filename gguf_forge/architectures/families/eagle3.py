"""EAGLE-3: draft models of one Llama layer, which read the outputs of some layers of their target."""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.metadata import flag, u32
from gguf_forge.architectures.operations import token_table
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.architectures.shapes import DECODER_SHAPES, keys, queries
from gguf_forge.architectures.site import Site

# The config key under which checkpoints of the speculators library describe the layer itself.
_NESTED = "transformer_layer_config"
_LAYER_IDS = "eagle_aux_hidden_state_layer_ids"


def _merged(raw: Mapping[str, object]) -> Config:
    nested = raw.get(_NESTED)
    return Config.raw({**raw, **nested}) if isinstance(nested, dict) else Config.of(raw)


def _is_draft(config: Config) -> bool:
    """Whether the model is a draft, which the class name does not always tell: one layer, and an own vocabulary."""
    nested = config.find(_NESTED)
    layers = (nested if isinstance(nested, dict) else config).get("num_hidden_layers")
    return "draft_vocab_size" in config and layers == 1


def _target_layers(site: Site) -> list[int]:
    if site.config.find(_LAYER_IDS):
        return site.config.integers(_LAYER_IDS)
    count = site.named_target().config.block_count
    return [2, count // 2, count - 3]


def _target_width(site: Site) -> object:
    own = site.config.find("target_hidden_size")
    return site.named_target().config.integer("hidden_size") if own is None else own


eagle3 = llama.derive(
    "eagle3",
    hf=llama.hf,
    when=_is_draft,
    read_config=_merged,
    early=(
        u32("target_layers", _target_layers),
        u32("target_hidden_size", _target_width),
        flag("norm_before_residual", lambda site: site.config.get("norm_before_residual", False)),
        flag("norm_before_fc", lambda site: site.config.get("norm_before_fc", False)),
    ),
    tokenizer=llama_vocabulary("eagle3"),
    vocabulary_of_target=True,
    renames=(
        *WRAPPERS,
        starts("midlayer.", "model.layers.0."),
        starts("layers.0.", "model.layers.0.", put_back=False),
    ),
    names={
        "fc": "fc",
        "input_norm": "enc.output_norm",
        "model.layers.{i}.hidden_norm": "blk.{i}.attn_norm_2",
        "norm": "output_norm",
    },
    rules=(token_table("d2t", lambda site: site.named_target().config.integer("vocab_size")),),
    drops=(Drop("t2d"),),
    # The input of attention is the embedding joined with the target's state.
    shapes={**DECODER_SHAPES, "attn_q": (queries, None), "attn_k": (keys, None), "attn_v": (keys, None)},
    model_tensors=("fc", "output_norm"),
    layer_tensors=lambda site: (*ATTENTION, "attn_norm_2", "ffn_norm", *GATED),
)
