"""Qwen3-TTS beside its language model: the encoder of a voice, the predictor of codes, and their decoder to sound."""

from __future__ import annotations

import re
from collections.abc import Callable

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Operation, Rule
from gguf_forge.architectures.metadata import f32, flag, text, u32
from gguf_forge.architectures.operations import add, chain, keep, multiply, neg_exp, squeeze, stack
from gguf_forge.architectures.projector import (
    MOST_LAYERS,
    always,
    as_f16,
    as_f32,
    projector,
    text_width,
)
from gguf_forge.architectures.renames import OneWay
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.arithmetic import Reciprocal
from gguf_forge.tensors.codebook import Codebook
from gguf_forge.tensors.expression import TensorExpr

_CODE, _WAV = "talker.code_predictor.", "wav.decoder."
_CODEBOOKS = 15
_BOTH = ("weight", "bias")


def _with_width(site: Site) -> Config:
    width = site.config.part("talker_config").integer("hidden_size")
    return site.config.updated(text_config={"hidden_size": width})


def _predictor(site: Site) -> Config:
    return site.config.part("talker_config").part("code_predictor_config")


def _of_predictor(key: str) -> Callable[[Site], object]:
    return lambda site: _predictor(site).get(key)


def _counted_block(name: str, site: Site) -> str:
    """Counts the blocks of the decoder of sound from 0. Checkpoints count the convolution before them as 0."""
    found = re.match(r"wav\.decoder\.decoder\.([0-9]{1,3})\.block\.", name)
    return name if found is None else f"{_WAV}block.{int(found[1]) - 1}.{name[found.end() :]}"


def _reciprocal(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    (x,) = sources
    return Reciprocal(x)


def _codebooks(site: Site) -> int:
    return _CODEBOOKS


def _codebook(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    half = len(sources) // 2
    books = tuple(Codebook(sums, counts) for sums, counts in zip(sources[:half], sources[half:], strict=True))
    return books[0] if half == 1 else stack(site, *books)


_EXP = chain(neg_exp, multiply(-1))
# An activation is x + sin(alpha x)^2 / beta, whose parameters are stored as logarithms.
_SNAKE: dict[str, Operation] = {"alpha": _EXP, "beta": chain(_EXP, add(1e-9), _reciprocal)}


def _plain(first: int, source: str, target: str, suffixes: tuple[str, ...] = ("weight",)) -> tuple[Rule, ...]:
    return tuple(Rule((f"{_WAV}{source}.{end}",), f"a.gen.wav.{target}.{end}", keep, first=first) for end in suffixes)


def _snake(first: int, source: str, target: str) -> tuple[Rule, ...]:
    return tuple(
        Rule((f"{_WAV}{source}.{end}",), f"a.gen.wav.{target}.{end}", operation, first=first)
        for end, operation in _SNAKE.items()
    )


def _quantizer(name: str, layer: str) -> tuple[Rule, ...]:
    source, target = f"{_WAV}quantizer.rvq_{name}.", f"a.gen.wav.quant.{name}."
    books = tuple(f"{source}vq.layers.{layer}._codebook.{part}" for part in ("embedding_sum", "cluster_usage"))
    return (
        *(
            Rule((f"{source}{part}put_proj.weight",), f"{target}{part}_proj.weight", squeeze, first=1)
            for part in ("in", "out")
        ),
        Rule(books, f"{target}codebook.weight", _codebook, first=1, count=_codebooks),
    )


_OF_LAYER = {
    "input_layernorm": "ln1",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "self_attn.o_proj": "attn_out",
    "self_attn_layer_scale": "ls1",
    "post_attention_layernorm": "ln2",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
    "mlp_layer_scale": "ls2",
}
_UPSAMPLING = {
    "0.conv": "conv",
    "1.dwconv.conv": "dwconv",
    "1.norm": "norm",
    "1.pwconv1": "pw1",
    "1.pwconv2": "pw2",
}


def _sound_rules() -> tuple[Rule, ...]:
    """The decoder of sound, in the order of the file."""
    tfm, up, block = "pre_transformer.", "upsample.{i}.", "block.{i}."
    rules = [
        *_quantizer("first", "0"),
        *_quantizer("rest", "{e}"),
        *_plain(1, "pre_conv.conv", "pre_conv", _BOTH),
        *_plain(1, f"{tfm}input_proj", "tfm.in_proj", _BOTH),
        *_plain(1, f"{tfm}output_proj", "tfm.out_proj", _BOTH),
        *_plain(1, f"{tfm}norm", "tfm.output_norm"),
    ]
    for source, target in _OF_LAYER.items():
        end = "scale" if source.endswith("scale") else "weight"
        place = f"a.gen.wav.tfm.blk.{{i}}.{target}.weight"
        rules.append(Rule((f"{_WAV}{tfm}layers.{{i}}.{source}.{end}",), place, keep, first=2))
    for source, target in _UPSAMPLING.items():
        rules += _plain(3, up + source, f"up.blk.{{i}}.{target}", _BOTH)
    rules.append(Rule((f"{_WAV}{up}1.gamma",), "a.gen.wav.up.blk.{i}.gamma", keep, first=3))
    rules += _plain(4, "decoder.0.conv", "dac.entry", _BOTH)
    rules += _snake(5, f"{block}0", "dac.blk.{i}.snake")
    rules += _plain(5, f"{block}1.conv", "dac.blk.{i}.conv", _BOTH)
    for number in range(3):
        for part in (1, 2):
            source, target = f"{block}{number + 2}.", f"dac.blk.{{i}}.res.{number}."
            rules += _snake(5, f"{source}act{part}", f"{target}act{part}")
            rules += _plain(5, f"{source}conv{part}.conv", f"{target}conv{part}", _BOTH)
    return (*rules, *_snake(6, "decoder.5", "dac.post_snake"), *_plain(6, "decoder.6.conv", "dac.post_conv", _BOTH))


def _layer(site: Site) -> tuple[str, ...]:
    """What each layer of the predictor has. It alone says how many layers it has."""
    if (site.layer or 0) >= _predictor(site).integer("num_hidden_layers"):
        return ()
    return tuple(f"a.gen.code.blk.{{i}}.{role}" for source, role in _OF_LAYER.items() if "scale" not in source)


_LAYER = f"{_CODE}model.layers.{{i}}."
_TRAINING = ("_codebook.initialized", "_codebook.inited")

qwen3_tts = projector(
    "Qwen3TTSForConditionalGeneration",
    metadata=(
        flag("has_audio_encoder", always(True)),
        text("audio.projector_type", always("qwen3tts_spkenc")),
        u32("audio.projection_dim", text_width),
        u32("audio.num_mel_bins", always(128)),
        # The encoder has no attention. These numbers let llama.cpp load it.
        u32("audio.block_count", always(3)),
        u32("audio.embedding_length", always(1536)),
        u32("audio.attention.head_count", always(1)),
        u32("audio.feed_forward_length", always(1536)),
        f32("audio.attention.layer_norm_epsilon", always(1e-5)),
        flag("has_gen_audio_encoder", always(True)),
        text("gen.audio.projector_type", always("qwen3tts_gen")),
        u32("gen.audio.projection_dim", text_width),
        u32("gen.audio.embedding_length", _of_predictor("hidden_size")),
        u32("gen.audio.feed_forward_length", _of_predictor("intermediate_size")),
        u32("gen.audio.block_count", _of_predictor("num_hidden_layers")),
        u32("gen.audio.attention.head_count", _of_predictor("num_attention_heads")),
        u32("gen.audio.attention.head_count_kv", _of_predictor("num_key_value_heads")),
        f32("gen.audio.attention.layer_norm_epsilon", _of_predictor("rms_norm_eps")),
    ),
    modules={"speech_tokenizer/model.safetensors": "wav."},
    prepare=_with_width,
    takes=lambda name: (
        (name.startswith(("speaker_encoder.", _CODE, _WAV)) and not name.endswith(_TRAINING))
        or name == "talker.model.codec_embedding.weight"
    ),
    renames=(OneWay(_counted_block),),
    names={
        "talker.model.codec_embedding.weight": "a.gen.code.out_embd.weight",
        f"{_CODE}model.norm": "a.gen.code.output_norm",
        f"{_CODE}small_to_mtp_projection": "a.gen.code.proj_in",
        **{_LAYER + source: f"a.gen.code.blk.{{i}}.{target}" for source, target in _OF_LAYER.items()},
        **{f"{_LAYER}self_attn.{part}_norm": f"a.gen.code.blk.{{i}}.attn_{part}_norm" for part in "qk"},
        "speaker_encoder.blocks.{i}.res2net_block.blocks.{e}.conv": "a.blk.{i}.res2.{e}",
    },
    rules=(
        *_sound_rules(),
        *(
            Rule((f"{_CODE}{source}.{{e}}.weight",), f"a.gen.code.{target}.weight", stack, count=_codebooks)
            for source, target in (("model.codec_embedding", "embd"), ("lm_head", "head"))
        ),
    ),
    # llama.cpp's convolutions have no kernels for bfloat16, and float16 is too small for what goes into the last matrix
    forced_types={
        **dict.fromkeys(("a.gen.wav.pre_conv", "a.gen.wav.dac.entry", "a.gen.wav.dac.post_conv"), as_f16),
        **dict.fromkeys(("a.gen.wav.up.blk.{i}.dwconv", "a.gen.wav.dac.blk.{i}.res.*.conv?"), as_f16),
        **dict.fromkeys(("a.gen.wav.up.blk.{i}.conv", "a.gen.wav.dac.blk.{i}.conv"), as_f32),
        "a.gen.code.blk.{i}.ffn_down": as_f32,
    },
    block_count=always(MOST_LAYERS),
    layer_tensors=_layer,
    model_tensors=("a.gen.code.embd", "a.gen.wav.quant.first.codebook"),
)
