"""Builds gguf_forge._kernels from csrc/ with cffi; everything else is in pyproject.toml."""

import os
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cffi import FFI
from setuptools import setup
from setuptools.command.build_ext import build_ext

# Builds for the sanitizers take minutes a file at -O3. Python's own flags ask for debug information, which would take a
# third of the time; CFLAGS=-g brings it back.
FLAGS = [os.environ.get("FORGE_OPTIMIZE", "-O3"), "-ffp-contract=off", "-Wall", "-Wextra"]
if "-g" not in os.environ.get("CFLAGS", "").split():
    FLAGS.append("-g0")
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")


def in_parallel(compile_all):
    """The same for all sources at once: there is a large one for each backend."""

    def compile_each(sources, **options):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = pool.map(lambda source: compile_all([source], **options), sources)
            return [path for paths in objects for path in paths]

    return compile_each


class BuildKernels(build_ext):
    """Compiles the sources side by side."""

    def build_extensions(self):
        self.compiler.compile = in_parallel(self.compiler.compile)
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
        extra_compile_args=FLAGS,
        py_limited_api=STABLE_ABI,
    )
    return ffi.distutils_extension(tmpdir="build", verbose=False)


setup(
    ext_modules=[kernels()],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE_ABI else {},
)
