"""The type mixes: the type that each file type gives to each tensor.

`_RULES` is a table read from the top: the first row whose role, file type and condition fit decides, and a
tensor that no row fits has the default type of the file type. A condition judges a `MixSite`, a tensor in place.

Source: llama.cpp's src/llama-quant.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.recipe.file_types import FILE_TYPES
from gguf_forge.recipe.model_facts import ModelFacts
from gguf_forge.recipe.options import Options
from gguf_forge.recipe.tensor_rules import Role, layer_of, role_of
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType


@dataclass(frozen=True)
class MixSite:
    """A tensor and its place: it is number `position` of the `count` tensors of its role that follow the mix. If not
    all tensors are known (`is_partial`), its place is not known either."""

    name: str
    shape: tuple[int, ...]
    role: Role
    default: TensorType
    facts: ModelFacts
    has_imatrix: bool
    position: int
    count: int
    by_layer: bool
    is_partial: bool = False

    @property
    def place(self) -> int:
        """`position`, if it is known.

        Raises:
            UsageError: it is not.
        """
        if self.is_partial:
            raise _depends_on_others(self.name)
        return self.position

    @property
    def depth(self) -> int:
        """How far down the model the tensor is: its position, or its layer if a layer has several tensors of the role.

        Raises:
            UnsupportedError: a model with experts has a feed-forward tensor outside its layers.
        """
        if not self.by_layer:
            return self.place
        layer = layer_of(self.name)
        if layer is None or layer >= self.count:
            raise UnsupportedError(
                f"its name gives no layer below {self.count}, which the mix of types needs",
                tensor=self.name,
                hint="give its type with --tensor-type, or use --pure",
            )
        return layer

    def in_first(self, share: int) -> bool:
        """Whether the tensor is in the first 1/share of the layers."""
        return self.depth < self.count // share


def _depends_on_others(tensor: str) -> UsageError:
    return UsageError(
        "in this mix, its type depends on tensors of the missing parts",
        tensor=tensor,
        hint="fetch the beginnings of the missing parts, which describe the tensors, or use --pure or --tensor-type",
    )


Condition = Callable[[MixSite], bool]


def _always(_: MixSite) -> bool:
    return True


def _shares_values(site: MixSite) -> bool:
    return site.facts.gqa >= 4


def _shares_values_or_has_experts(site: MixSite) -> bool:
    return site.facts.gqa >= 4 or site.facts.n_experts >= 4


def _has_imatrix(site: MixSite) -> bool:
    return site.has_imatrix


def _eight_experts(site: MixSite) -> bool:
    return site.facts.n_experts == 8


def _first_eighth(site: MixSite) -> bool:
    return site.in_first(8)


def _first_sixteenth(site: MixSite) -> bool:
    return site.in_first(16)


def _ends_and_every_third(site: MixSite) -> bool:
    """Whether the layer is in the first or last eighth, or is every third one between them."""
    i, n = site.depth, site.count
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _middle(site: MixSite) -> bool:
    return site.count // 8 <= site.depth < 7 * site.count // 8


def _falcon(site: MixSite) -> bool:
    return site.facts.architecture == "falcon"


def _glm5_next(site: MixSite) -> bool:
    parts = ("attn_q_a", "attn_q_b", "nextn.eh_proj")
    return site.facts.architecture == "glm5-next" and any(part in site.name for part in parts)


def _stacked_experts(site: MixSite) -> bool:
    # MLA's projections are also stacks. Only in this family do their names tell them apart.
    roles = (Role.UP, Role.GATE, Role.DOWN)
    is_stack = len(site.shape) > 2 and site.shape[2] > 1
    return is_stack and (site.facts.architecture != "bailingmoe3" or site.role in roles)


def _row_does_not_fit(site: MixSite) -> bool:
    return site.shape[0] % site.default.block_elements != 0


def _before(position: int) -> Condition:
    return lambda site: site.place < position


def _not(condition: Condition) -> Condition:
    return lambda site: not condition(site)


def _all(*conditions: Condition) -> Condition:
    return lambda site: all(condition(site) for condition in conditions)


def _any(*conditions: Condition) -> Condition:
    return lambda site: any(condition(site) for condition in conditions)


_ANY_TYPE = " ".join(name for name, found in FILE_TYPES.items() if found.default_type and not found.is_float)
_LOWEST = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M"
_KEEP = ""

_RULES: tuple[tuple[Iterable[Role], str, Condition, str], ...] = (
    (Role, _ANY_TYPE, _glm5_next, "Q8_0"),
    # The output matrix. In a model with tied embeddings it is the embedding.
    ((Role.OUTPUT,), _ANY_TYPE, _any(_falcon, _row_does_not_fit), "Q8_0"),
    ((Role.OUTPUT,), f"{_LOWEST} IQ3_XXS", _always, "Q5_K"),
    ((Role.OUTPUT,), "Q8_0 MXFP4_MOE", _always, "Q8_0"),
    ((Role.OUTPUT,), _ANY_TYPE, _always, "Q6_K"),
    (Role, "MXFP4_MOE", _stacked_experts, "MXFP4"),
    (Role, "MXFP4_MOE", _always, "Q8_0"),
    ((Role.EMBEDDING,), "IQ1_S IQ1_M IQ2_XXS IQ2_XS", _always, "Q2_K"),
    ((Role.EMBEDDING,), "IQ2_S IQ2_M IQ3_XXS", _always, "IQ3_S"),
    ((Role.EMBEDDING,), "TQ1_0 TQ2_0 Q2_0", _always, "Q4_K"),
    # The lowest file types.
    ((Role.VALUE,), _LOWEST, _shares_values_or_has_experts, "Q4_K"),
    ((Role.VALUE,), "IQ2_S IQ2_M", _always, "IQ3_S"),
    ((Role.VALUE,), _LOWEST, _always, "Q2_K"),
    ((Role.KEY,), _LOWEST, _eight_experts, "Q4_K"),
    ((Role.DOWN,), "IQ2_S IQ2_M", _first_eighth, "IQ3_S"),
    ((Role.DOWN,), _LOWEST, _first_eighth, "Q2_K"),
    ((Role.ATTENTION_OUTPUT,), _LOWEST, _eight_experts, "Q5_K"),
    ((Role.ATTENTION_OUTPUT,), "IQ1_S IQ1_M", _always, "IQ2_XXS"),
    ((Role.ATTENTION_OUTPUT,), "IQ2_S IQ2_M", _always, "IQ3_S"),
    # The others.
    ((Role.VALUE,), _ANY_TYPE, _eight_experts, "Q8_0"),
    ((Role.VALUE,), "Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", _shares_values, "Q4_K"),
    ((Role.VALUE,), "Q2_K", _always, "Q3_K"),
    ((Role.VALUE,), "IQ3_XXS", _not(_has_imatrix), "IQ3_S"),
    ((Role.VALUE,), "IQ3_M", _always, "Q4_K"),
    ((Role.VALUE,), "Q3_K_M", _before(2), "Q5_K"),
    ((Role.VALUE,), "Q3_K_M", _always, "Q4_K"),
    ((Role.VALUE,), "Q3_K_L", _always, "Q5_K"),
    ((Role.VALUE,), "IQ4_NL IQ4_XS", _shares_values, "Q5_K"),
    ((Role.VALUE,), "Q4_K_M Q5_K_M", _ends_and_every_third, "Q6_K"),
    ((Role.VALUE,), "Q4_K_S", _before(4), "Q5_K"),
    ((Role.KEY,), _ANY_TYPE, _eight_experts, "Q8_0"),
    ((Role.KEY, Role.QUERY), "IQ3_XS", _always, "IQ3_XXS"),
    ((Role.KEY, Role.QUERY), "IQ3_XXS", _always, "IQ2_S"),
    ((Role.DOWN,), "Q2_K", _always, "Q3_K"),
    ((Role.DOWN,), "Q2_K_S", _first_eighth, "Q4_K"),
    ((Role.DOWN,), "IQ3_XXS", _has_imatrix, _KEEP),
    ((Role.DOWN,), "IQ3_XXS", _first_eighth, "Q4_K"),
    ((Role.DOWN,), "IQ3_XXS", _always, "Q3_K"),
    ((Role.DOWN,), "Q3_K_M", _first_sixteenth, "Q5_K"),
    ((Role.DOWN,), "Q3_K_M", _all(_falcon, _not(_ends_and_every_third)), _KEEP),
    ((Role.DOWN,), "Q3_K_M", _always, "Q4_K"),
    ((Role.DOWN,), "IQ3_M", _any(_first_eighth, _all(_eight_experts, _ends_and_every_third)), "Q4_K"),
    ((Role.DOWN,), "Q3_K_L", _falcon, "Q4_K"),
    ((Role.DOWN,), "Q3_K_L", _always, "Q5_K"),
    ((Role.DOWN,), "Q4_K_M", _all(_falcon, _first_sixteenth), "Q6_K"),
    ((Role.DOWN,), "Q4_K_M", _all(_falcon, _ends_and_every_third), "Q5_K"),
    ((Role.DOWN,), "Q4_K_M", _ends_and_every_third, "Q6_K"),
    ((Role.DOWN,), "IQ4_NL IQ4_XS", _all(_not(_has_imatrix), _first_eighth), "Q5_K"),
    ((Role.DOWN,), "Q5_K_M", _ends_and_every_third, "Q6_K"),
    ((Role.DOWN,), "Q4_K_S", _all(_not(_falcon), _first_eighth), "Q5_K"),
    ((Role.DOWN,), "Q4_0", _all(_has_imatrix, _first_eighth), "Q4_1"),
    ((Role.DOWN,), "Q5_0", _all(_has_imatrix, _first_eighth), "Q5_1"),
    ((Role.ATTENTION_OUTPUT,), "Q3_K_L", _falcon, "Q4_K"),
    ((Role.ATTENTION_OUTPUT,), _ANY_TYPE, _falcon, _KEEP),
    (
        (Role.ATTENTION_OUTPUT,),
        "Q2_K IQ3_XXS IQ3_XS IQ3_S IQ3_M Q3_K_S Q3_K_M IQ4_NL IQ4_XS Q4_K_S Q4_K_M",
        _eight_experts,
        "Q5_K",
    ),
    ((Role.ATTENTION_OUTPUT,), _ANY_TYPE, _eight_experts, _KEEP),
    ((Role.ATTENTION_OUTPUT,), "Q2_K", _always, "Q3_K"),
    ((Role.ATTENTION_OUTPUT,), "IQ3_XXS", _always, "IQ3_S"),
    ((Role.ATTENTION_OUTPUT,), "Q3_K_M IQ3_M", _always, "Q4_K"),
    ((Role.ATTENTION_OUTPUT,), "Q3_K_L", _always, "Q5_K"),
    ((Role.GATE, Role.UP), "IQ3_XS", _middle, "IQ3_XXS"),
)


def _by_role_and_file_type() -> dict[tuple[Role, str], list[tuple[Condition, str]]]:
    table: dict[tuple[Role, str], list[tuple[Condition, str]]] = {}
    for roles, file_types, condition, name in _RULES:
        for key in ((role, file_type) for role in roles for file_type in file_types.split()):
            table.setdefault(key, []).append((condition, name))
    return table


_TABLE = _by_role_and_file_type()


class Mix:
    """Gives each tensor of a file its type, in file order. The rules count the tensors seen before.

    `names` are all tensors of the output file: they tell how many value projections there are and whether the
    output matrix is the embedding.
    """

    def __init__(self, options: Options, default: TensorType, facts: ModelFacts, names: Iterable[str]):
        roles = [role_of(name) for name in names]
        self._options = options
        self._default = default
        self._facts = facts
        self._is_lowest = options.file_type.name in _LOWEST.split()
        self._tied = Role.OUTPUT not in roles
        self._counts = dict.fromkeys((Role.UP, Role.GATE, Role.DOWN), facts.n_layers)
        self._counts[Role.VALUE] = roles.count(Role.VALUE)
        self._seen = dict.fromkeys(self._counts, 0)

    def next(self, name: str, shape: tuple[int, ...]) -> TensorType:
        """The type for this tensor; call it once for each tensor that follows the mix, in file order.

        Raises:
            UnsupportedError: see `MixSite.depth`.
            UsageError: see `MixSite.place`.
        """
        role = role_of(name)
        if role is Role.EMBEDDING and self._tied:
            if self._options.is_partial and self._type(name, shape, role) != self._type(name, shape, Role.OUTPUT):
                raise _depends_on_others(name)
            role = Role.OUTPUT
        return self._type(name, shape, role)

    def _type(self, name: str, shape: tuple[int, ...], role: Role) -> TensorType:
        site = MixSite(
            name,
            shape,
            role,
            self._default,
            self._facts,
            self._options.has_imatrix,
            position=self._seen.get(role, 0),
            count=self._counts.get(role, 0),
            by_layer=role is not Role.VALUE and self._facts.n_experts > 1 and not self._is_lowest,
            is_partial=self._options.is_partial,
        )
        if role in self._seen:
            self._seen[role] += 1
        if role is Role.OUTPUT and self._options.output_tensor_type:
            return self._options.output_tensor_type
        rules = _TABLE.get((role, self._options.file_type.name), ())
        chosen = next((type_name for condition, type_name in rules if condition(site)), _KEEP)
        found = TENSOR_TYPES[chosen] if chosen else self._default
        if role is Role.VALUE and self._facts.is_70b and not self._is_lowest:
            # A 70B model shares each value projection among eight heads, so more bits for it add little to the file.
            return TENSOR_TYPES["Q5_K"] if found.name in ("Q3_K", "Q4_K") else found
        return found
