"""hatch_build.py compiles the kernels on each platform, and explains in one line why it cannot."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from hyperspot.hardware import native
from hyperspot.hardware.native import resizing

ROOT = Path(__file__).parents[3]


@pytest.fixture
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["kernels.c", "resize.c"])
def source(request) -> Path:
    return ROOT / "src/hyperspot/hardware/native" / request.param


def test_the_build_and_the_loader_agree_on_the_names(build):
    assert [f"_{Path(name).stem}{build.SUFFIX}" for name in build.SOURCES] == [
        native.LIBRARY.name,
        resizing.LIBRARY.name,
    ]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_compiled_library_loads(build, source, tmp_path):
    library = tmp_path / f"_test{build.SUFFIX}"
    assert build.compile_kernel(source, library) == ""
    assert [path.name for path in tmp_path.iterdir()] == [library.name]
    loaded = ctypes.CDLL(str(library))
    if source.name == "kernels.c":
        assert 0 <= loaded.hs_level() < len(native.LEVELS)
    else:
        assert loaded.hs_resizes() in (0, 1)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the CPU's features are read from /proc/cpuinfo")
@pytest.mark.skipif(not native.LIBRARY.exists(), reason="no C compiler when the package was built")
def test_the_instruction_set_is_that_of_the_cpu(monkeypatch):
    features = Path("/proc/cpuinfo").read_text().split()
    level = 0
    if "avx2" in features and "fma" in features:
        level = 1
    if "avx512f" in features:
        level = 3 if "avx512_bf16" in features else 2
    assert ctypes.CDLL(str(native.LIBRARY)).hs_level() == level


def test_without_a_compiler_it_says_so(build, source, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert build.compile_kernel(source, tmp_path / "_test.so") == "no C compiler found"


@pytest.mark.skipif(os.name == "nt", reason="uses shell scripts as compilers")
def test_a_failing_compiler_is_named_and_another_one_is_tried(build, source, tmp_path, monkeypatch):
    calls, library = tmp_path / "calls", tmp_path / "_test.so"

    def compiler(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "{name}: $*" >> "{calls}"\n{script}\n')
        path.chmod(0o755)

    compiler("cc", "echo 'unknown flag' >&2\nexit 1")
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + "/usr/bin:/bin")
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    monkeypatch.setattr(build, "_compilers", lambda: ("cc",))
    assert build.compile_kernel(source, library).endswith("cc: unknown flag")
    compiler("gcc", 'while [ "$1" != -o ]; do shift; done\ntouch "$2"')
    monkeypatch.setattr(build, "_compilers", lambda: ("cc", "gcc"))
    calls.unlink()
    assert build.compile_kernel(source, library) == ""
    assert library.exists()
    assert [line.partition(":")[0] for line in calls.read_text().splitlines()] == ["cc", "cc", "gcc"]


@pytest.mark.parametrize(
    ("platform", "tag", "machine", "compiler", "wanted", "unwanted"),
    [
        ("linux", "linux-x86_64", "x86_64", "cc", ["-fPIC", "-fopenmp"], []),
        ("linux", "linux-aarch64", "aarch64", "cc", ["-fPIC"], ["-fopenmp"]),
        ("win32", "win-amd64", "AMD64", "gcc", ["-static", "-fopenmp"], ["-fPIC"]),
        ("win32", "win-amd64", "AMD64", "clang", [], ["-fPIC", "-fopenmp"]),
        ("darwin", "macosx-11.0-arm64", "arm64", "cc", ["arm64", "-mmacosx-version-min=11.0"], ["x86_64", "-lomp"]),
        ("darwin", "macosx-11.0-x86_64", "arm64", "cc", ["x86_64", "-lomp"], ["arm64"]),
        ("darwin", "macosx-10.13-universal2", "arm64", "cc", ["arm64", "x86_64"], ["-lomp"]),
    ],
)
def test_each_platform_has_its_flags(
    build, source, tmp_path, monkeypatch, platform, tag, machine, compiler, wanted, unwanted
):
    commands = []

    def run(command, **options):
        commands.append(command)
        Path(command[command.index("-o") + 1]).touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(build.sys, "platform", platform)
    monkeypatch.setattr(build.sysconfig, "get_platform", lambda: tag)
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    monkeypatch.setattr(build.shutil, "which", lambda name: name if name == compiler else None)
    monkeypatch.setattr(build.subprocess, "run", run)
    assert build.compile_kernel(source, tmp_path / "library") == ""
    (command,) = commands
    if source.name != "kernels.c":
        wanted = [flag for flag in wanted if flag not in ("-fopenmp", "-lomp")]
        unwanted = [*unwanted, "-fopenmp", "-lomp"]
    assert set(wanted) <= set(command)
    assert not set(unwanted) & set(command)


ALL_FUNCTIONS = {
    "kernels.c": {"hs_level", "hs_open", "hs_close", "hs_nearest"},
    "resize.c": {"hs_resizes", "hs_resize"},
}
ON_ARM = {"kernels.c": {"hs_level"}, "resize.c": {"hs_resizes"}}


@pytest.mark.parametrize(
    ("compiler", "flags", "functions"),
    [
        ("aarch64-linux-gnu-gcc", ["-fPIC"], ON_ARM),
        (
            "x86_64-w64-mingw32-gcc",
            ["-static", "-fopenmp", "-Wa,-muse-unaligned-vector-move"],
            ALL_FUNCTIONS,
        ),
    ],
)
def test_it_compiles_for_arm_and_for_windows(build, source, tmp_path, compiler, flags, functions):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    library = tmp_path / "library.dll"
    subprocess.run(
        [compiler, *build.FLAGS, "-Wall", "-Wextra", "-Werror", *flags, "-o", str(library), str(source)], check=True
    )
    # The names of exported functions lie in the library between zero bytes.
    strings = set(library.read_bytes().split(b"\0"))
    known = set().union(*ALL_FUNCTIONS.values())
    assert {name for name in known if name.encode() in strings} == functions[source.name]
