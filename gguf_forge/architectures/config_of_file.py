"""The config of a model, as far as the keys of its GGUF file tell it. Operations ask for it on the way back."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import Line
from gguf_forge.gguf_file.values import Metadata, ValueType

# Config keys that operations ask for -> the GGUF key (without the architecture's name) that has the value. They are for
# keys whose metadata line computes its value with a function, so that the line does not tell the config key.
_KEYS = {
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "num_kv_heads": "attention.head_count_kv",
    "hidden_size": "embedding_length",
    "head_dim": "attention.key_length",
    "num_experts": "expert_count",
    "v_head_dim": "attention.value_length_mla",
}


# The same for the config of an encoder, whose keys are under clip.vision or clip.audio.
_ENCODER_KEYS = {
    **dict.fromkeys(("num_attention_heads", "num_heads", "vt_num_attention_heads"), "attention.head_count"),
    **dict.fromkeys(("hidden_size", "embed_dim", "width"), "embedding_length"),
    **dict.fromkeys(("num_hidden_layers", "depth"), "block_count"),
    "intermediate_size": "feed_forward_length",
    "patch_size": "patch_size",
    "image_size": "image_size",
}


def config_of_file(architecture: Architecture, metadata: Metadata) -> Config:
    """The config that operations need, made from the file's metadata with the declaration's metadata lines."""

    def data(key: str) -> object:
        value = metadata.get(f"{architecture.name}.{key}")
        if value is None or value.type is not ValueType.ARRAY:
            return value.data if value is not None else None
        return list(value.data)

    def number(key: str) -> int | None:
        found = data(key)
        return found if isinstance(found, int) else None

    entries: dict[str, object] = {name: data(key) for name, key in _KEYS.items()}
    for line in architecture.metadata:
        if isinstance(line, Line):
            # The same key may have other meanings in later lines.
            entries = {**{key: data(line.key) for key in line.keys}, **entries}
    whole, rotated = number("attention.key_length_mla"), number("rope.dimension_count")
    if whole is not None and rotated is not None:
        # Latent attention: the file counts one head for all keys, the checkpoint as many heads as for queries.
        entries |= {"qk_nope_head_dim": whole - rotated, "num_key_value_heads": entries["num_attention_heads"]}
    values, value_heads = number("ssm.inner_size"), number("ssm.time_step_rank")
    if values is not None and value_heads:
        entries["linear_value_head_dim"] = values // value_heads
    padding, vocabulary = (metadata.get(f"tokenizer.ggml.{key}") for key in ("padding_token_id", "model"))
    if padding is not None and vocabulary is not None and vocabulary.data != "bert":  # BERT's positions begin at 0
        entries["pad_token_id"] = padding.data
    tables = data("ple.layers")
    if isinstance(tables, list):
        entries["ple_layer_ids"] = [layer + 1 for layer in tables]
    layers = number("block_count")
    if layers is not None:
        # The file's block_count includes the layers that predict further tokens, the checkpoint's does not.
        entries |= {"block_count": layers, "num_hidden_layers": layers - (number("nextn_predict_layers") or 0)}
    given = {name: value for name, value in entries.items() if value is not None}
    rope: dict[str, object] = {"mrope_section": data("rope.dimension_sections")}
    head = number("attention.key_length")
    if head and rotated:
        rope["partial_rotary_factor"] = rotated / head
    rope = {name: value for name, value in rope.items() if value is not None}
    encoders = {f"{name}_config": _encoder(metadata, name) for name in ("vision", "audio")}
    given |= {name: config for name, config in encoders.items() if config}
    # The file lacks the rows that the converter cut off, so the largest possible size makes the operation cut nothing.
    return Config({"real_vocab_size": 2**31 - 1, **given, "rope_parameters": rope})


def _encoder(metadata: Metadata, encoder: str) -> dict[str, object]:
    """The config of the encoder of pictures (`vision`) or of sounds (`audio`)."""
    found = {name: metadata.get(f"clip.{encoder}.{key}") for name, key in _ENCODER_KEYS.items()}
    config: dict[str, object] = {name: value.data for name, value in found.items() if value is not None}
    deepstack = metadata.get("clip.vision.is_deepstack_layers")
    if deepstack is not None and encoder == "vision":
        config["deepstack_visual_indexes"] = [layer for layer, feeds in enumerate(deepstack.data) if feeds]
    return config
