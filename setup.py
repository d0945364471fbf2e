"""Builds gguf_forge._kernels from csrc/ with cffi; everything else is in pyproject.toml."""

import os
import sysconfig
from pathlib import Path

from cffi import FFI
from setuptools import setup
from setuptools.command.build_ext import build_ext

# Builds for the sanitizers take minutes a file at -O3.
GNU_FLAGS = [os.environ.get("FORGE_OPTIMIZE", "-O3"), "-ffp-contract=off", "-Wall", "-Wextra"]
FLAGS = {"msvc": ["/O2", "/fp:precise", "/std:c11"]}
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildKernels(build_ext):
    """Chooses the flags once the compiler is known."""

    def build_extensions(self):
        for extension in self.extensions:
            extension.extra_compile_args = FLAGS.get(self.compiler.compiler_type, GNU_FLAGS)
        super().build_extensions()


def kernels():
    header = Path("csrc/forge.h").read_text(encoding="utf-8")
    ffi = FFI()
    ffi.cdef(header.split("/* cffi: begin */")[1].split("/* cffi: end */")[0])
    sources = sorted(path.as_posix() for path in Path("csrc").glob("*.c"))
    depends = sorted(path.as_posix() for path in Path("csrc").rglob("*.[hi]*"))
    ffi.set_source(
        "gguf_forge._kernels",
        '#include "forge.h"',
        sources=sources,
        include_dirs=["csrc"],
        depends=depends,
        py_limited_api=STABLE_ABI,
    )
    return ffi.distutils_extension(tmpdir="build", verbose=False)


setup(
    ext_modules=[kernels()],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE_ABI else {},
)
