"""Small models of the families whose own checkpoints hold MXFP4 experts, in shapes that no case of the corpus has.

Each is a folder of Hugging Face's form. tests/packed_experts.json has the digests of what llama.cpp's tools make.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthetic import FAMILIES, VOCABULARIES, Tensors, tensor_bytes, write_safetensors

VOCABULARY_SIZE = 512


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model: its width, that of its experts, and its numbers of heads and of experts."""

    width: int
    ff: int
    heads: int
    experts: int


@dataclass(frozen=True)
class Family:
    """A family of models with packed experts.

    Attributes:
        config: Its config.json.
        tensors: The tensors of its layers and around them.
        vocabulary: The folder of tests/vocabularies with its tokenizer.
        pre_tokenizer: The pre-tokenizer that the vocabulary needs.
    """

    config: Callable[[Sizes], Mapping[str, Any]]
    tensors: Callable[[Sizes], Tensors]
    vocabulary: str
    pre_tokenizer: str


def _described(family: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((FAMILIES / family / "config.json").read_text())
    return config


def _bf16(*shape: int) -> tuple[str, list[int]]:
    return "BF16", list(shape)


def _f32(*shape: int) -> tuple[str, list[int]]:
    return "F32", list(shape)


def _around(width: int, embed: str, norm: str, head: str) -> Tensors:
    return {embed: _bf16(VOCABULARY_SIZE, width), norm: _bf16(width), head: _bf16(VOCABULARY_SIZE, width)}


def _experts(sizes: Sizes, names: tuple[str, str, str], width: int) -> Iterator[tuple[int, str, int, int]]:
    """Number, name, rows and columns of the gate, the down projection and the up projection of each expert."""
    for number in range(sizes.experts):
        for name, is_down in zip(names, (False, True, False), strict=True):
            yield number, name, *((width, sizes.ff) if is_down else (sizes.ff, width))


# GPT-OSS: blocks and scales of all experts of a layer, with gate and up interleaved.


def _gpt_oss_config(sizes: Sizes) -> Mapping[str, Any]:
    return _described("gptoss-mxfp4") | {
        "hidden_size": sizes.width,
        "intermediate_size": sizes.ff,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": 1,
        "num_local_experts": sizes.experts,
        "num_hidden_layers": 1,
        "layer_types": ["full_attention"],
    }


def _gpt_oss(sizes: Sizes) -> Tensors:
    head, layer = 32, "model.layers.0."
    heads = {"q_proj": sizes.heads, "k_proj": 1, "v_proj": 1}
    tensors = _around(sizes.width, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    tensors |= {f"{layer}{name}.weight": _bf16(sizes.width) for name in ("input_layernorm", "post_attention_layernorm")}
    for name, count in heads.items():
        tensors[f"{layer}self_attn.{name}.weight"] = _bf16(count * head, sizes.width)
        tensors[f"{layer}self_attn.{name}.bias"] = _bf16(count * head)
    tensors |= {
        f"{layer}self_attn.o_proj.weight": _bf16(sizes.width, sizes.heads * head),
        f"{layer}self_attn.o_proj.bias": _bf16(sizes.width),
        f"{layer}self_attn.sinks": _bf16(sizes.heads),
        f"{layer}mlp.router.weight": _bf16(sizes.experts, sizes.width),
        f"{layer}mlp.router.bias": _bf16(sizes.experts),
    }
    for name, rows, columns in (("gate_up_proj", 2 * sizes.ff, sizes.width), ("down_proj", sizes.width, sizes.ff)):
        of_all = [sizes.experts, rows, columns // 32]
        tensors[f"{layer}mlp.experts.{name}_blocks"] = ("U8", [*of_all, 16])
        tensors[f"{layer}mlp.experts.{name}_scales"] = ("U8", of_all)
        tensors[f"{layer}mlp.experts.{name}_bias"] = _bf16(sizes.experts, rows)
    return tensors


# MiMo V2: experts in MXFP4, other matrices of layers in FP8.


def _mimo_config(sizes: Sizes) -> Mapping[str, Any]:
    heads = {"num_attention_heads": sizes.heads, "num_key_value_heads": 1, "head_dim": 16, "v_head_dim": 8}
    return _described("mimo2") | {
        **heads,
        **{f"swa_{key}": value for key, value in heads.items()},
        "hidden_size": sizes.width,
        "moe_intermediate_size": sizes.ff,
        "n_routed_experts": sizes.experts,
        "num_hidden_layers": 1,
        "hybrid_layer_pattern": [0],
        "moe_layer_freq": [1],
        "quantization_config": {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "store_dtype": "mxfp4",
            "mxfp4_block_size": 32,
            "weight_block_size": [128, 128],
        },
    }


def _mimo(sizes: Sizes) -> Tensors:
    layer, further = "model.layers.0.", "model.mtp.layers."
    tensors = _around(sizes.width, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    for stem in (layer, *(f"{further}{number}." for number in range(3))):
        tensors |= {
            f"{stem}{name}.weight": _bf16(sizes.width) for name in ("input_layernorm", "post_attention_layernorm")
        }
        for name, rows, columns in (
            ("q_proj", 16 * sizes.heads, sizes.width),
            ("k_proj", 16, sizes.width),
            ("v_proj", 8, sizes.width),
            ("o_proj", sizes.width, 8 * sizes.heads),
        ):
            tensors |= _fp8(f"{stem}self_attn.{name}.weight", "_scale_inv", rows, columns, "F32")
    for number in range(3):
        stem = f"{further}{number}."
        tensors |= {f"{stem}{name}.weight": _bf16(sizes.width) for name in ("enorm", "hnorm", "final_layernorm")}
        tensors[f"{stem}eh_proj.weight"] = _bf16(sizes.width, 2 * sizes.width)
        for name, rows, columns in (("gate", 128, sizes.width), ("up", 128, sizes.width), ("down", sizes.width, 128)):
            tensors |= _fp8(f"{stem}mlp.{name}_proj.weight", "_scale_inv", rows, columns, "F32")
    tensors[f"{layer}mlp.gate.weight"] = _bf16(sizes.experts, sizes.width)
    tensors[f"{layer}mlp.gate.e_score_correction_bias"] = _f32(sizes.experts)
    for number, name, rows, columns in _experts(sizes, ("gate_proj", "down_proj", "up_proj"), sizes.width):
        weight = f"{layer}mlp.experts.{number}.{name}.weight"
        tensors |= {weight: ("U8", [rows, columns // 2]), f"{weight}_scale": ("U8", [rows, columns // 32])}
    return tensors


def _fp8(weight: str, scale_end: str, rows: int, columns: int, kind: str) -> Tensors:
    scale = weight.removesuffix(".weight") + scale_end if scale_end == ".scale" else weight + scale_end
    return {weight: ("F8_E4M3", [rows, columns]), scale: (kind, [-(-rows // 128), -(-columns // 128)])}


# DeepSeek V4: experts in FP4, other matrices in FP8, all with scales that are powers of two.

_HEAD, _Q, _GROUPS, _OUT, _HYPER = 64, 96, 1, 160, 4


def _deepseek4_config(sizes: Sizes) -> Mapping[str, Any]:
    return {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": sizes.width,
        "hc_eps": 1e-06,
        "hc_mult": _HYPER,
        "hc_sinkhorn_iters": 20,
        "head_dim": _HEAD,
        "index_head_dim": 32,
        "index_n_heads": 4,
        "index_topk": 64,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": sizes.ff,
        "n_routed_experts": sizes.experts,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": sizes.heads,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_hash_layers": 1,
        "num_key_value_heads": 1,
        "num_nextn_predict_layers": 0,
        "o_groups": _GROUPS,
        "o_lora_rank": _OUT,
        "q_lora_rank": _Q,
        "qk_rope_head_dim": 16,
        "quantization_config": {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]},
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 16, "original_max_position_embeddings": 256, "type": "yarn"},
        "rope_theta": 10000,
        "compress_rope_theta": 160000,
        "routed_scaling_factor": 1.5,
        "scoring_func": "sqrtsoftplus",
        "sliding_window": 128,
        "swiglu_limit": 10.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY_SIZE,
        "compress_ratios": [0, 0],
        "expert_dtype": "fp4",
    }


def _hyper(stem: str, count: int, width: int, scales: int) -> Tensors:
    return {
        f"{stem}_fn": _f32(count, _HYPER * width),
        f"{stem}_base": _f32(count),
        f"{stem}_scale": _f32(scales),
    }


def _deepseek4_layer(stem: str, sizes: Sizes) -> Tensors:
    tensors = _hyper(f"{stem}hc_attn", (2 + _HYPER) * _HYPER, sizes.width, 3)
    tensors |= _hyper(f"{stem}hc_ffn", (2 + _HYPER) * _HYPER, sizes.width, 3)
    for name, rows, columns in (
        ("attn.wkv", _HEAD, sizes.width),
        ("attn.wq_a", _Q, sizes.width),
        ("attn.wq_b", sizes.heads * _HEAD, _Q),
        ("attn.wo_b", sizes.width, _GROUPS * _OUT),
        ("ffn.shared_experts.w1", sizes.ff, sizes.width),
        ("ffn.shared_experts.w2", sizes.width, sizes.ff),
        ("ffn.shared_experts.w3", sizes.ff, sizes.width),
    ):
        tensors |= _fp8(f"{stem}{name}.weight", ".scale", rows, columns, "F8_E8M0")
    for number, name, rows, columns in _experts(sizes, ("w1", "w2", "w3"), sizes.width):
        expert = f"{stem}ffn.experts.{number}.{name}"
        tensors |= {
            f"{expert}.weight": ("I8", [rows, columns // 2]),
            f"{expert}.scale": ("F8_E8M0", [rows, columns // 32]),
        }
    return tensors | {
        f"{stem}attn.attn_sink": _f32(sizes.heads),
        f"{stem}attn.kv_norm.weight": _bf16(_HEAD),
        f"{stem}attn.q_norm.weight": _bf16(_Q),
        f"{stem}attn.wo_a.weight": _bf16(_GROUPS * _OUT, sizes.heads * _HEAD // _GROUPS),
        f"{stem}attn_norm.weight": _bf16(sizes.width),
        f"{stem}ffn_norm.weight": _bf16(sizes.width),
        f"{stem}ffn.gate.weight": _bf16(sizes.experts, sizes.width),
        f"{stem}ffn.gate.bias": _f32(sizes.experts),
    }


def _deepseek4(sizes: Sizes) -> Tensors:
    tensors = _around(sizes.width, "embed.weight", "norm.weight", "head.weight") | _hyper(
        "hc_head", _HYPER, sizes.width, 1
    )
    for number in range(2):
        tensors |= _deepseek4_layer(f"layers.{number}.", sizes)
    del tensors["layers.0.ffn.gate.bias"]
    return tensors | {"layers.0.ffn.gate.tid2eid": ("I64", [VOCABULARY_SIZE, 2])}


# Kimi K3: routed experts in compressed-tensors' mxfp4-pack-quantized, in a space that is narrower than the model.


def _kimi_config(sizes: Sizes) -> Mapping[str, Any]:
    return {
        "architectures": ["KimiK3ForConditionalGeneration"],
        "model_type": "kimi_k3",
        "text_config": {
            "model_type": "kimi_linear",
            "hidden_size": 128,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.heads,
            "head_dim": _HEAD,
            "vocab_size": VOCABULARY_SIZE,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-05,
            "hidden_act": "situ",
            "activation_situ_beta": 4.0,
            "activation_situ_linear_beta": 7.0,
            "attn_res_block_size": 2,
            "linear_attn_config": {
                "full_attn_layers": [2],
                "kda_layers": [1],
                "head_dim": _HEAD,
                "num_heads": sizes.heads,
                "short_conv_kernel_size": 4,
                "gate_lower_bound": -5.0,
            },
            "q_lora_rank": _Q,
            "kv_lora_rank": 64,
            "qk_nope_head_dim": 48,
            "qk_rope_head_dim": 16,
            "v_head_dim": _HEAD,
            "mla_use_nope": True,
            "mla_use_output_gate": True,
            "num_experts": sizes.experts,
            "num_experts_per_token": 2,
            "num_shared_experts": 1,
            "moe_intermediate_size": sizes.ff,
            "moe_router_activation_func": "sigmoid",
            "moe_renormalize": True,
            "moe_layer_freq": 1,
            "routed_scaling_factor": 2.446,
            "routed_expert_hidden_size": sizes.width,
            "first_k_dense_replace": 0,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "eos_token_id": 2,
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "format": "mxfp4-pack-quantized",
                "config_groups": {
                    "group_0": {
                        "weights": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32},
                        "targets": ["Linear"],
                    }
                },
            },
        },
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def _kimi_layer(stem: str, sizes: Sizes) -> Tensors:
    attention, experts = f"{stem}self_attn.", f"{stem}block_sparse_moe."
    tensors = {
        f"{stem}{name}.weight": _bf16(128)
        for name in ("input_layernorm", "post_attention_layernorm", "mlp_res_norm", "self_attention_res_norm")
    }
    tensors |= {f"{stem}{name}_res_proj.weight": _bf16(1, 128) for name in ("mlp", "self_attention")}
    for number, name, rows, columns in _experts(sizes, ("w1", "w2", "w3"), sizes.width):
        weight = f"{experts}experts.{number}.{name}.weight"
        tensors |= {f"{weight}_packed": ("U8", [rows, columns // 2]), f"{weight}_scale": ("U8", [rows, columns // 32])}
    return tensors | {
        f"{attention}g_proj.weight": _bf16(_HEAD * sizes.heads, 128),
        f"{attention}o_proj.weight": _bf16(128, _HEAD * sizes.heads),
        f"{experts}gate.weight": _bf16(sizes.experts, 128),
        f"{experts}gate.e_score_correction_bias": _f32(sizes.experts),
        f"{experts}routed_expert_down_proj.weight": _bf16(sizes.width, 128),
        f"{experts}routed_expert_norm.weight": _bf16(sizes.width),
        f"{experts}routed_expert_up_proj.weight": _bf16(128, sizes.width),
        f"{experts}shared_experts.down_proj.weight": _bf16(128, sizes.ff),
        f"{experts}shared_experts.gate_proj.weight": _bf16(sizes.ff, 128),
        f"{experts}shared_experts.up_proj.weight": _bf16(sizes.ff, 128),
    }


def _kimi(sizes: Sizes) -> Tensors:
    wide, model = _HEAD * sizes.heads, "language_model.model."
    tensors = _around(128, f"{model}embed_tokens.weight", f"{model}norm.weight", "language_model.lm_head.weight")
    tensors |= {f"{model}output_attn_res_norm.weight": _bf16(128), f"{model}output_attn_res_proj.weight": _bf16(1, 128)}
    first, second = (f"{model}layers.{number}." for number in range(2))
    for stem in (first, second):
        tensors |= _kimi_layer(stem, sizes)
    recurrence = {
        "A_log": _f32(sizes.heads),
        "dt_bias": _f32(wide),
        "b_proj.weight": _bf16(sizes.heads, 128),
        "f_a_proj.weight": _bf16(_HEAD, 128),
        "f_b_proj.weight": _bf16(wide, _HEAD),
        "o_norm.weight": _bf16(_HEAD),
        **{f"{part}_proj.weight": _bf16(wide, 128) for part in "qkv"},
        **{f"{part}_conv1d.weight": _bf16(wide, 1, 4) for part in "qkv"},
    }
    attention = {
        "kv_a_layernorm.weight": _bf16(64),
        "kv_a_proj_with_mqa.weight": _bf16(80, 128),
        "kv_b_proj.weight": _bf16((48 + _HEAD) * sizes.heads, 64),
        "q_a_layernorm.weight": _bf16(_Q),
        "q_a_proj.weight": _bf16(_Q, 128),
        "q_b_proj.weight": _bf16(_HEAD * sizes.heads, _Q),
    }
    tensors |= {f"{first}self_attn.{name}": about for name, about in recurrence.items()}
    return tensors | {f"{second}self_attn.{name}": about for name, about in attention.items()}


PACKED: dict[str, Family] = {
    "gpt-oss": Family(_gpt_oss_config, _gpt_oss, "gpt-oss", "gpt-4o"),
    "mimo2": Family(_mimo_config, _mimo, "llama3", "llama-bpe"),
    "deepseek4": Family(_deepseek4_config, _deepseek4, "qwen2", "deepseek-v3"),
    "kimi-k3": Family(_kimi_config, _kimi, "qwen2", "kimi-k2"),
}
# Odd numbers of blocks in a row, of heads and of experts, and rows that blocks of FP8 cut.
SIZES = (Sizes(96, 160, 3, 3), Sizes(160, 32, 5, 5))


def write_packed(family: str, sizes: Sizes, folder: Path, change: Callable[[Tensors], object] = lambda _: None) -> Path:
    """Writes a model to `folder`, which is made. `change` may edit its tensors."""
    described = PACKED[family]
    shutil.copytree(VOCABULARIES / described.vocabulary, folder)
    (folder / "config.json").write_text(json.dumps(described.config(sizes)))
    tensors = described.tensors(sizes)
    change(tensors)
    write_safetensors(
        folder / "model.safetensors",
        {name: (kind, shape, tensor_bytes(name, kind, shape)) for name, (kind, shape) in sorted(tensors.items())},
    )
    return folder
