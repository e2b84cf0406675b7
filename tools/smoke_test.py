"""Checks an installed wheel with the standard library only: import, command line, compiled kernels.

    python smoke_test.py

It exits with an error if the wheel lacks its kernels or, on x86-64 with AVX2, if they do not load.
"""

import platform
import subprocess
import sys
from pathlib import Path

import hyperspot
from hyperspot.hardware import native
from hyperspot.hardware.native import resizing


def main() -> None:
    """Run the checks; print the version, the platform and the instruction set."""
    installed = Path(hyperspot.__file__).parent
    printed = subprocess.run(
        [sys.executable, "-m", "hyperspot", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    missing = [path.name for path in (native.LIBRARY, resizing.LIBRARY) if not path.is_file()]
    if missing:
        raise SystemExit(f"{installed} lacks {', '.join(missing)}")
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    print(f"{printed}, {system}, instruction set of the compiled search: {native.LEVELS[native.level()]}")
    if platform.system() == "Linux" and " avx2 " in Path("/proc/cpuinfo").read_text() and not native.level():
        raise SystemExit("the CPU has AVX2, but the compiled search did not load")


if __name__ == "__main__":
    main()
