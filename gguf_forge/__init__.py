"""Hugging Face checkpoints to quantized GGUF: one pass, no PyTorch, the bytes of llama.cpp's own tools.

The verbs, each with its own documentation:

    convert(source, out)     a checkpoint folder becomes one GGUF file or several
    plan(source, out)        what `convert` would write; reads no weight
    plan_work, work, finish  a conversion on several machines
    quantize_gguf(source)    a GGUF file becomes one of another type, or several
    quantize(array, "Q4_K")  rows of numbers to packed rows, and `dequantize` back
    unpack_blocks(packed, "Q4_K")   the fields of packed blocks, by name
    backends()               the kernels that this machine can run
    edit_gguf(source, ...)   other keys for a GGUF file
    dequantize_gguf(source)  back to floats, as a GGUF file or a checkpoint's tensors
    split_gguf(source, out)  a GGUF file becomes several, and `merge_gguf` makes one of them
    inspect_gguf(source)     what a GGUF file holds, and `inspect_tensor` the values of one tensor
    verify_gguf(file, source)   is it right, by itself, by checksums, byte by byte against what it was made of?
    compare_gguf(a, b)       how far two GGUF files are apart
    report(file, out)        a page about a GGUF file: sizes, errors against its source, levels, blocks
    open_gguf(source)        the keys and tensors of a GGUF file, or of a split one

Failures are `ForgeError`s. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf_forge.cli.progress import ProgressBar as ProgressBar
    from gguf_forge.distributed.finish import FinishResult as FinishResult
    from gguf_forge.distributed.finish import finish as finish
    from gguf_forge.distributed.job_plan import JobPlan as JobPlan
    from gguf_forge.distributed.job_plan import plan_work as plan_work
    from gguf_forge.distributed.work import TaskResult as TaskResult
    from gguf_forge.distributed.work import work as work
    from gguf_forge.errors import ForgeError as ForgeError
    from gguf_forge.errors import InputError as InputError
    from gguf_forge.errors import OutputError as OutputError
    from gguf_forge.errors import RefusedError as RefusedError
    from gguf_forge.errors import UnsupportedError as UnsupportedError
    from gguf_forge.errors import UsageError as UsageError
    from gguf_forge.gguf_file.opened import GgufFile as GgufFile
    from gguf_forge.gguf_file.opened import open_gguf as open_gguf
    from gguf_forge.gguf_file.values import Value as Value
    from gguf_forge.gguf_file.values import ValueType as ValueType
    from gguf_forge.kernels.binding import backends as backends
    from gguf_forge.kernels.rows import dequantize as dequantize
    from gguf_forge.kernels.rows import quantize as quantize
    from gguf_forge.name_pattern import NamePattern as NamePattern
    from gguf_forge.planning.file_plan import FilePlan as FilePlan
    from gguf_forge.planning.file_plan import WrittenFile as WrittenFile
    from gguf_forge.planning.making import convert as convert
    from gguf_forge.planning.making import plan as plan
    from gguf_forge.planning.making import quantize_gguf as quantize_gguf
    from gguf_forge.planning.notebook import FileTable as FileTable
    from gguf_forge.planning.splits import Split as Split
    from gguf_forge.recipe import FileType as FileType
    from gguf_forge.recipe import ImportanceMatrix as ImportanceMatrix
    from gguf_forge.recipe import KeyOverride as KeyOverride
    from gguf_forge.recipe import Options as Options
    from gguf_forge.recipe import TypeOverride as TypeOverride
    from gguf_forge.recipe import parse_key_override as parse_key_override
    from gguf_forge.recipe import parse_tensor_type as parse_tensor_type
    from gguf_forge.recipe import read_imatrix as read_imatrix
    from gguf_forge.request import Request as Request
    from gguf_forge.run_settings import Observer as Observer
    from gguf_forge.run_settings import RunSettings as RunSettings
    from gguf_forge.storage.profile import Profile as Profile
    from gguf_forge.toolbox.edit.dequantize import dequantize_gguf as dequantize_gguf
    from gguf_forge.toolbox.edit.edit import EditPlan as EditPlan
    from gguf_forge.toolbox.edit.edit import edit_gguf as edit_gguf
    from gguf_forge.toolbox.edit.splitting import merge_gguf as merge_gguf
    from gguf_forge.toolbox.edit.splitting import split_gguf as split_gguf
    from gguf_forge.toolbox.inspect.compare import Comparison as Comparison
    from gguf_forge.toolbox.inspect.compare import compare_gguf as compare_gguf
    from gguf_forge.toolbox.inspect.inspect import BlockPlace as BlockPlace
    from gguf_forge.toolbox.inspect.inspect import Overview as Overview
    from gguf_forge.toolbox.inspect.inspect import TensorView as TensorView
    from gguf_forge.toolbox.inspect.inspect import inspect_gguf as inspect_gguf
    from gguf_forge.toolbox.inspect.inspect import inspect_tensor as inspect_tensor
    from gguf_forge.toolbox.report import report as report
    from gguf_forge.toolbox.report.data import Report as Report
    from gguf_forge.toolbox.verify.checksums import Checksum as Checksum
    from gguf_forge.toolbox.verify.checksums import write_sums as write_sums
    from gguf_forge.toolbox.verify.verify import Verification as Verification
    from gguf_forge.toolbox.verify.verify import verify_gguf as verify_gguf
    from gguf_forge.types.blocks import unpack_blocks as unpack_blocks
    from gguf_forge.types.tensor_type import TensorType as TensorType

    __version__: str

# Public name: the module that has it, and its name there.
_HOMES = {
    "BlockPlace": ("gguf_forge.toolbox.inspect.inspect", "BlockPlace"),
    "Checksum": ("gguf_forge.toolbox.verify.checksums", "Checksum"),
    "Comparison": ("gguf_forge.toolbox.inspect.compare", "Comparison"),
    "EditPlan": ("gguf_forge.toolbox.edit.edit", "EditPlan"),
    "FilePlan": ("gguf_forge.planning.file_plan", "FilePlan"),
    "FileTable": ("gguf_forge.planning.notebook", "FileTable"),
    "FileType": ("gguf_forge.recipe", "FileType"),
    "FinishResult": ("gguf_forge.distributed.finish", "FinishResult"),
    "ForgeError": ("gguf_forge.errors", "ForgeError"),
    "GgufFile": ("gguf_forge.gguf_file.opened", "GgufFile"),
    "ImportanceMatrix": ("gguf_forge.recipe", "ImportanceMatrix"),
    "InputError": ("gguf_forge.errors", "InputError"),
    "JobPlan": ("gguf_forge.distributed.job_plan", "JobPlan"),
    "KeyOverride": ("gguf_forge.recipe", "KeyOverride"),
    "NamePattern": ("gguf_forge.name_pattern", "NamePattern"),
    "Observer": ("gguf_forge.run_settings", "Observer"),
    "Options": ("gguf_forge.recipe", "Options"),
    "OutputError": ("gguf_forge.errors", "OutputError"),
    "Overview": ("gguf_forge.toolbox.inspect.inspect", "Overview"),
    "Profile": ("gguf_forge.storage.profile", "Profile"),
    "ProgressBar": ("gguf_forge.cli.progress", "ProgressBar"),
    "RefusedError": ("gguf_forge.errors", "RefusedError"),
    "Report": ("gguf_forge.toolbox.report.data", "Report"),
    "Request": ("gguf_forge.request", "Request"),
    "RunSettings": ("gguf_forge.run_settings", "RunSettings"),
    "Split": ("gguf_forge.planning.splits", "Split"),
    "TaskResult": ("gguf_forge.distributed.work", "TaskResult"),
    "TensorType": ("gguf_forge.types.tensor_type", "TensorType"),
    "TensorView": ("gguf_forge.toolbox.inspect.inspect", "TensorView"),
    "TypeOverride": ("gguf_forge.recipe", "TypeOverride"),
    "UnsupportedError": ("gguf_forge.errors", "UnsupportedError"),
    "UsageError": ("gguf_forge.errors", "UsageError"),
    "Value": ("gguf_forge.gguf_file.values", "Value"),
    "ValueType": ("gguf_forge.gguf_file.values", "ValueType"),
    "Verification": ("gguf_forge.toolbox.verify.verify", "Verification"),
    "WrittenFile": ("gguf_forge.planning.file_plan", "WrittenFile"),
    "backends": ("gguf_forge.kernels.binding", "backends"),
    "compare_gguf": ("gguf_forge.toolbox.inspect.compare", "compare_gguf"),
    "convert": ("gguf_forge.planning.making", "convert"),
    "dequantize": ("gguf_forge.kernels.rows", "dequantize"),
    "dequantize_gguf": ("gguf_forge.toolbox.edit.dequantize", "dequantize_gguf"),
    "edit_gguf": ("gguf_forge.toolbox.edit.edit", "edit_gguf"),
    "finish": ("gguf_forge.distributed.finish", "finish"),
    "inspect_gguf": ("gguf_forge.toolbox.inspect.inspect", "inspect_gguf"),
    "inspect_tensor": ("gguf_forge.toolbox.inspect.inspect", "inspect_tensor"),
    "merge_gguf": ("gguf_forge.toolbox.edit.splitting", "merge_gguf"),
    "open_gguf": ("gguf_forge.gguf_file.opened", "open_gguf"),
    "parse_key_override": ("gguf_forge.recipe", "parse_key_override"),
    "parse_tensor_type": ("gguf_forge.recipe", "parse_tensor_type"),
    "plan": ("gguf_forge.planning.making", "plan"),
    "plan_work": ("gguf_forge.distributed.job_plan", "plan_work"),
    "quantize": ("gguf_forge.kernels.rows", "quantize"),
    "quantize_gguf": ("gguf_forge.planning.making", "quantize_gguf"),
    "read_imatrix": ("gguf_forge.recipe", "read_imatrix"),
    "report": ("gguf_forge.toolbox.report", "report"),
    "split_gguf": ("gguf_forge.toolbox.edit.splitting", "split_gguf"),
    "unpack_blocks": ("gguf_forge.types.blocks", "unpack_blocks"),
    "verify_gguf": ("gguf_forge.toolbox.verify.verify", "verify_gguf"),
    "work": ("gguf_forge.distributed.work", "work"),
    "write_sums": ("gguf_forge.toolbox.verify.checksums", "write_sums"),
}

__all__ = [
    "BlockPlace",
    "Checksum",
    "Comparison",
    "EditPlan",
    "FilePlan",
    "FileTable",
    "FileType",
    "FinishResult",
    "ForgeError",
    "GgufFile",
    "ImportanceMatrix",
    "InputError",
    "JobPlan",
    "KeyOverride",
    "NamePattern",
    "Observer",
    "Options",
    "OutputError",
    "Overview",
    "Profile",
    "ProgressBar",
    "RefusedError",
    "Report",
    "Request",
    "RunSettings",
    "Split",
    "TaskResult",
    "TensorType",
    "TensorView",
    "TypeOverride",
    "UnsupportedError",
    "UsageError",
    "Value",
    "ValueType",
    "Verification",
    "WrittenFile",
    "backends",
    "compare_gguf",
    "convert",
    "dequantize",
    "dequantize_gguf",
    "edit_gguf",
    "finish",
    "inspect_gguf",
    "inspect_tensor",
    "merge_gguf",
    "open_gguf",
    "parse_key_override",
    "parse_tensor_type",
    "plan",
    "plan_work",
    "quantize",
    "quantize_gguf",
    "read_imatrix",
    "report",
    "split_gguf",
    "unpack_blocks",
    "verify_gguf",
    "work",
    "write_sums",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gguf-forge")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOMES, "__version__"))
