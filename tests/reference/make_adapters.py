"""Makes the digests in tests/adapters.json with llama.cpp's convert_lora_to_gguf.py and --base-model-id.

    python make_adapters.py LLAMA_CPP_SOURCE_TREE

The base model's config.json lies in a cache of huggingface_hub that is made for the run, and nothing is downloaded: the
converter asks the hub for the base model's tensors, and does not use the answer. Needs what convert_hf_to_gguf.py needs
(torch, transformers 4.57.6).
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from adapters import adapter_of
from make_expected import digest
from synthetic import FAMILIES

PINNED = Path(__file__).parents[1] / "adapters.json"


def cached(hub: Path, model_id: str, config: str) -> None:
    """The repository of a base model with its config.json in the cache of huggingface_hub."""
    repository = hub / f"models--{model_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / "config.json").write_text(config)


def run_converter(tree: str, *arguments: str) -> None:
    sys.path[1:1] = [tree, str(Path(tree) / "gguf-py")]
    import gguf

    gguf.utility.SafetensorRemote.get_list_tensors_hf_model = lambda model_id: {}
    sys.argv = ["convert_lora_to_gguf.py", *arguments]
    runpy.run_path(str(Path(tree) / "convert_lora_to_gguf.py"), run_name="__main__")


def main(tree: str) -> None:
    pinned = json.loads(PINNED.read_text())
    for run in pinned:
        with tempfile.TemporaryDirectory() as scratch:
            hub, out = Path(scratch) / "hub", Path(scratch) / "out.gguf"
            cached(hub, run["base"], (FAMILIES / run["family"] / "config.json").read_text())
            adapter = adapter_of(run, Path(scratch) / "adapter")
            command = [sys.executable, __file__, "--convert", tree, str(adapter), "--base-model-id", run["base"]]
            environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
            subprocess.run(
                [*command, "--outfile", str(out), "--outtype", run.get("type", "f32")],
                check=True,
                capture_output=True,
                env=environment,
            )
            run["file"] = digest(out)
        print(run["family"], flush=True)
    PINNED.write_text("[\n" + ",\n".join(f" {json.dumps(run)}" for run in pinned) + "\n]\n")


if __name__ == "__main__":
    if sys.argv[1] == "--convert":
        run_converter(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
