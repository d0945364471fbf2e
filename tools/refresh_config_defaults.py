"""Makes gguf_forge/architectures/config_defaults.json from transformers' config classes.

    python tools/refresh_config_defaults.py LLAMA_CPP_TREE

Run it with a Python that has the reference's transformers and torch, and the project's own dependencies. The table
keeps the keys that the reference's code or the project's may ask a config for.

It then makes random configs of every class, and compares what the class makes of them with what the project does.
Differences end the script, but for those in `_KNOWN`. The comparison's cases that say most are written to
tests/architectures/config_cases.json, for the test suite.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from config_cases import cases
from config_classes import Tables, asked_keys, only_asked, plain
from reference_tree import ROOT, reference_tree
from transformers import logging as transformers_logging

from gguf_forge.architectures.config_defaults import with_defaults

TABLE = ROOT / "gguf_forge/architectures/config_defaults.json"
PINNED = ROOT / "tests/architectures/config_cases.json"

CASES_PER_CLASS = 40

# Keys that only model types which the reference does not convert derive, or that a text part says as well.
_KNOWN = {
    "blip": {"text_config"},
    "blt": {"encoder_config"},
    "clap": {"hidden_size", "num_hidden_layers"},
    "fastspeech2_conformer": {"encoder_config", "decoder_config"},
    "lightglue": {"num_key_value_heads"},
    "parakeet_ctc": {"encoder_config"},
    "sam2_hiera_det_model": {"image_size"},
    "dac": {"hidden_size"},
    "dinat": {"hidden_size"},
    "donut-swin": {"hidden_size"},
    "efficientloftr": {"num_key_value_heads", "rope_scaling"},
    "fsmt": {"decoder"},
    "fuyu": {"text_config"},
    "hiera": {"hidden_size"},
    "idefics3": {"text_config"},
    "maskformer-swin": {"hidden_size"},
    "nat": {"hidden_size"},
    "paligemma": {"text_config"},
    "parakeet_encoder": {"num_key_value_heads"},
    "pix2struct": {"text_config", "pad_token_id", "eos_token_id", "decoder_start_token_id"},
    "smolvlm": {"text_config"},
    "swin": {"hidden_size"},
    "swinv2": {"hidden_size"},
    "voxtral": {"hidden_size", "vocab_size"},
    "t5gemma": {"encoder", "decoder", "pad_token_id"},
}


def written(tables: Tables) -> str:
    """JSON with one model type a line."""
    classes = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'))}"
        for name, entry in sorted(tables.entries.items())
    )
    return f'{{"common":{json.dumps(tables.common)},\n"classes":{{\n{classes}\n}}}}\n'


def compared(tables: Tables, asked: set[str]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], set[str]]]:
    """Model type, config, what its class makes of it, and the keys for which the project makes something else.

    Configs that a class refuses are left out: classes also refuse what no checkpoint says.
    """
    for name, config_class in tables.classes.items():
        if "." in name and name.rpartition(".")[0] in tables.classes:
            continue
        for given in cases(config_class, asked, CASES_PER_CLASS):
            raw = {"model_type": name, **given}
            try:
                theirs = only_asked(config_class.from_dict(copy.deepcopy(raw)), asked)
            except Exception:  # a class refuses a config with whatever its code happens to raise
                continue
            ours = only(plain(with_defaults(raw)), theirs, asked)
            yield (
                name,
                raw,
                theirs,
                {key for key in theirs.keys() | ours.keys() if theirs.get(key, ...) != ours.get(key, ...)},
            )


def only(ours: Mapping[str, Any], theirs: Mapping[str, Any], asked: set[str]) -> dict[str, Any]:
    """The keys of ours that are compared: those that are asked for, in a part as at the top."""
    return {
        key: only(value, theirs[key], asked)
        if isinstance(value, dict) and isinstance(theirs.get(key), dict) and key.endswith(("_config", "coder"))
        else value
        for key, value in ours.items()
        if key in asked
    }


def sample(found: list[dict[str, Any]], entry: Mapping[str, Any]) -> list[str]:
    """A short case of a class that does more than to have defaults."""
    if not entry.keys() - {"arguments", "set"} and "num_key_value_heads" not in entry.get("arguments", {}):
        return []
    lines = (json.dumps(case, separators=(",", ":")) for case in found if len(case["config"]) > 2)
    return [line for line in lines if len(line) < 1000][:1]


def main() -> None:
    tree = reference_tree(__doc__)
    logging.disable()
    transformers_logging.set_verbosity_error()
    reference = asked_keys(tree / "conversion", tree / "gguf-py/gguf")
    tables = Tables(reference | asked_keys(ROOT / "gguf_forge"))
    TABLE.write_text(written(tables), encoding="utf-8")

    wrong, pinned, count = [], {}, 0
    for name, raw, theirs, differing in compared(tables, reference):
        count += 1
        if unknown := differing - _KNOWN.get(name, set()):
            wrong += [f"{name}: {key} of {raw}: {theirs.get(key)!r}" for key in sorted(unknown)]
        elif not differing:
            pinned.setdefault(name, []).append({"config": raw, "expected": theirs})
    if wrong:
        sys.exit("\n".join(wrong))
    lines = ",\n".join(line for name, found in pinned.items() for line in sample(found, tables.entries[name]))
    PINNED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {len(tables.entries)} classes, equal to transformers' in {count} configs")


if __name__ == "__main__":
    main()
