"""The reference: the versions of llama.cpp and of its libraries whose output bytes we promise to reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser
from functools import lru_cache
from importlib.resources import files


@lru_cache(maxsize=1)
def reference() -> Mapping[str, Mapping[str, str]]:
    """The sections of REFERENCE.toml.

    Python 3.10 cannot read TOML. So the file uses only syntax that is the same in INI files: sections, and keys with
    quoted text.

    Example:
        >>> reference()["llama_cpp"]["distribution"]
        'llama-cpp-python 0.3.36'
    """
    parser = ConfigParser(interpolation=None)
    parser.read_string((files("gguf_forge") / "REFERENCE.toml").read_text(encoding="utf-8"))
    return {name: {key: text.strip('"') for key, text in parser[name].items()} for name in parser.sections()}
