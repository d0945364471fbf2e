"""What adapter_config.json says: which kind of LoRA an adapter is, and by how much each of its pairs counts.

Source: `LoraConfig` and `LoraLayer.update_layer` of PEFT.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from gguf_forge.errors import InputError, UnsupportedError, UsageError, printable
from gguf_forge.name_pattern import NamePattern
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object

CONFIG = "adapter_config.json"

# Options of PEFT after which the change is no sum of a weight and a product of two factors.
_OTHER_FORMULAS = ("use_qalora", "use_bdlora", "kasa_config", "arrow_config", "monteclora_config", "layer_replication")
# Ways to begin a training that change the base model. The adapter then belongs to the changed one.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
# A pattern that is only a name, which its dots do not make less of one.
_NAME = re.compile(r"[\w.-]+")
# The most other patterns that are tried on each module.
_MOST_PATTERNS = 50
_LARGEST = 3e38

# Name -> its place and value; and the place, value and form of each pattern that is no name.
_Patterns: TypeAlias = tuple[Mapping[str, tuple[int, Any]], tuple[tuple[int, Any, NamePattern], ...]]


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter's config, checked where it is read."""

    values: Mapping[str, Any]
    path: Path

    @classmethod
    def read(cls, folder: Folder) -> AdapterConfig:
        """Reads the config in a folder.

        Raises:
            InputError: it is missing or broken.
            UnsupportedError: the adapter is of another kind than LoRA.
        """
        config = cls(read_json_object(folder, CONFIG), folder.path / CONFIG)
        kind = config.values.get("peft_type", "LORA")
        if kind != "LORA":
            raise UnsupportedError(
                f"this is an adapter of kind {kind!r:.40}, and only LoRA adapters are read",
                file=config.path,
                hint="merge it into its base model with PEFT's merge_and_unload, and convert the result",
            )
        others = [name for name in _OTHER_FORMULAS if config.values.get(name)]
        if others:
            raise UnsupportedError(
                f"adapters with {others[0]} are not known",
                file=config.path,
                hint="merge it into its base model with PEFT's merge_and_unload, and convert that",
            )
        return config

    @property
    def base_model(self) -> str | None:
        """The name or path of the base model; None if the config has none."""
        named = self.values.get("base_model_name_or_path")
        return named if isinstance(named, str) and named else None

    @property
    def is_dora(self) -> bool:
        return bool(self.values.get("use_dora"))

    @property
    def is_transposed(self) -> bool:
        """Whether the base model stores matrices with a row for each input, as GPT-2's do."""
        return bool(self.values.get("fan_in_fan_out"))

    @property
    def begins_from_changed_base(self) -> str | None:
        """The name of the way to begin a training, if it changes the base model."""
        said = self.values.get("init_lora_weights")
        return said if isinstance(said, str) and said.lower().startswith(_CHANGED_BASE) else None

    @property
    def target_parameters(self) -> tuple[str, ...]:
        """The ends of the names of parameters, such as stacked experts, that have pairs of their own."""
        said = self.values.get("target_parameters") or ()
        if not isinstance(said, list | tuple) or not all(isinstance(name, str) for name in said):
            raise InputError("target_parameters is not a list of names", file=self.path)
        return tuple(said)

    @property
    def keeps_ties(self) -> bool:
        """Whether modules that share their weights were trained as one."""
        return bool(self.values.get("ensure_weight_tying"))

    def saves(self, module: str) -> bool:
        """Whether a module was trained as a whole, as `modules_to_save` says with the ends of names."""
        parts = module.split(".")
        return any(".".join(parts[start:]) in self._saved for start in range(len(parts)))

    @cached_property
    def _saved(self) -> frozenset[str]:
        said = self.values.get("modules_to_save") or ()
        if not isinstance(said, list | tuple) or not all(isinstance(name, str) for name in said):
            raise InputError("modules_to_save is not a list of names", file=self.path)
        return frozenset(said)

    def trained_tokens(self, module: str, n_tokens: int) -> tuple[int, ...]:
        """The rows of an embedding or head that are trained, as `trainable_token_indices` says them.

        Args:
            module: The name of the embedding or head in the base model.
            n_tokens: How many rows it has.
        """
        said = self.values.get("trainable_token_indices")
        if isinstance(said, dict):
            said = next((rows for name, rows in said.items() if module == name or module.endswith(f".{name}")), None)
        if not isinstance(said, list) or not all(type(row) is int and row >= 0 for row in said):
            raise InputError(f"trainable_token_indices is not a list of tokens of {printable(module)}", file=self.path)
        if said and max(said) >= n_tokens:
            problem = f"trainable_token_indices names token {max(said):,}, and the model has {n_tokens:,}"
            raise InputError(problem, file=self.path)
        token, times = max(Counter(said).items(), key=itemgetter(1), default=(0, 0))
        if times > 1:
            many = "twice" if times == 2 else f"{times:,} times"
            raise InputError(f"trainable_token_indices names token {token:,} {many}", file=self.path)
        return tuple(said)

    @property
    def alpha(self) -> float:
        """`lora_alpha`."""
        return self._number("lora_alpha", self.values.get("lora_alpha"))

    @property
    def rank(self) -> int:
        """`r`, the rank of modules that no pattern matches."""
        return self._whole("r", self.values.get("r"))

    @property
    def is_rank_stabilized(self) -> bool:
        return bool(self.values.get("use_rslora"))

    def scale(self, module: str, rank: int) -> float:
        """What the product of a module's factors is multiplied by.

        Args:
            module: The name of the module in the base model; for a parameter with its name.
            rank: The rank of the factors.
        """
        alpha = self._alpha_of(module)
        return alpha / sqrt(rank) if self.is_rank_stabilized else alpha / rank

    @property
    def alpha_of_file(self) -> float:
        """The alpha that an adapter's GGUF file has for all its tensors. llama.cpp divides it by their ranks."""
        return self.alpha * sqrt(self.rank) if self.is_rank_stabilized else self.alpha

    def factor_in_file(self, module: str, rank: int) -> float:
        """What B has to be multiplied by in a GGUF file, so that with the alpha of the file a module's scale is
        right."""
        alpha = self._alpha_of(module)
        if not self.is_rank_stabilized:
            return 1.0 if alpha == self.alpha else alpha / self.alpha
        is_usual = (alpha, rank) == (self.alpha, self.rank)
        return 1.0 if is_usual else alpha * sqrt(rank) / self.alpha_of_file

    def stacked_rank(self, module: str) -> int:
        """The rank of a module, as the config alone says it."""
        found = self._pattern("rank_pattern", module)
        return self.rank if found is None else self._whole("a rank of rank_pattern", found)

    def _alpha_of(self, module: str) -> float:
        found = self._pattern("alpha_pattern", module)
        return self.alpha if found is None else self._number("an alpha of alpha_pattern", found)

    def _pattern(self, key: str, module: str) -> Any:
        """What the first pattern that matches the end of a module's name gives; None if there is none."""
        names, patterns = self._patterns[key]
        parts = module.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        found = [names[end] for end in ends if end in names]
        found += [(place, value) for place, value, pattern in patterns if pattern.search(module)]
        return min(found, key=lambda each: each[0])[1] if found else None

    @cached_property
    def _patterns(self) -> Mapping[str, _Patterns]:
        return {key: self._read_patterns(key) for key in ("rank_pattern", "alpha_pattern")}

    def _read_patterns(self, key: str) -> _Patterns:
        """The patterns under a key, each with its place: those that are names, and the others."""
        said = self.values.get(key) or {}
        if not isinstance(said, dict):
            raise InputError(f"{key} is not an object of patterns", file=self.path)
        names = {name: (place, value) for place, (name, value) in enumerate(said.items()) if _NAME.fullmatch(name)}
        others = [(place, name, value) for place, (name, value) in enumerate(said.items()) if name not in names]
        if len(others) > _MOST_PATTERNS:
            raise InputError(
                f"{key} has {len(others):,} patterns, and at most {_MOST_PATTERNS} are read", file=self.path
            )
        return names, tuple((place, value, self._compiled(key, pattern)) for place, pattern, value in others)

    def _compiled(self, key: str, pattern: str) -> NamePattern:
        try:
            NamePattern.compile(pattern)  # by itself, so that an error shows what the file has
            return NamePattern.compile(rf"^(.*\.)?({pattern})$")
        except UsageError as error:
            raise InputError(f"{key}: {error.words.problem}", file=self.path) from None

    def _number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) < _LARGEST:
            raise InputError(f"{name} is {value!r:.40}, not a number other than zero", file=self.path)
        return float(value)

    def _whole(self, name: str, value: Any) -> int:
        if type(value) is not int or not 0 < value < 1 << 31:
            raise InputError(f"{name} is {value!r:.40}, not a rank", file=self.path)
        return value
