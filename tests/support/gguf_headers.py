"""Any header that can be written, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Value, ValueType, array
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

INTEGERS = {
    ValueType.UINT8: (0, 2**8 - 1),
    ValueType.INT8: (-(2**7), 2**7 - 1),
    ValueType.UINT16: (0, 2**16 - 1),
    ValueType.INT16: (-(2**15), 2**15 - 1),
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UINT64: (0, 2**64 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = {
    **{kind: st.integers(low, high) for kind, (low, high) in INTEGERS.items()},
    ValueType.FLOAT32: st.floats(width=32),
    ValueType.FLOAT64: st.floats(),
    ValueType.BOOL: st.booleans(),
    ValueType.STRING: TEXTS | st.binary(max_size=20),
}


@st.composite
def values(draw: st.DrawFn) -> Value:
    kind = draw(st.sampled_from(list(SCALARS)))
    if draw(st.booleans()):
        return Value(kind, draw(SCALARS[kind]))
    return array(kind, draw(st.lists(SCALARS[kind], min_size=1, max_size=5)))


@st.composite
def infos(draw: st.DrawFn) -> TensorInfo:
    kind: TensorType = draw(st.sampled_from(list(TENSOR_TYPES.values())))
    row = draw(st.integers(1, 4)) * kind.block_elements
    rows = draw(st.lists(st.integers(1, 3), max_size=3))
    name = draw(TEXTS.filter(lambda text: 0 < len(text.encode()) < 64))
    return TensorInfo(name, (row, *rows), kind)


HEADERS = (
    st.dictionaries(TEXTS, values(), max_size=8),
    st.lists(infos(), max_size=6, unique_by=lambda info: info.name),
)
