"""Random configs for a class, to compare what the class and the project make of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from config_classes import arguments, only_asked
from transformers import PretrainedConfig

# Rotary scalings as checkpoints have them, right and wrong.
_SCALINGS: tuple[Any, ...] = (
    {"type": "linear", "factor": 2.0},
    {"rope_type": "linear", "factor": 2},
    {"type": "yarn", "factor": 4, "original_max_position_embeddings": 1024, "beta_fast": 32},
    {"rope_type": "yarn", "factor": 4.0, "mscale": 1, "mscale_all_dim": 1},
    {"type": "mrope", "mrope_section": [2, 1, 1]},
    {"rope_type": "default", "mrope_section": [2, 1, 1]},
    {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4},
    {"factor": 2},
    None,
)


def cases(config_class: type[PretrainedConfig], asked: set[str], count: int) -> Iterator[dict[str, Any]]:
    """Configs that say some of what the class takes: with layers and heads of another number, nulls, and aliases."""
    chance = random.Random(config_class.__name__)
    given = arguments(config_class)
    stored = only_asked(config_class(), asked)
    keys = sorted({*given, *stored, *config_class.attribute_map} & asked - {"model_type"})
    for _ in range(count):
        chosen = chance.sample(keys, chance.randint(0, min(len(keys), 8)))
        values = {key: stored.get(config_class.attribute_map.get(key, key), given.get(key)) for key in chosen}
        yield {key: other(key, value, chance) for key, value in values.items()}


def other(key: str, value: Any, chance: random.Random) -> Any:
    """Another value of the same kind; sometimes null, sometimes the same."""
    if key == "rope_scaling":
        return chance.choice(_SCALINGS)
    if chance.random() < 0.15:
        return None
    if isinstance(value, bool):
        return chance.random() < 0.5
    if isinstance(value, int):
        return chance.choice([value, value * 2, max(1, value // 2), 6, 12])
    if isinstance(value, dict):
        return {name: other(name, value[name], chance) for name in chance.sample(sorted(value), min(len(value), 4))}
    if isinstance(value, float):
        return value + chance.choice([0.0, 0.5])
    return value
