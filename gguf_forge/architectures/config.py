"""A model's config.json as the reference sees it: with the defaults of transformers' config classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gguf_forge.architectures.config_defaults import with_defaults
from gguf_forge.errors import InputError, UnsupportedError

# Keys under which multimodal configs describe the language model. If a config has several, the last of them counts.
_TEXT_PARTS = ("text_config", "llm_config", "lm_config", "thinker_config", "language_config", "lfm")

# What to do about a key that every model of a family has.
OTHER_FOLDER = "is it of the model's own folder?"

# The most layers that a model has.
MAX_LAYERS = 10_000
# The most values of an attention head. Some families write an array of that length, without any weight behind it.
MAX_HEAD_DIM = 1 << 16

# The bounds of float32, the type in which a file has such numbers. Products and quotients with sizes are finite, too.
_SMALLEST, _LARGEST = 2.0**-149, float.fromhex("0x1.fffffep+127")

_EXPERT_COUNT = (
    *("num_local_experts", "num_experts", "n_routed_experts"),
    *("moe_num_experts", "moe_num_primary_experts"),
)


@dataclass(frozen=True)
class Config(Mapping[str, object]):
    """Read-only parameters, looked up by one key, or by several keys of which the first that exists counts.

    Anybody may have written them, so a value is an `object` until one of the methods has checked what it is.

    Attributes:
        entries: The parameters.
        file: The file that has them, for messages.

    Example:
        >>> Config.of({"model_type": "llama", "num_attention_heads": 8}).integer("num_key_value_heads")
        8
    """

    entries: Mapping[str, object]
    file: str = "config.json"

    @classmethod
    def of(cls, raw: Mapping[str, object]) -> Config:
        """A config.json with the defaults of its `model_type`'s config class, and the text part's values at the top."""
        return cls._lifted(with_defaults(raw))

    @classmethod
    def raw(cls, raw: Mapping[str, object]) -> Config:
        """A config.json without defaults, with the text part's values at the top.

        The reference's converter reads a few models this way, because their config class is wrong for them (Mamba, for
        example).
        """
        return cls._lifted(raw)

    @classmethod
    def in_parts(cls, raw: Mapping[str, object]) -> Config:
        """A config.json with the defaults of its `model_type`'s config class; each part's values stay inside the part.

        The language model's values are under `text_config`, whatever name the class has for this part.
        """
        values = with_defaults(raw)
        return cls({**values, "text_config": text_part(values)})

    @classmethod
    def _lifted(cls, values: Mapping[str, object]) -> Config:
        text = text_part(values)
        lifted = {**values, "text_config": text, **text} if text else dict(values)
        return cls({**lifted, "rope_parameters": rope_parameters(lifted)})

    def __getitem__(self, key: str) -> object:
        """The value of a key. InputError, where other mappings raise KeyError, if it is missing."""
        if key not in self.entries:
            raise InputError(f"{key} is missing", file=self.file, hint=OTHER_FOLDER)
        return self.entries[key]

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def get(self, key: str, default: object = None) -> object:
        return self.entries.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def updated(self, /, **changes: object) -> Config:
        return replace(self, entries={**self.entries, **changes})

    def without(self, *keys: str) -> Config:
        return replace(self, entries={key: value for key, value in self.entries.items() if key not in keys})

    def find(self, *keys: str) -> object:
        """The value of the first key that exists, even if this value is None; also None if no key exists."""
        return next((self.entries[key] for key in keys if key in self.entries), None)

    def part(self, key: str) -> Config:
        """The object under a key; an empty one if it is missing or null.

        Raises:
            InputError: it is no object.
        """
        found = self.find(key)
        return Config({}, self.file) if found is None else self._object(found, key)

    def needed_part(self, key: str) -> Config:
        """The object under a key that every model of the family has.

        Raises:
            InputError: it is missing, or no object.
        """
        return self._object(self[key], key)

    def parts(self, key: str) -> list[Config]:
        """The objects in a list.

        Raises:
            InputError: it is missing, or no such list.
        """
        return [self._object(each, f"{key}[{number}]") for number, each in enumerate(self.listed(key))]

    def _object(self, value: object, name: str) -> Config:
        if not isinstance(value, Mapping):
            raise InputError(f"{name} is {value!r:.40}, not an object", file=self.file)
        return Config(value, self.file)

    def _given(self, *keys: str) -> str:
        """The first key that exists, for messages; all keys if none exists."""
        return next((key for key in keys if key in self.entries), " / ".join(keys))

    def integer(self, *keys: str, minimum: int = 1, maximum: int = 2**31 - 1, default: int | None = None) -> int:
        """A whole number; `default` if it is missing or null.

        Raises:
            InputError: it is missing and has no default, it is not a whole number, or it is out of bounds.
        """
        value = self.find(*keys)
        return default if value is None and default is not None else self._whole(value, keys, minimum, maximum)

    def integers(self, key: str, *, minimum: int = 0, maximum: int = 2**31 - 1) -> list[int]:
        """A list of whole numbers.

        Raises:
            InputError: it is missing, or no such list.
        """
        return [
            self._whole(each, (f"{key}[{number}]",), minimum, maximum) for number, each in enumerate(self.listed(key))
        ]

    def pairs(self, key: str, *, minimum: int = 0) -> list[tuple[int, int]]:
        """A list of pairs of whole numbers.

        Raises:
            InputError: it is missing, or no such list.
        """
        named = replace(self, entries={f"{key}[{number}]": each for number, each in enumerate(self.listed(key))})
        found = [named.integers(name, minimum=minimum) for name in named]
        if any(len(pair) != 2 for pair in found):
            raise InputError(f"{key} is not a list of pairs", file=self.file)
        return [(one, other) for one, other in found]

    def _whole(self, value: object, keys: Sequence[str], minimum: int, maximum: int) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise InputError(
                f"{self._given(*keys)} is {value!r:.40}, not a whole number from {minimum} to {maximum}",
                file=self.file,
            )
        return value

    def number(self, *keys: str, default: float | None = None) -> float:
        """A positive number that float32 can hold; `default` if it is missing or null.

        Raises:
            InputError: it is missing and has no default, or it is no such number.
        """
        return positive(self.find(*keys), self._given(*keys), default, self.file)

    def listed(self, key: str) -> list[object]:
        """A list.

        Raises:
            InputError: it is missing, or something else.
        """
        found = self.find(key)
        if not isinstance(found, list):
            raise InputError(f"{key} is {found!r:.40}, not a list", file=self.file)
        return found

    def by_layer(self, key: str) -> list[object]:
        """A list with one value for each of the model's layers.

        Raises:
            InputError: there is no list of this length.
        """
        found, count = self.find(key), self.block_count
        if not isinstance(found, list) or len(found) != count:
            raise InputError(f"{key} is not a list of {count} layers", file=self.file)
        return found

    def check_known(self, known: Mapping[str, tuple[object, ...]]) -> None:
        """Checks values for which llama.cpp has no choice: config key -> the values that it can compute with.

        A missing key counts as None.

        Raises:
            UnsupportedError: the model needs something else.
        """
        for key, values in known.items():
            if self.find(key) not in values:
                said = f"{key} is {self.find(key)!r:.40}, which llama.cpp does not know"
                raise UnsupportedError(said, file=self.file)

    def rope_number(self, key: str, default: float | None = None) -> float:
        """A rotary parameter, as `number` gives it."""
        return positive(self.rope.get(key), f"rope {key}", default, self.file)

    @property
    def rope(self) -> Mapping[str, object]:
        """The rotary parameters of the layers with full attention."""
        parameters = self.part("rope_parameters")
        full = parameters.get("full_attention", parameters)
        return full if isinstance(full, Mapping) else {}

    @property
    def block_count(self) -> int:
        return self.integer("n_layers", "num_hidden_layers", "n_layer", "num_layers", maximum=MAX_LAYERS)

    @property
    def head_dim(self) -> int:
        """The values of an attention head.

        Raises:
            InputError: the config does not tell, or tells more than any model has.
        """
        if self.find("head_dim") is not None:
            return self.integer("head_dim", maximum=MAX_HEAD_DIM)
        values, heads = self.integer("hidden_size"), self.integer("num_attention_heads")
        if values // heads > MAX_HEAD_DIM:
            raise InputError(
                f"hidden_size is {values}, too much for {heads} attention heads of at most {MAX_HEAD_DIM} values each",
                file=self.file,
            )
        return values // heads

    @property
    def expert_count(self) -> int:
        return self.integer(*_EXPERT_COUNT, maximum=100_000)


def text_part(values: Mapping[str, object]) -> Mapping[str, object]:
    """The language model's config inside a multimodal config; empty if there is none.

    Source: load_hparams in llama.cpp's conversion/base.py.
    """
    found = next((values[key] for key in reversed(_TEXT_PARTS) if key in values), None)
    if "thinker_config" in values and found is values["thinker_config"] and isinstance(found, dict):
        found = found.get("text_config")
    return found if isinstance(found, dict) else {}


def positive(value: object, name: str, default: float | None, file: str = "config.json") -> float:
    if value is None and default is not None:
        return default
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and _SMALLEST <= float(value) <= _LARGEST:
            return float(value)
    except OverflowError:
        pass
    raise InputError(f"{name} is {value!r:.40}, not a positive number of float32", file=file)


def rope_parameters(values: Mapping[str, object]) -> dict[str, object]:
    """All rotary parameters in one mapping, whether the config has them in `rope_parameters`, `rope_scaling` or at the
    top.
    """
    found = values.get("rope_parameters", values.get("rope_scaling")) or {}
    if not isinstance(found, dict):
        raise InputError(f"rope_scaling is {found!r:.40}, not an object", file="config.json")
    parameters = dict(found)
    if "full_attention" in parameters or "sliding_attention" in parameters:
        return parameters

    def first(*keys: str) -> object:
        return next((values[key] for key in keys if key in values), None)

    local_theta = first(
        "local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq"
    )
    if local_theta is not None:
        parameters["sliding_attention"] = {"rope_theta": local_theta}
    beside = {
        "rope_theta": first(
            "global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base"
        ),
        "rope_type": parameters.get("type"),
        "partial_rotary_factor": first("partial_rotary_factor", "rope_pct", "rope_percent"),
        "original_max_position_embeddings": first("original_max_position_embeddings"),
    }
    return {**{k: v for k, v in beside.items() if v is not None}, **parameters}
