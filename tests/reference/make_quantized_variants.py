"""Makes tests/quantized_variants.json with llama.cpp's own converter.

    python make_quantized_variants.py LLAMA_CPP_SOURCE_TREE

For each variant of a scheme that the converter reads, it has the digests of what `--outtype auto` makes of the models
in quantized_models.py, where these have a quantized matrix; for each other variant null. Needs what make_expected.py
needs, and gguf-forge on the path, of which only a maker of tiny checkpoints is used. BitNet needs `--no-lazy` with this
torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import runpy
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import digest
from quantized_models import RUNS, Model, make
from quantized_variants import VARIANTS

TESTS = Path(__file__).parents[1]


def converted(tree: Path, model: Model, out: Path) -> bool:
    """Did the converter make a file of it?"""
    from conversion.base import TextModel

    own = TextModel.get_vocab_base_pre
    if model.pre_tokenizer is not None:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: model.pre_tokenizer
    sys.argv = ["convert_hf_to_gguf.py", str(model.folder), "--outfile", str(out), "--outtype", "auto", "--no-lazy"]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(tree / "convert_hf_to_gguf.py"), run_name="__main__")
    except (Exception, SystemExit) as error:
        if not isinstance(error, SystemExit) or error.code:
            print(f"  refused: {type(error).__name__}: {str(error)[:90]}", flush=True)
            return False
    finally:
        TextModel.get_vocab_base_pre = own
    return True


def main(tree: Path) -> None:
    logging.disable()
    sys.path.insert(0, str(tree))
    found: dict[str, dict[str, object] | None] = {}
    for name, variant in VARIANTS.items():
        print(name, flush=True)
        files: dict[str, object] = {}
        for family, sizes in RUNS:
            with tempfile.TemporaryDirectory() as scratch:
                model = make(family, sizes, variant, Path(scratch) / "hf")
                out = Path(scratch) / "m.gguf"
                if model.quantized and converted(tree, model, out):
                    files[f"{family} {sizes.width}"] = digest(out)
        found[name] = files or None
    (TESTS / "quantized_variants.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
