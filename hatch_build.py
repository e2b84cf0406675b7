"""Compiles the optional kernels while the package is built, where the machine has a C compiler.

Without one, or with one that cannot, the package is built all the same and runs on matrix products and Pillow.
"""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/hyperspot/hardware/native")
SOURCES = ("kernels.c", "resize.c")
FLAGS = ["-O3", "-std=gnu11", "-shared", "-fPIC"]
THREADS = "-fopenmp"


class KernelHook(BuildHookInterface[Any]):
    """Leaves libraries beside their sources and puts them into the wheel, which is then of this platform alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless this is a source distribution; `version` is `standard` or `editable`."""
        if self.target_name != "wheel":
            return
        for name in SOURCES:
            source = Path(self.root) / FOLDER / name
            library = source.with_name(f"_{source.stem}.so")
            library.unlink(missing_ok=True)
            if not compile_kernel(source, library):
                self.app.display_warning(f"no C compiler that can: hyperspot is built without its compiled {name}")
            elif version == "standard":
                build_data["force_include"][str(library)] = f"hyperspot/hardware/native/{library.name}"
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compile_kernel(source: Path, library: Path) -> bool:
    """Return whether the library was made."""
    if os.name != "posix":
        return False
    compilers = [name for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if name and shutil.which(name)]
    # A library that needs no threads is not to bring their runtime into the process.
    threaded = "#pragma omp" in source.read_text(encoding="utf-8")
    for threads in ([THREADS], []) if threaded else ([],):
        for name in compilers:
            command = [name, *FLAGS, *threads, "-o", str(library), str(source)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # noqa: S603 - our own
                return True
    return False
