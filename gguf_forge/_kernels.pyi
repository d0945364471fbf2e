"""The compiled kernels, as cffi builds them; csrc/forge.h documents the functions."""

from typing import Any

ffi: Any
lib: Any
