"""Checks that the file will have all tensors that its model needs, in the shapes that the config gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.shapes import disagreement
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.templates import SUFFIXES, fill, group_names, parse, role
from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.wording import log_of

log = log_of(__name__)

_MAX_LISTED = 30

# Roles of a layer's tensors that many families have in common. `a|b` means that one of the two is enough.
ATTENTION = ("attn_norm", "attn_q|attn_qkv", "attn_k|attn_qkv", "attn_v|attn_qkv", "attn_output")
DENSE = ("ffn_up", "ffn_down")
GATED = ("ffn_gate", *DENSE)
MAMBA = ("ssm_in", "ssm_conv1d", "ssm_x", "ssm_dt", "ssm_a", "ssm_d", "ssm_out")
MAMBA2 = ("ssm_in", "ssm_conv1d", "ssm_dt", "ssm_a", "ssm_d", "ssm_norm", "ssm_out")
# Convolutions over time -> the key that has the length of their kernels.
_KERNELS = {".ssm_conv1d": "ssm.conv_kernel", ".shortconv.conv": "shortconv.l_cache"}
HYPER = tuple(f"hc_{part}_{name}" for part in ("attn", "ffn") for name in ("fn", "base", "scale"))
EXPERTS = ("ffn_gate_inp", "ffn_gate_exps|ffn_gate_up_exps", "ffn_up_exps|ffn_gate_up_exps", "ffn_down_exps")


def check_complete(architecture: Architecture, site: Site, names: Sequence[str]) -> None:
    """Checks that every tensor that the declaration requires is there, and that no name occurs twice.

    Raises:
        InputError: a required tensor is missing, or two tensors have the same name.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError("two tensors of the checkpoint claim this place", tensor=name)
        seen.add(name)
    missing = [f"{what}.weight" for what in architecture.model_tensors if not _is_there(what, None, seen)]
    if architecture.layer_tensors is not None:
        missing += [
            fill(_template(what), layer)
            for layer in range(site.block_count)
            for what in architecture.layer_tensors(site.at(layer))
            if not _is_there(what, layer, seen)
        ]
    hint = _hint(site, seen)
    if missing:
        raise InputError(
            f"{len(missing)} required tensor{' is' if len(missing) == 1 else 's are'} missing from the checkpoint:\n  "
            + "\n  ".join(group_names(missing)),
            hint=hint,
        )
    odd = list(_odd_ones_out(seen, site.block_count))
    if architecture.layer_tensors is None and odd:
        log.warning("other layers have what these lack; %s: %s", hint, ", ".join(group_names(odd)))


def _hint(site: Site, names: Iterable[str]) -> str:
    """What may be wrong where tensors are missing: the number of layers, or the files."""
    layers = {layer for name in names if (layer := parse(name).layer) is not None}
    count = max(layers, default=-1) + 1
    if 0 < count < site.block_count:
        return (
            f"the config says {site.block_count} layers, and the checkpoint has {count}: is a shard missing, or is "
            "config.json that of a model with more layers?"
        )
    return f"is a shard missing? The config says {site.block_count} layers"


def _template(what: str) -> str:
    first = what.split("|")[0]
    return first if "{i}" in first else f"blk.{{i}}.{first}.weight"


def _is_there(what: str, layer: int | None, names: set[str]) -> bool:
    """Whether there is a tensor of this role, with or without suffix. For `a|b`, either role is enough."""
    for each in what.split("|"):
        stem = fill(each if layer is None or "{i}" in each else f"blk.{{i}}.{each}", layer)
        if any(stem + suffix in names for suffix in ("", *SUFFIXES)):
            return True
    return False


def _odd_ones_out(names: Iterable[str], n_layers: int) -> Iterable[str]:
    """The tensors that a layer lacks, compared with a layer that has all of its tensors and more.

    Layers of different kinds, such as dense layers and expert layers, are not reported: each has a tensor that the
    other does not have.
    """
    layers: dict[int | None, set[str]] = defaultdict(set)
    for name in names:
        template, layer, _ = parse(name)
        layers[layer].add(template)
    kinds = sorted({frozenset(layers[layer]) for layer in range(n_layers)}, key=len, reverse=True)
    for layer in range(n_layers):
        larger = next((kind for kind in kinds if layers[layer] < kind), frozenset[str]())
        for template in sorted(larger - layers[layer]):
            yield fill(template, layer)


def check_shapes(architecture: Architecture, site: Site, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks the shapes of tensors against the config. `shapes` is by GGUF name.

    Raises:
        InputError: some shapes differ from the config; the message lists these tensors.
    """
    problems = []
    for name, shape in shapes.items():
        template, layer, _ = parse(name)
        sizes = architecture.shapes.get(role(template))
        if sizes is not None and name.endswith(".weight"):
            problem = disagreement(shape, sizes, site.at(layer))
            if problem:
                problems.append(f"{name} {problem}")
    _refuse(problems)


def check_kernels(metadata: Metadata, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks the lengths of convolutions over time against the file's keys, with which llama.cpp loads them.

    Raises:
        InputError: some are longer or shorter, or no key has their length; the message lists these tensors.
    """
    problems = []
    for name, shape in shapes.items():
        key = next((key for part, key in _KERNELS.items() if part in name and name.endswith(".weight")), None)
        if key is not None:
            value = metadata.get(f"{metadata['general.architecture'].data}.{key}")
            if value is None or value.data != shape[-1]:
                told = "has none" if value is None else f"says {value.data}"
                problems.append(f"{name} has kernels of {shape[-1]}, the config {told}")
    _refuse(problems)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise InputError(
            f"{len(problems)} tensors have other shapes than the config says:\n  "
            + "\n  ".join(problems[:_MAX_LISTED]),
            hint="are config.json and the weights of the same model?",
        )
