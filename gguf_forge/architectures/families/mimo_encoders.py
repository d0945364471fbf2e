"""The encoders of MiMo V2.5: of pictures, and of sound, which is turned into codes by a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.families.qwen_vision import FRAMES
from gguf_forge.architectures.metadata import f32, text, u32
from gguf_forge.architectures.operations import padded_rows, stack, unsqueeze
from gguf_forge.architectures.projector import (
    AUDIO,
    MAX_PIXELS,
    MIN_PIXELS,
    MOST_LAYERS,
    PATCHES,
    USE_SILU,
    VISION,
    always,
    as_f32,
    audio,
    norm_epsilon,
    of_audio,
    of_vision,
    one_after_the_other,
    projector,
    with_vision,
)
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.tensors.expression import TensorExpr

# The folder of the tokenizer of sound, and the beginning that its tensors' names get.
_FOLDER, _PREFIX = "audio_tokenizer", "audio_tokenizer."
_CODEBOOK = "encoder.quantizer.vq.layers.{e}._codebook.embed"
_MOST_CODEBOOKS = 256
# Tensors that only training needs.
_OF_TRAINING = tuple(f"_codebook.{name}" for name in ("cluster_size", "embed_avg", "inited"))
_PARTS = ("visual.", "speech_embeddings.", "audio_encoder.", f"{_PREFIX}encoder.")


def _with_tokenizer(site: Site) -> Config:
    """The config with that of the tokenizer of sound; the rest of what it says of sound is under `local`."""
    file = f"{_FOLDER}/config.json"
    found = Config(read_json_object(site.folder, file), file)
    aliases = {"hidden_size": "d_model", "intermediate_size": "encoder_ffn_dim"}
    aliases |= {"num_attention_heads": "encoder_attention_heads"}
    return site.config.updated(
        audio_config={**found, **{key: found.integer(of) for key, of in aliases.items()}},
        local=site.config.find("audio_config"),
    )


def _of_local(key: str) -> Callable[[Site], int]:
    return lambda site: site.config.part("local").integer(key, maximum=100_000)


def _codebooks(site: Site) -> list[int]:
    """The number of codes in each codebook."""
    names = [_PREFIX + _CODEBOOK.format(e=number) for number in range(_MOST_CODEBOOKS)]
    sizes = [site.tensors[name].shape[0] for name in names if name in site.tensors]
    key = site.keys.get("clip.audio.rvq.codebook_size")
    if not sizes and key is not None and key.type is ValueType.ARRAY:
        sizes = [size for size in key.data if isinstance(size, int) and size > 0][:_MOST_CODEBOOKS]
    if not sizes:
        raise InputError("the tokenizer of sound has no codebooks", file=site.folder.path / _FOLDER)
    return sizes


def _stacked(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """All codebooks as one tensor, each with rows of zeros up to the size of the largest."""
    sizes = _codebooks(site)
    padded = (padded_rows(max(sizes), size)(site, x) for size, x in zip(sizes, sources, strict=True))
    return stack(site, *padded)


def _windows(site: Site) -> list[int]:
    """For each layer, whether it attends within a window (0) or to everything (-1): the last of a block does."""
    count = audio(site).integer("encoder_layers", maximum=10_000)
    step = audio(site).integer("swa_per_block") if "swa_per_block" in audio(site) else 1
    hybrid = audio(site).find("hybrid_attention") and step > 1
    return [0 if hybrid and layer % step < step - 1 else -1 for layer in range(count)]


def _window(site: Site) -> object:
    found = of_audio("encoder_attn_window_size")(site)
    return found[0] if isinstance(found, list) and found else found


mimo_encoders = projector(
    "MiMoV2ForCausalLM",
    metadata=(
        *VISION,
        *AUDIO,
        text("vision.projector_type", always("mimovl")),
        USE_SILU,
        u32("vision.attention.head_count_kv", of_vision("num_key_value_heads", default=8)),
        u32("vision.spatial_merge_size", of_vision("spatial_merge_size")),
        u32("vision.window_size", of_vision("visual_token_window_size")),
        u32("vision.wa_pattern_mode", of_vision("vit_window_attn_types")),
        norm_epsilon("rms_norm_eps", default=1e-6),
        MIN_PIXELS,
        MAX_PIXELS,
        text("audio.projector_type", always("mimo_audio")),
        u32("audio.num_mel_bins", of_audio("n_mels")),
        f32("audio.attention.layer_norm_epsilon", of_audio("layer_norm_eps", default=1e-5)),
        u32("audio.rvq.num_quantizers", lambda site: len(_codebooks(site))),
        u32("audio.rvq.codebook_size", _codebooks),
        u32("audio.wa_pattern_mode", _windows),
        u32("audio.window_size", _window),
        u32("audio.local_block_count", _of_local("input_local_layers")),
        u32("audio.local_group_size", _of_local("group_size")),
    ),
    modules={f"{_FOLDER}/model.safetensors": _PREFIX},
    prepare=one_after_the_other(
        with_vision(
            image_size=of_vision("image_size", default=560),
            num_attention_heads=of_vision("num_heads"),
            num_hidden_layers=of_vision("depth", default=28),
        ),
        _with_tokenizer,
    ),
    takes=lambda name: name.startswith(_PARTS) and "language_model." not in name and not name.endswith(_OF_TRAINING),
    renames=(starts(_PREFIX),),
    names={f"audio_encoder.projection.mlp.{number}": f"mm.a.mlp.{place}" for number, place in ((0, 1), (2, 2))},
    rules=(
        *FRAMES,
        *(Rule((f"encoder.conv{number}.bias",), f"a.conv1d.{number}.bias", unsqueeze(-1)) for number in (1, 2)),
        Rule(
            (_CODEBOOK,),
            "a.rvq.codebook.weight",
            _stacked,
            count=lambda site: len(_codebooks(site)),
        ),
        Rule(("speech_embeddings.{e}.weight",), "mm.a.code_embd.weight", stack, count=_of_local("audio_channels")),
    ),
    # these convolutions have no kernels for bfloat16, and codes are looked up exactly
    forced_types={
        **dict.fromkeys(("a.conv1d.{i}", "a.downsample.conv", "a.rvq.codebook", "mm.a.code_embd"), as_f32),
        **PATCHES,
    },
    block_count=always(MOST_LAYERS),
    model_tensors=("v.patch_embd", "a.conv1d.1", "a.rvq.codebook"),
)
