"""Pocket TTS: a language model of sound's latents, and beside it the encoder of a voice and the two decoders to sound.

The language model takes three vectors that are no tokens of text. They become the last rows of the embeddings.
"""

from __future__ import annotations

import numpy as np

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Architecture, Rule, optional
from gguf_forge.architectures.metadata import DECODER, f32, flag, text, u32
from gguf_forge.architectures.operations import concat, part_of, squeeze
from gguf_forge.architectures.projector import MOST_LAYERS, always, as_f16, audio, of_audio, projector, text_width
from gguf_forge.architectures.site import Site
from gguf_forge.checkpoint.pocket_tts_form import LEARNED, MARK, VOICE
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.network import in_two, product
from gguf_forge.tensors.stored import Constant, StandIn
from gguf_forge.tokenizer import with_learned
from gguf_forge.types.tensor_type import F16

_EMBEDDINGS, _LINEAR = "flow_lm.conditioner.embed.weight", "flow_lm.input_linear.weight"
_LAYER = "flow_lm.transformer.layers.{i}."
# The most bytes of the matrix that latents go through. Released models have 128 KiB.
_MOST_BYTES = 16 << 20


def _embeddings(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Those of text, the vector before a voice if there is one, and the first latent after its matrix."""
    table = sources[0]
    if isinstance(table, StandIn):
        raise UnsupportedError("the first latent of sound went through a matrix that is not in the file")
    width = site.config.integer("hidden_size")
    latent, matrix = site.peek(MARK).reshape(1, -1), site.peek(_LINEAR, _MOST_BYTES)
    if matrix.shape != (width, latent.size):
        raise InputError(f"has the shape {list(matrix.shape)}, not {[width, latent.size]}", tensor=_LINEAR)
    rows = [product(latent, in_two(matrix))]
    if VOICE in site.tensors:
        voice = site.peek(VOICE)
        if voice.size != width:
            raise InputError(f"has {voice.size} values, the embeddings have {width}", tensor=VOICE)
        rows.insert(0, voice.reshape(1, -1))
    learned = np.concatenate(rows)
    if table.dtype == F16:
        with np.errstate(over="ignore"):  # what is not finite is told when it is packed
            learned = learned.astype(np.float16).astype(np.float32)
    return concat(-2)(site, table, Constant(learned))


def _thirds(source: str, target: str) -> tuple[Rule, ...]:
    """Queries, keys and values, which checkpoints store one above the other."""
    return tuple(Rule((source,), target.format(part=part, i="{i}"), part_of(at, 3)) for at, part in enumerate("qkv"))


_OF_LAYER = {"norm1": "attn_norm", "norm2": "ffn_norm", "self_attn.out_proj": "attn_output"}
_DENSE = {"linear1": "ffn_up", "linear2": "ffn_down"}

pocket_tts = Architecture(
    "pockettts",
    hf=("PocketTTSModel",),
    metadata=DECODER,
    tokenizer=with_learned(LEARNED),
    renames=(),
    takes=lambda name: (
        name in (_EMBEDDINGS, MARK, VOICE, _LINEAR)
        or name.startswith(("flow_lm.transformer.layers.", "flow_lm.out_norm."))
    ),
    names={
        "flow_lm.out_norm": "output_norm",
        **{_LAYER + source: f"blk.{{i}}.{target}" for source, target in (_OF_LAYER | _DENSE).items()},
    },
    rules=(
        Rule((_EMBEDDINGS, MARK, optional(VOICE), _LINEAR), "token_embd.weight", _embeddings),
        *_thirds(f"{_LAYER}self_attn.in_proj.weight", "blk.{i}.attn_{part}.weight"),
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)

_OF_SOUND = (
    *("mimi.encoder", "mimi.decoder", "mimi.downsample.", "mimi.upsample.", "mimi.quantizer.output_proj."),
    *("flow_lm.flow_net.", "flow_lm.out_eos.", "flow_lm.emb_", "flow_lm.speaker_proj_weight", _LINEAR),
)
# Each encoder or decoder of waves has so many stages.
_STAGES = range(3)
_FLOW, _NET = "flow_lm.flow_net.", "a.gen.flow."


def _waves(source: str, target: str, scale: str, *, first: int, residual: int) -> dict[str, str]:
    """The convolutions of an encoder or decoder of waves. `first` and `residual` number those of its first stage."""
    found = {f"{source}0.conv": f"{target}conv_in", f"{source}{3 * len(_STAGES) + 2}.conv": f"{target}conv_out"}
    for stage in _STAGES:
        found[f"{source}{first + 3 * stage}.{scale}"] = f"{target}blk.{stage}.scale_conv"
        for inner, number in ((1, 1), (3, 2)):
            block = f"{source}{residual + 3 * stage}.block.{inner}.conv"
            found[block] = f"{target}blk.{stage}.res_conv{number}"
    return found


_OF_MIMI = {"norm1": "ln1", "norm2": "ln2", "self_attn.out_proj": "attn_out", **_DENSE}
_CODERS = {"mimi.encoder_transformer.": "a.", "mimi.decoder_transformer.": "a.gen.wav.tfm."}


def _coders() -> dict[str, str]:
    """The two transformers between waves and latents."""
    found: dict[str, str] = {}
    for source, target in _CODERS.items():
        layer, block = f"{source}transformer.layers.{{i}}.", f"{target}blk.{{i}}."
        found |= {layer + name: block + role for name, role in _OF_MIMI.items()}
        found |= {f"{layer}layer_scale_{number}.scale": f"{block}ls{number}.weight" for number in (1, 2)}
    return found


_SIZES = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
}
_ENCODED = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")


def _coder_layer(site: Site) -> tuple[str, ...]:
    if (site.layer or 0) >= audio(site).integer("num_hidden_layers", minimum=0):
        return ()
    parts = (*(f"attn_{part}" for part in "qkv"), "ls1", "ls2", *_OF_MIMI.values())
    return tuple(f"{target}blk.{{i}}.{part}" for target in _CODERS.values() for part in parts)


pocket_tts_sound = projector(
    "PocketTTSModel",
    metadata=(
        flag("has_audio_encoder", always(True)),
        text("audio.projector_type", always("pockettts_spkenc")),
        u32("audio.projection_dim", text_width),
        *(u32(f"audio.{key}", of_audio(_SIZES[key])) for key in _ENCODED),
        f32("audio.attention.layer_norm_epsilon", always(1e-5)),
        u32("audio.num_mel_bins", always(1)),
        flag("has_gen_audio_encoder", always(True)),
        text("gen.audio.projector_type", always("pockettts_gen")),
        u32("gen.audio.projection_dim", text_width),
        *(u32(f"gen.audio.{key}", of_audio(source)) for key, source in _SIZES.items()),
        f32("gen.audio.attention.layer_norm_epsilon", always(1e-5)),
        # The repository has a folder for each language. llama.cpp has settings of its own for some of them.
        text("gen.audio.model_variant", lambda site: site.folder.name),
    ),
    takes=lambda name: name.startswith(_OF_SOUND),
    renames=(),
    names={
        "flow_lm.speaker_proj_weight": "a.speaker_proj.weight",
        "flow_lm.input_linear": "a.gen.input_linear",
        "flow_lm.emb_mean": "a.gen.emb_mean",
        "flow_lm.emb_std": "a.gen.emb_std",
        "flow_lm.out_eos": "a.gen.out_eos",
        f"{_FLOW}input_proj": f"{_NET}input_proj",
        f"{_FLOW}cond_embed": f"{_NET}cond_embd",
        f"{_FLOW}final_layer.linear": f"{_NET}final.proj",
        f"{_FLOW}final_layer.adaLN_modulation.1": f"{_NET}final.ada",
        f"{_FLOW}time_embed.{{i}}.freqs": f"{_NET}time.{{i}}.freqs",
        f"{_FLOW}time_embed.{{i}}.mlp.0": f"{_NET}time.{{i}}.up",
        f"{_FLOW}time_embed.{{i}}.mlp.2": f"{_NET}time.{{i}}.down",
        f"{_FLOW}time_embed.{{i}}.mlp.3.alpha": f"{_NET}time.{{i}}.norm",
        f"{_FLOW}res_blocks.{{i}}.in_ln": f"{_NET}blk.{{i}}.norm",
        f"{_FLOW}res_blocks.{{i}}.mlp.0": f"{_NET}blk.{{i}}.up",
        f"{_FLOW}res_blocks.{{i}}.mlp.2": f"{_NET}blk.{{i}}.down",
        f"{_FLOW}res_blocks.{{i}}.adaLN_modulation.1": f"{_NET}blk.{{i}}.ada",
        "mimi.downsample.conv.conv": "a.downsample.conv",
        "mimi.upsample.convtr.convtr": "a.gen.wav.upsample",
        **_coders(),
        **_waves("mimi.encoder.model.", "a.seanet.", "conv", first=3, residual=1),
        **_waves("mimi.decoder.model.", "a.gen.wav.seanet.", "convtr", first=2, residual=3),
    },
    rules=(
        Rule(("mimi.quantizer.output_proj.weight",), "a.gen.wav.quant_out.weight", squeeze),
        *(
            rule
            for source, target in _CODERS.items()
            for rule in _thirds(
                f"{source}transformer.layers.{{i}}.self_attn.in_proj.weight", f"{target}blk.{{i}}.attn_{{part}}.weight"
            )
        ),
    ),
    # llama.cpp's convolutions have no kernels for bfloat16
    forced_types=dict.fromkeys(("a.seanet.*", "a.gen.wav.seanet.*", "a.downsample.conv", "a.gen.wav.upsample"), as_f16),
    block_count=always(MOST_LAYERS),
    model_tensors=("a.speaker_proj", "a.seanet.conv_in", "a.gen.input_linear", "a.gen.wav.seanet.conv_out"),
    layer_tensors=_coder_layer,
)
