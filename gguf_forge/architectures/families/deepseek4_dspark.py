"""DSpark drafts of DeepSeek V4: layers as the model's, without the compressed kinds of attention."""

from __future__ import annotations

import re

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.families.deepseek4 import BLK, HEAD, LAYER, OF_LAYER, deepseek4
from gguf_forge.architectures.families.dflash import mask_token, target_layers, target_vocabulary
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import stack
from gguf_forge.architectures.renames import OneWay
from gguf_forge.architectures.site import Site
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer import TokenizerSource, in_order

# Keys that only files of whole models have.
_OF_MODELS = ("embedding_length_out", "nextn_predict_layers")
# Tensors of a draft that belong to none of its layers, although their names begin with a layer's number.
_OF_DRAFT = {
    "main_proj.weight": "fc.weight",
    "main_norm.weight": "enc.output_norm.weight",
    "markov_head.markov_w1.weight": "markov_w1.weight",
    "markov_head.markov_w2.weight": "markov_w2.weight",
    "confidence_head.proj.weight": "conf_proj.weight",
    "norm.weight": "output_norm.weight",
    **{f"hc_head_{name}": f"output_hc_{name}.weight" for name in HEAD},
}


def _in_layer(name: str, site: Site) -> str:
    """Renames the tensors of the draft's stages, which are its layers."""
    found = re.fullmatch(r"mtp\.([0-9]{1,4})\.(.+)", name)
    if found is None:
        return name
    return found[2] if found[2] in _OF_DRAFT else f"model.layers.{found[1]}.{found[2]}"


def _stages(site: Site) -> int:
    found = (re.match(r"mtp\.([0-9]{1,4})\.(.+)", name) for name in site.tensors)
    return 1 + max((int(name[1]) for name in found if name and name[2] not in _OF_DRAFT), default=-1)


def _without_kinds_of_layers(site: Site) -> Config:
    return site.config.updated(compress_ratios=[0] * _stages(site), num_hash_layers=0)


def _noise_token(source: TokenizerSource) -> Metadata:
    return mask_token(source, source.config.get("dspark_noise_token_id"), "dspark_noise_token_id")


deepseek4_dspark = deepseek4.derive(
    "dflash",
    hf=("DeepseekV4DSparkModel",),
    takes=lambda name: name.startswith("mtp."),
    metadata=(
        *(line for line in deepseek4.metadata if getattr(line, "key", "") not in _OF_MODELS),
        u32("block_size", "dspark_block_size"),
        u32("target_layers", target_layers("dspark_target_layer_ids")),
    ),
    tokenizer=in_order(target_vocabulary, _noise_token),
    vocabulary_of_target=True,
    renames=(OneWay(_in_layer),),
    names={**_OF_DRAFT, **{LAYER + name: BLK + role for name, role in OF_LAYER.items()}},
    rules=tuple(rule for rule in deepseek4.rules if rule.operation is stack),
    drops=tuple(Drop(f"{LAYER}ffn.gate.{name}") for name in ("bias_vl", "tid2eid")),
    prepare=_without_kinds_of_layers,
    block_count=_stages,
    choices=frozenset(("dspark",)),
    model_tensors=("fc", "enc.output_norm", "output_norm"),
)
