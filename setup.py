"""Builds the native extension; everything else is in pyproject.toml.

The kernels are compiled once per instruction set from the same source and chosen at run time, so a build on one
machine runs on every other of its architecture. Without a compiler the package installs and falls back to torch and
scipy.
"""

import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Never -ffast-math or -Ofast: linked into a process, they flush its denormals and break NaN handling. Contraction is
# off so that every instruction set rounds alike; a kernel that wants fused multiply-adds asks for them by name.
COMMON = ["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
COMMON += ["-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]

SETS = {"portable": []}
if platform.machine() in ("x86_64", "AMD64"):
    SETS["avx2"] = ["-mavx2", "-mfma", "-mtune=haswell"]
    SETS["avx512"] = [*(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")), "-mfma", "-mprefer-vector-width=512"]


class BuildNative(build_ext):
    """Gives each instruction set its flags and compiles the files side by side."""

    def build_extension(self, ext):
        common = {Path(source).name: [] for source in ext.sources}
        flags = common | {f"isa_{name}.cpp": options for name, options in SETS.items()}

        def compile_one(source):
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=ext.define_macros,
                include_dirs=ext.include_dirs,
                debug=self.debug,
                extra_postargs=COMMON + flags[Path(source).name],
                depends=ext.depends,
            )[0]

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compile_one, ext.sources))
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            debug=self.debug,
            build_temp=self.build_temp,
            extra_postargs=["-pthread", "-Wl,--strip-all"],
            target_lang="c++",
        )


native = Extension(
    "sparsegen.kernels._native",
    sources=["csrc/module.cpp", "csrc/order.cpp", "csrc/parallel.cpp", *(f"csrc/isa_{name}.cpp" for name in SETS)],
    depends=[str(path) for pattern in ("*.hpp", "kernels/*.inl") for path in sorted(Path("csrc").glob(pattern))],
    include_dirs=["csrc"],
    define_macros=[(f"SPARSEGEN_HAS_{name.upper()}", "1") for name in SETS],
    language="c++",
    optional=True,
)

setup(ext_modules=[native], cmdclass={"build_ext": BuildNative})
