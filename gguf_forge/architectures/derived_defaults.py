"""Values that transformers' config classes compute from other values, such as the number of key/value heads.

Source: the constructors in transformers/models/*/configuration_*.py of transformers 4.57.6.
"""

from __future__ import annotations

from typing import Any

from gguf_forge.architectures.derivations import (
    Derivation,
    Values,
    alternating,
    every,
    exaone4_layer,
    falcon_width,
    gemma3_window,
    gemma3n,
    has_rope,
    head_dim,
    if_null,
    key_value_heads,
    layer_types_fit,
    lfm2_layer,
    llama4_layers,
    mamba_head_dim,
    mamba_inner,
    modernbert_decoder_layer,
    modernbert_decoder_window,
    ones,
    pair,
    per_layer,
    phimoe_rope,
    product,
    rank,
    ratio,
    rope_factors_are_floats,
    rope_has_one_name,
    rope_is_linear_or_dynamic,
    rope_is_long,
    rope_is_plain_for_mrope,
    rope_is_whole,
    same,
    same_if_null,
    set_to,
    slides_if_windowed,
    smollm3_layer,
    times,
    upper_layers_slide,
    window_in_use,
    zamba2,
    zamba_layers,
)

# Derivations and the model types that they are for. They are applied in this order.
_ROWS: tuple[tuple[tuple[Derivation, ...], str], ...] = (
    ((falcon_width,), "falcon"),
    ((pair("image_size"), pair("patch_size")), "internvl_vision"),
    ((same_if_null("num_kv_heads", "num_attention_heads"),), "falcon"),
    ((if_null("ffn_hidden_size", product(4, "hidden_size")),), "falcon"),
    (
        (key_value_heads,),
        "apertus arcee aria_text bamba bitnet blt.encoder_config blt.decoder_config code_llama cohere cohere2 csm "
        "deepseek_v2 deepseek_v3 diffllama doge dots1 efficientloftr ernie4_5 falcon_h1 flex_olmo glm4v_text gpt_oss "
        "granite granitemoe granitemoehybrid granitemoeshared hunyuan_v1_dense hunyuan_v1_moe jamba "
        "kyutai_speech_to_text llama llama4_text longcat_flash minimax ministral mistral mixtral moshi olmo olmo2 "
        "olmo3 olmoe parakeet_encoder phi phi3 phi4_multimodal phimoe qwen2 qwen2_5_omni.thinker_config.text_config "
        "qwen2_5_omni.talker_config qwen2_5_vl_text qwen2_vl_text qwen3 "
        "qwen3_omni_moe.talker_config.code_predictor_config qwen3_vl_moe_text qwen3_vl_text recurrent_gemma seed_oss "
        "smollm3 zamba2",
    ),
    (
        (head_dim,),
        "arcee aria_text code_llama csm diffllama ernie4_5 gpt_oss kyutai_speech_to_text llama llama4_text mimi moshi "
        "nemotron qwen3_vl_moe_text seed_oss",
    ),
    ((same("head_dim", "qk_rope_head_dim"),), "deepseek_v2 deepseek_v3"),
    ((set_to("head_dim", ratio("hidden_size", "num_attention_heads")),), "pixtral"),
    (
        (window_in_use,),
        "qwen2 qwen2_5_omni.thinker_config.text_config qwen2_5_omni.talker_config qwen2_5_vl_text qwen2_moe "
        "qwen2_vl_text qwen3 qwen3_moe qwen3_omni_moe.talker_config.code_predictor_config",
    ),
    (
        (upper_layers_slide,),
        "dots1 qwen2 qwen2_5_omni.thinker_config.text_config qwen2_5_omni.talker_config qwen2_5_vl_text "
        "qwen2_vl_text qwen3 qwen3_omni_moe.talker_config.code_predictor_config",
    ),
    ((gemma3_window,), "gemma3_text"),
    ((alternating,), "gemma2 gpt_oss t5gemma.encoder vaultgemma"),
    ((per_layer("layer_types", every(6, "sliding_attention", key="sliding_window_pattern")),), "gemma3_text"),
    ((per_layer("layer_types", every(5, "sliding_attention")), gemma3n), "gemma3n_text"),
    ((per_layer("layer_types", every(4, "sliding_attention", key="sliding_window_pattern")),), "cohere2"),
    ((per_layer("layer_types", every(4, "sliding_attention")),), "olmo3"),
    ((per_layer("layer_types", exaone4_layer),), "exaone4"),
    ((per_layer("layer_types", slides_if_windowed),), "ministral"),
    ((per_layer("layer_types", modernbert_decoder_layer), modernbert_decoder_window), "modernbert-decoder"),
    ((per_layer("layer_types", every(2, "full_attention", "linear_attention")),), "minimax"),
    ((per_layer("layer_types", every(4, "linear_attention", key="full_attention_interval")),), "qwen3_next"),
    ((per_layer("layer_types", lfm2_layer),), "lfm2"),
    ((llama4_layers,), "llama4_text"),
    ((per_layer("no_rope_layers", has_rope), per_layer("layer_types", smollm3_layer)), "smollm3"),
    (
        (layer_types_fit,),
        "cohere2 dots1 exaone4 gemma2 gemma3_text gemma3n_text gpt_oss llama4_text minimax qwen2 "
        "qwen2_5_omni.thinker_config.text_config qwen2_5_omni.talker_config qwen2_5_vl_text qwen2_vl_text qwen3 "
        "qwen3_next qwen3_omni_moe.talker_config.code_predictor_config smollm3 t5gemma.encoder vaultgemma",
    ),
    ((mamba_head_dim,), "bamba falcon_h1 granitemoehybrid"),
    (
        (
            *ones("attention_in_multiplier", "attention_out_multiplier", "key_multiplier"),
            *ones("ssm_in_multiplier", "ssm_out_multiplier"),
            if_null("mlp_multipliers", lambda _: [1.0] * 2),
            if_null("ssm_multipliers", lambda _: [1.0] * 5),
        ),
        "falcon_h1",
    ),
    ((rank("mamba_dt_rank"),), "jamba zamba"),
    ((mamba_inner,), "falcon_mamba mamba"),
    ((rank("time_step_rank"),), "falcon_mamba mamba mamba2"),
    ((if_null("intermediate_size", product(4, "hidden_size")),), "rwkv zamba2"),
    ((set_to("num_attention_heads", times("num_key_value_heads", "num_experts_per_tok")),), "jetmoe"),
    ((zamba_layers, if_null("attention_head_dim", ratio("hidden_size", "num_attention_heads", times=2))), "zamba"),
    ((zamba2,), "zamba2"),
    ((same_if_null("num_decoder_layers", "num_layers"),), "longt5 mt5 pop2piano switch_transformers t5 udop umt5"),
    ((same_if_null("context_length", "prediction_length"),), "autoformer informer time_series_transformer"),
    (
        (same("num_hidden_layers", "encoder_layers"),),
        "qwen2_5_omni.thinker_config.audio_config qwen2_audio_encoder qwen3_omni_moe.thinker_config.audio_config",
    ),
    (
        (same("partial_rotary_factor", "rotary_pct"), same("rope_theta", "rotary_emb_base")),
        "gpt_neox gpt_neox_japanese",
    ),
    ((same("image_size", "crop_size"),), "vjepa2"),
    (
        (rope_has_one_name, rope_is_whole),
        "apertus arcee aria_text code_llama csm deepseek_v2 deepseek_v3 dia.encoder_config dia.decoder_config "
        "diffllama doge ernie4_5 ernie4_5_moe evolla flex_olmo glm4_moe glm4v_moe.text_config glm4v_moe_text "
        "glm4v_text gpt_neox gpt_neox_japanese gpt_oss llama longcat_flash olmoe persimmon phi qwen2 qwen2_moe qwen3 "
        "qwen3_moe "
        "qwen3_omni_moe.talker_config.code_predictor_config qwen3_omni_moe.talker_config.text_config "
        "qwen3_omni_moe.thinker_config.text_config seed_oss smollm3 stablelm starcoder2",
    ),
    ((rope_factors_are_floats,), "deepseek_v3 longcat_flash"),
    (
        (rope_is_plain_for_mrope, rope_has_one_name, rope_is_whole),
        "qwen2_5_omni.thinker_config.text_config qwen2_5_vl_text qwen2_vl_text",
    ),
    (
        (rope_is_whole,),
        "cohere cohere2 efficientloftr emu3.text_config gemma3_text gemma3n_text granite granitemoe granitemoeshared "
        "mllama.text_config moonshine olmo3 qwen3_next qwen3_vl_moe_text qwen3_vl_text",
    ),
    ((rope_is_linear_or_dynamic,), "chameleon olmo olmo2 open-llama"),
    ((rope_is_long,), "phi3 phi4_multimodal"),
    ((phimoe_rope, rope_is_whole), "phimoe"),
    (
        (set_to("head_dim", ratio("hidden_size", "num_attention_heads")),),
        "blt.encoder_config blt.decoder_config cohere2 recurrent_gemma",
    ),
    (
        (same("num_hidden_layers", "encoder_layers"),),
        "bart bigbird_pegasus blenderbot blenderbot-small conditional_detr dab-detr detr fsmt led m2m_100 marian mbart "
        "mvp nllb-moe pegasus pegasus_x plbart speech_to_text table-transformer whisper",
    ),
    (
        (same("num_hidden_layers", "decoder_layers"),),
        "mask2former oneformer seamless_m4t seamless_m4t_v2 speech_to_text_2",
    ),
    ((same("num_attention_heads", "decoder_attention_heads"),), "seamless_m4t seamless_m4t_v2"),
    (
        (
            same("hidden_size", "d_model"),
            same("num_hidden_layers", "num_layers"),
            same("num_attention_heads", "num_heads"),
        ),
        "pop2piano",
    ),
    ((set_to("d_head", ratio("d_model", "n_head")),), "xlnet"),
)


def _by_model_type() -> dict[str, tuple[Derivation, ...]]:
    found: dict[str, tuple[Derivation, ...]] = {}
    for derivations, model_types in _ROWS:
        for model_type in model_types.split():
            found[model_type] = (*found.get(model_type, ()), *derivations)
    return found


_DERIVATIONS = _by_model_type()


def derive(model_type: str, values: Values) -> dict[str, Any]:
    """The values after the derivations of a model type's config class.

    Raises:
        TypeError, ValueError, ArithmeticError, LookupError: the class refuses such values.
    """
    derived = dict(values)
    for derivation in _DERIVATIONS.get(model_type, ()):
        derived.update(derivation(derived))
    return derived
