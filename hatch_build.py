"""Compiles the optional kernels when a wheel is built or the package is installed editable.

Without a C compiler the build succeeds with a warning; the package then uses matrix products and Pillow.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/hyperspot/hardware/native")
SOURCES = ("kernels.c", "resize.c")
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
FLAGS = ["-O3", "-std=gnu11", "-shared"]


class KernelHook(BuildHookInterface[Any]):
    """Builds the libraries beside their sources and adds them to the wheel, which becomes platform-specific."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels for a wheel; `version` is `standard` or `editable`."""
        if self.target_name != "wheel":
            return
        for name in SOURCES:
            source = Path(self.root) / FOLDER / name
            library = source.with_name(f"_{source.stem}{SUFFIX}")
            library.unlink(missing_ok=True)
            reason = compile_kernel(source, library)
            if reason:
                self.app.display_warning(
                    f"{name} was not compiled ({reason}); hyperspot works without it, slower. "
                    "Install gcc or clang, or name a compiler in CC, and install hyperspot again"
                )
            elif version == "standard":
                build_data["force_include"][str(library)] = f"hyperspot/hardware/native/{library.name}"
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compile_kernel(source: Path, library: Path) -> str:
    """Compile one library with the first compiler that can; return "" or why none could."""
    names = dict.fromkeys((os.environ.get("CC", ""), *_compilers()))
    compilers = [name for name in names if name and shutil.which(name)]
    if not compilers:
        return "no C compiler found"
    # A library without threads must not load an OpenMP run time into the process.
    threaded = "#pragma omp" in source.read_text(encoding="utf-8") and _targets_x86()
    reason = ""
    # Some linkers leave files beside their output.
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / library.name
        for openmp in (True, False) if threaded else (False,):
            for name in compilers:
                command = [name, *FLAGS, *_platform_flags(name, openmp), "-o", str(output), str(source)]
                done = subprocess.run(  # noqa: S603 - a compiler and our own source
                    command, capture_output=True, text=True, errors="replace", check=False
                )
                if done.returncode == 0:
                    shutil.move(output, library)
                    return ""
                printed = [line for line in done.stderr.splitlines() if line.strip()]
                reason = f"{name}: {printed[0] if printed else f'exit code {done.returncode}'}"
    return reason


def _compilers() -> tuple[str, ...]:
    # MSVC's cl cannot compile the kernels, see cpu.h.
    return ("gcc", "clang") if sys.platform == "win32" else ("cc", "gcc", "clang")


def _platform_flags(compiler: str, openmp: bool) -> list[str]:
    """Return what a platform needs beside `FLAGS`."""
    if sys.platform == "win32":
        if "clang" in Path(compiler).name:
            # LLVM's OpenMP is a DLL that Windows lacks: one thread.
            return []
        # For Windows GCC aligns the stack to 16 bytes, and moves AVX registers as if it were 32.
        return ["-static", "-Wa,-muse-unaligned-vector-move", *(["-fopenmp"] if openmp else [])]
    if sys.platform == "darwin":
        # Apple's clang has no OpenMP; Homebrew offers one.
        homebrew = os.environ.get("HOMEBREW_PREFIX", "/usr/local") + "/opt/libomp"
        threads = ["-Xpreprocessor", "-fopenmp", f"-I{homebrew}/include", f"-L{homebrew}/lib", "-lomp"]
        return ["-fPIC", *_macos_target(), *(threads if openmp else [])]
    return ["-fPIC", *(["-fopenmp"] if openmp else [])]


def _macos_target() -> list[str]:
    """Return the architectures and the oldest macOS that the wheel's tag names."""
    _, oldest, machine = sysconfig.get_platform().split("-")
    machines = ["arm64", "x86_64"] if machine == "universal2" else [machine]
    return [f"-mmacosx-version-min={oldest}", *(flag for one in machines for flag in ("-arch", one))]


def _targets_x86() -> bool:
    if sys.platform == "darwin":
        return "arm64" not in _macos_target()
    return platform.machine().lower() in ("x86_64", "amd64")
