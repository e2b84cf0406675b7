"""No process runs code from the working folder: a file there that is named like a package stays a file."""

import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from hyperspot.benchmark.runner import WORKER
from hyperspot.service.jobs.runner import PROCESS

PLANTED = 'raise SystemExit("a file of the working folder was run")\n'


@pytest.fixture
def planted(tmp_path):
    """Return a folder with files that are named like the installed packages.

    Not like those of Python: `python -m` runs such a file before it runs anything of ours.
    """
    for name in set(packages_distributions()) - {"hyperspot"}:
        if name.isidentifier():
            (tmp_path / f"{name}.py").write_text(PLANTED)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((sys.executable, "-m", "hyperspot", "info"), "hyperspot"),
        ((sys.executable, "-m", "hyperspot", "benchmark", "--help"), "benchmark"),
        ((sys.executable, "-m", "hyperspot", "info", "numpy.py"), "numpy.py"),
        (WORKER, ""),
        ((*PROCESS, "1", "1"), ""),
    ],
)
def test_files_of_the_working_folder_are_not_run(planted, command, expected):
    done = subprocess.run(command, cwd=planted, input="", capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    assert "working folder was run" not in said
    assert expected in said


def test_worker_processes_of_the_station_do_not_look_there(planted):
    code = (
        "import multiprocessing, sys\n"
        "if __name__ == '__main__':\n"
        "    sys.path[:] = [path for path in sys.path if path]\n"
        "    from hyperspot.service.inference.pool import InferencePool\n"
        "    from hyperspot.service.settings import StationSettings\n"
        "    import asyncio\n"
        "    async def run():\n"
        "        pool = InferencePool(StationSettings(data='.'))\n"
        "        await pool.start()\n"
        "        await pool.stop()\n"
        "    asyncio.run(run())\n"
        "    print('ended')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=planted, capture_output=True, text=True, timeout=120)
    assert "working folder was run" not in done.stdout + done.stderr
    assert "ended" in done.stdout, done.stderr
