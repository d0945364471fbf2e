"""Makes the expected.json of checkpoint descriptions (tests/families/*) with llama.cpp's own tools.

    python make_expected.py LLAMA_CPP_SOURCE_TREE LLAMA_QUANTIZE_BINARY DESCRIPTION...

Needs what convert_hf_to_gguf.py needs (torch, transformers 4.57.6, sentencepiece). Of gguf-forge, which must be on the
path, only the readers and writers of GGUF are used, for the importance matrix. The vocabularies of these checkpoints
were trained for tests, so their hashes are unknown: where case.json of a family names a pre-tokenizer, the converter is
told its name.
"""

from __future__ import annotations

import hashlib
import json
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from imatrices import WITH_IMATRIX, write_for_model
from synthetic import Description, Tensors, read_description, write_checkpoint

FLOAT_TYPES = ("auto", "F32", "F16", "BF16")
QUANTIZED_TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"),
    *("IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4_MOE", "Q1_0", "Q2_0"),
)
IMATRIX_TYPES = (
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M"),
    *("IQ4_NL", "IQ4_XS", "Q2_K", "Q2_K_S", "Q3_K_L", "Q4_K_M", "Q5_K_S", "Q6_K", "Q4_0", "Q5_1", "TQ1_0", "MXFP4_MOE"),
)


def convert(tree: Path, checkpoint: Path, out: Path, outtype: str, pre_tokenizer: str | None, *options: str) -> None:
    """Runs the converter in a process of its own, with the pre-tokenizer's name given."""
    command = [sys.executable, __file__, "--convert", str(tree), pre_tokenizer or "", str(checkpoint)]
    subprocess.run([*command, "--outfile", str(out), "--outtype", outtype, *options], check=True, capture_output=True)


def run_converter(tree: str, pre_tokenizer: str, *arguments: str) -> None:
    sys.path.insert(0, tree)
    from conversion.base import TextModel

    _mend_baichuan()
    if pre_tokenizer:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: pre_tokenizer
    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    runpy.run_path(str(Path(tree) / "convert_hf_to_gguf.py"), run_name="__main__")


def _mend_baichuan() -> None:
    """Lets the converter of Baichuan end: for all tensors but one it calls itself in place of its base class."""
    from conversion.baichuan import BaichuanModel
    from conversion.base import TextModel

    unpacked = BaichuanModel.modify_tensors

    def modify_tensors(self: object, data: object, name: str, layer: int | None) -> Iterable[object]:
        modify = unpacked if ".W_pack." in name else TextModel.modify_tensors
        return modify(self, data, name, layer)

    BaichuanModel.modify_tensors = modify_tensors


def digest(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def native_outtype(shards: dict[str, Tensors]) -> str:
    """The converter's type for the file that llama-quantize starts from."""
    dtypes = [dtype for shard in shards.values() for dtype, shape in shard.values() if len(shape) > 1]
    return next((dtype.lower() for dtype in dtypes if dtype in ("BF16", "F16")), "f32")


def expected(tree: Path, quantize: Path, family: Path) -> dict[str, object]:
    description = read_description(family)
    files: dict[str, dict[str, int | str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = write_checkpoint(family, Path(scratch) / "hf")
        out, base = Path(scratch) / "out.gguf", Path(scratch) / "base.gguf"
        for kind in wanted(FLOAT_TYPES, description):
            convert(tree, checkpoint, out, kind.lower(), description.pre_tokenizer)
            files[kind] = digest(out)
        convert(tree, checkpoint, base, native_outtype(description.shards), description.pre_tokenizer)
        matrix = write_for_model(base)
        for kind in wanted(QUANTIZED_TYPES, description):
            if quantized(quantize, base, out, kind):
                files[kind] = digest(out)
        for kind in wanted([kind + WITH_IMATRIX for kind in IMATRIX_TYPES], description):
            if quantized(quantize, base, out, kind.removesuffix(WITH_IMATRIX), "--imatrix", matrix.name):
                files[kind] = digest(out)
    return files


def wanted(types: Iterable[str], description: Description) -> list[str]:
    return [kind for kind in types if description.types is None or kind in description.types]


def quantized(program: Path, base: Path, out: Path, kind: str, *options: str) -> bool:
    """Did llama-quantize accept it? It runs in the folder: the matrix's name, as given, goes into the file."""
    command = [str(program.resolve()), *options, str(base), str(out), kind]
    return subprocess.run(command, cwd=base.parent, capture_output=True, check=False).returncode == 0


def main(tree: str, quantize: str, *descriptions: str) -> None:
    for family in map(Path, descriptions):
        print(family.name, flush=True)
        files = expected(Path(tree), Path(quantize), family)
        (family / "expected.json").write_text(json.dumps(files, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--convert":
        run_converter(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
