"""Which tensors of a checkpoint the tensors of a GGUF file were made of, and by which rules and operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gguf_forge.architectures.checkpoint_names import CheckpointNames
from gguf_forge.architectures.declaration import Architecture, Operation, Optional, Rule
from gguf_forge.architectures.mapping import NameLookup, operation_for, renamed, templates_of
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.stacked_experts import with_stacked_experts
from gguf_forge.architectures.templates import SUFFIXES, fill, find_with_suffix, parse, target_of
from gguf_forge.architectures.tensor_names import known_names
from gguf_forge.errors import ForgeError

# A number that the site tells.
Count: TypeAlias = Callable[[Site], int]

# The names that most checkpoints use. gguf-py's tables know many names for each tensor.
_USUAL_NAMES = (
    "model.embed_tokens",
    "model.norm",
    "lm_head",
    *(
        f"model.layers.{{i}}.{name}"
        for name in (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
            *(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
            *(f"self_attn.{part}" for part in ("q_a_proj", "q_a_layernorm", "q_b_proj")),
            *(f"self_attn.{part}" for part in ("kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj")),
            *(f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj", "gate")),
            *(f"mlp.shared_expert.{part}" for part in ("gate_proj", "up_proj", "down_proj")),
            "mlp.shared_expert_gate",
            "mlp.gate.e_score_correction",
        )
    ),
)


# A row of the language model's embeddings, which the converter copied into the file of a projector.
COPIED_ROW = "v.token_embd.img_break"
# Tensors that the converter made from config.json, or copied. The checkpoint does not need them.
_GENERATED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight", COPIED_ROW)
# The converter made this one where a checkpoint has no such tensor.
_PERHAPS_GENERATED = ("a.position_embd.weight",)


@dataclass(frozen=True)
class CheckpointTensor:
    """A tensor of a checkpoint.

    Attributes:
        name: Its name; `{e}` in it stands for the number of each expert.
        patterns: What its shape may be, as in `CheckpointNames`; none if that is not known.
    """

    name: str
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Making:
    """How tensors of the file were made.

    Attributes:
        targets: Each with the operation that makes it of all the origins.
        origins: In the order of the operations' arguments.
        layer: Their layer.
        count: How many parts the origins with `{e}` in their names are; None for as many as there are experts.
    """

    targets: Mapping[str, Operation]
    origins: tuple[CheckpointTensor, ...]
    layer: int | None
    count: Count | None = None


@dataclass
class Origins:
    """The origins of the tensors of a file, according to one declaration and the names of one class.

    Attributes:
        makings: How the tensors were made.
        unknown: Tensors without an origin.
        guessed: How many have an origin that is only usual.
        unused: How many names of the class no tensor has.
    """

    makings: list[Making] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    guessed: int = 0
    unused: int = 0


class _Found:
    """What each name of a class becomes."""

    def __init__(self, architecture: Architecture, names: CheckpointNames, site: Site, targets: Iterable[str]) -> None:
        self.architecture = with_stacked_experts(architecture)
        self.named: dict[str, tuple[CheckpointTensor, int | None]] = {}
        self.ruled: dict[tuple[int, int | None], dict[int, CheckpointTensor]] = defaultdict(dict)
        self.templates: dict[str, set[str]] = defaultdict(set)
        self._lookup = NameLookup(self.architecture)
        numbers = [parse(target)[1:] for target in targets]
        layers = range(max((layer for layer, _ in numbers if layer is not None), default=-1) + 2)
        inner = range(max((number for _, number in numbers if number is not None), default=0) + 1)
        # Layers that are appended to the model's own ones count from 0, so low numbers come first.
        for layer in (None, *layers):
            for template in (name for name in names.patterns if ("{i}" in name) == (layer is not None)):
                for number in inner if "{e}" in template else (None,):
                    self._add(template, fill(template, layer, number), layer, names.patterns[template], site)
        self.expected = {template: set(made) for template, made in self.templates.items()}
        # Some checkpoints of a class have biases, and others have none.
        for template in (name for name in names.patterns if name.endswith(".weight")):
            bias = template.removesuffix("weight") + "bias"
            for layer in layers if "{i}" in template else (None,):
                for number in inner if "{e}" in template else (None,):
                    self._add(bias, fill(bias, layer, number), layer, ("n",), site)

    def _add(self, template: str, name: str, layer: int | None, patterns: tuple[str, ...], site: Site) -> None:
        try:
            after = renamed(self.architecture, name, site)
            if self._lookup.is_dropped(after, site):
                return
            rules = self._lookup.rules_for(after, site)
        except ForgeError:
            return  # it depends on what the file does not tell
        if rules is not None:
            for rule, source in rules.value:
                experts = CheckpointTensor(
                    template.replace("{i}", str(layer)) if rules.expert is not None else name, patterns
                )
                self.ruled[rule, rules.layer].setdefault(source, experts)
                self.templates[template].add(fill(self.architecture.rules[rule].target, rules.layer))
            return
        target = find_with_suffix(self._lookup.targets, after)
        if target is not None:
            full = fill(target.value, target.layer, target.expert)
            self.named.setdefault(full, (CheckpointTensor(name, patterns), target.layer))
            self.templates[template].add(full)


def origins_of(architecture: Architecture, names: CheckpointNames, site: Site, targets: Iterable[str]) -> Origins:
    """The origins of a file's tensors.

    Args:
        architecture: The declaration that the file follows.
        names: The names that the checkpoint has.
        site: What the file tells of the model.
        targets: The names of the file's tensors.
    """
    left = dict.fromkeys(target for target in targets if target not in _GENERATED)
    found, origins = _Found(architecture, names, site, left), Origins()
    # A head that is tied to the embeddings is missing in checkpoints of many classes.
    origins.unused = sum(left.keys().isdisjoint(made) for made in found.expected.values() if made != {"output.weight"})
    for making in (*_by_rules(found), *_by_names(found)):
        if all(target in left for target in making.targets):
            origins.makings.append(making)
            for target in making.targets:
                del left[target]
    for making in _guesses(architecture, site, tuple(left)):
        if all(target in left for target in making.targets):
            origins.makings.append(making)
            origins.guessed += len(making.targets)
            for target in making.targets:
                del left[target]
    origins.unknown.extend(target for target in left if target not in _PERHAPS_GENERATED)
    return origins


def _by_rules(found: _Found) -> Iterable[Making]:
    """The targets of rules. All that is cut from one tensor is made together."""
    grouped: dict[tuple[tuple[CheckpointTensor, ...], int | None, Count | None], dict[str, Operation]]
    grouped = defaultdict(dict)
    for (number, layer), sources in found.ruled.items():
        rule = found.architecture.rules[number]
        if all(at in sources or isinstance(source, Optional) for at, source in enumerate(rule.sources)):
            in_order = tuple(sources[at] for at in range(len(rule.sources)) if at in sources)
            grouped[in_order, layer, rule.count].setdefault(fill(rule.target, layer), rule.operation)
    return (Making(targets, *key) for key, targets in grouped.items())


def _by_names(found: _Found) -> Iterable[Making]:
    for target, (origin, layer) in found.named.items():
        yield Making({target: operation_for(found.architecture, parse(target).template)}, (origin,), layer)


def _guesses(architecture: Architecture, site: Site, targets: tuple[str, ...]) -> Iterable[Making]:
    """The usual origins of targets that no name of the class becomes."""
    names = {**known_names(architecture.name), **architecture.names}
    grouped: dict[tuple[tuple[str, ...], int | None], dict[str, Operation]] = defaultdict(dict)
    # If there are several rules for one target, the first one in the declaration counts.
    rules = {rule.target: rule for rule in reversed(architecture.rules)}
    for target in targets:
        template, layer, number = parse(target)
        rule = rules.get(template)
        if rule is not None and _holds(rule, site.at(layer)):
            sources = tuple(templates_of(source)[0] for source in rule.sources)
            grouped[sources, layer][target] = rule.operation
        elif (source := _source_of(template, architecture, names)) is not None:
            grouped[(fill(source, layer, number),), layer][target] = operation_for(architecture, template)
    for (sources, layer), made in grouped.items():
        called = (_called_in_checkpoints(architecture, each.replace("{i}", str(layer)), site) for each in sources)
        alone = (rule for rule in architecture.rules if _holds(rule, site.at(layer)))
        mine = [rule for rule in alone if tuple(templates_of(source)[0] for source in rule.sources) == sources]
        yield Making(
            {**{fill(r.target, layer): r.operation for r in mine}, **made}, tuple(map(CheckpointTensor, called)), layer
        )


def _holds(rule: Rule, site: Site) -> bool:
    """Does a rule hold here? One that asks what the file does not say leads nowhere."""
    try:
        return rule.when(site)
    except ForgeError:
        return False


def _called_in_checkpoints(architecture: Architecture, name: str, site: Site) -> str:
    for rename in reversed(architecture.renames):
        name = rename.undone(name, site)
    return name


def _source_of(template: str, architecture: Architecture, names: Mapping[str, str]) -> str | None:
    """The checkpoint template for a target's template; None if there is none."""
    suffix = next((suffix for suffix in SUFFIXES if template.endswith(suffix)), "")
    stems = (*architecture.names, *_USUAL_NAMES)
    candidates = (stem + end for stem in stems for end in (suffix, ""))
    return next((source for source in candidates if target_of(source, names) == template), None)
