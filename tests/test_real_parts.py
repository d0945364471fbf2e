"""llama.cpp itself loads a model together with its other parts, and sees, hears or drafts with them.

xllamacpp has it inside. The weights are made up, so an answer is right if it
depends on the picture or sound, and is the same each time.
"""

from __future__ import annotations

import base64
import io
import math
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import pytest
from llama_cpp_client import answers
from projectors import PROJECTORS, write
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import convert

pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)

# The name of a description in tests/projectors, and the family whose text model is as wide.
_APART = {"pixtral": "llama3-bpe", "qwen2-audio": "qwen2"}


def text_model(family: str, scratch: Path, **how: Any) -> Path:
    checkpoint = scratch / family
    if not checkpoint.exists():
        write_checkpoint(FAMILIES / family, checkpoint)
    name = "-".join(["main", *how])
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    return convert(checkpoint, scratch / f"{name}.gguf", types="Q8_0", pre_tokenizer=pre_tokenizer, **how)[0].path


def model_with_projector(name: str, scratch: Path) -> tuple[Path, Path]:
    """The files of a model and of its projector."""
    model = text_model(_APART.get(name, name), scratch)
    folder = write(PROJECTORS / f"{name}.json", scratch / "projector") if name in _APART else scratch / name
    return model, convert(folder, scratch / "mmproj.gguf", types="auto", mmproj=True)[0].path


def picture(step: int) -> dict[str, Any]:
    """A PNG of 64 by 64 pixels, as a part of a message."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes((x * step + y * 5 + c * 40) % 256 for x in range(64) for c in range(3)) for y in range(64)
    )
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


def sound(step: int) -> dict[str, Any]:
    """A second of a tone, as a part of a message."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i / step))) for i in range(16000)))
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(out.getvalue()).decode(), "format": "wav"}}


@pytest.mark.parametrize(
    ("name", "thing"), [("gemma3-vision", picture), ("qwen3vl", picture), ("pixtral", picture), ("qwen2-audio", sound)]
)
def test_llama_cpp_answers_about_a_picture_or_a_sound(name: str, thing: Any, tmp_path: Path) -> None:
    model, mmproj = model_with_projector(name, tmp_path)
    text = {"type": "text", "text": "What is this?"}
    one, again, other, nothing = answers(
        model, [[text, thing(3)], [text, thing(3)], [text, thing(11)], [text]], mmproj=mmproj
    )
    assert len(one["tokens"]) == 8
    assert one == again
    assert one["first"] != other["first"]
    assert one["prompt"] == other["prompt"] > nothing["prompt"] + 3


def test_llama_cpp_drafts_with_the_head_for_further_tokens(tmp_path: Path) -> None:
    """The draft changes how tokens are found, and not which."""
    model, mtp = (text_model("qwen35", tmp_path, **{choice: True}) for choice in ("no_mtp", "mtp"))
    (alone,) = answers(model, ["Hello"])
    (drafted,) = answers(model, ["Hello"], mtp=mtp)
    assert alone["drafted"] == 0 < drafted["drafted"]
    assert drafted["tokens"] == alone["tokens"]
