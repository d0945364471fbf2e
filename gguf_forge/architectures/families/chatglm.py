"""ChatGLM 3, and GLM-4 in its older form."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import f32, file_type, flag, u32
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import TokenizerSource, chatglm, chatglm3, either


def _is_chatglm3(source: TokenizerSource) -> bool:
    return "THUDM/chatglm3-6b" in str(source.config.get("_name_or_path", ""))


def _width(site: Site) -> int:
    return site.config.integer("hidden_size", "n_embed")


def _heads(site: Site) -> int:
    return site.config.integer("n_head", "num_attention_heads")


def _or(default: Callable[[Site], float], *keys: str) -> Callable[[Site], object]:
    """The value of the first key that exists, or the default."""

    def value(site: Site) -> object:
        return site.config.find(*keys) if any(key in site.config for key in keys) else default(site)

    return value


def _rotated(site: Site) -> int:
    own = site.config.find("attention_dim")
    width = site.config.integer("attention_dim") if own else _width(site) // _heads(site)
    return int(width * site.config.rope_number("partial_rotary_factor", 0.5))


chatglm_model = Architecture(
    "chatglm",
    hf=("ChatGLMModel", "ChatGLMForConditionalGeneration"),
    metadata=(
        u32("context_length", _or(_width, "seq_length")),
        u32("embedding_length", _width),
        u32("feed_forward_length", _or(lambda site: 4 * _width(site), "ffn_hidden_size", "intermediate_size")),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", _heads),
        u32("attention.head_count_kv", _or(_heads, "multi_query_group_num", "num_key_value_heads")),
        f32("attention.layer_norm_rms_epsilon", _or(lambda site: 1e-5, "layernorm_epsilon")),
        file_type,
        u32("rope.dimension_count", _rotated),
        flag("tokenizer.ggml.add_bos_token", lambda site: False),
        f32("rope.freq_base", lambda site: 10000 * site.config.number("rope_ratio", default=1)),
    ),
    tokenizer=either(_is_chatglm3, chatglm3, chatglm),
    renames=(*WRAPPERS, starts("transformer.", put_back=True)),
    drops=(Drop("rotary_pos_emb.inv_freq"),),
    # The config of the older form has other keys for the sizes, so the shapes are not checked.
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)

# The newer form, for which transformers has a class.
glm = chatglm_model.derive("chatglm", hf=("GlmForCausalLM",), renames=WRAPPERS, drops=())
