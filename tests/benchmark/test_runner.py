"""Lines, resuming, and failing runs, with small workers in place of the real one."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from hyperspot.benchmark import records, runner
from hyperspot.benchmark.protocol import Run, Task, key, limit_images, on_budget, run_of, settings_of
from hyperspot.cli.benchmark_board import Board
from hyperspot.errors import DataError

WORKER = """
import json, os, sys, time
task = json.loads(sys.stdin.readline())
print("a library's greeting")
print(json.dumps({"stage": "training", "done": 1, "total": 2}), flush=True)
if task["run"]["category"] == "broken":
    print(json.dumps({"error": "the image is no image"}))
    sys.exit(0)
if task["run"]["category"] == "killed":
    os.kill(os.getpid(), 9)
if task["run"]["category"] == "crashed":
    raise ValueError("a fault of ours")
if task["run"]["category"] == "slow":
    time.sleep(1.5)
threads, figures = int(os.environ["OMP_NUM_THREADS"]), {"image_auroc": 0.5 + task["run"]["seed"] / 10}
print(json.dumps({"result": {"training_seconds": 1.0, "bank_mb": 2.0, "latency_ms": 3.0,
    "watched": task["run"]["oracle"], "threads": threads, "last": figures}}))
"""


class Recorder(Board):
    def __init__(self):
        super().__init__(live=False)
        self.events = []

    def planned(self, todo, made):
        super().planned(todo, made)
        self.events.append((todo, made))

    def started(self, run):
        super().started(run)
        self.events.append(("started", run.category))

    def moved(self, run, stage, done, total):
        super().moved(run, stage, done, total)
        self.events.append(("moved", run.category, stage, done, total))

    def finished(self, run, line):
        super().finished(run, line)
        self.events.append(("finished", run.category))


def task(category="bottle", seed=0, *, timed=False, **more):
    settings = settings_of("patchcore", backbone="resnet18", seed=seed)
    return Task(Run("patchcore", category, settings, "images", "abc", **more), Path(), category, "weights", timed)


@pytest.fixture
def make(tmp_path):
    def make(tasks, lines=(), jobs=1):
        board = Recorder()
        worker = (sys.executable, "-c", WORKER)
        made = runner.make(tasks, tmp_path / "runs.jsonl", lines, board, jobs=jobs, table=2, worker=worker)
        return made, board.events

    return make


def test_every_run_becomes_a_line_at_once(make, tmp_path):
    made, events = make([task(seed=0), task(seed=3)])
    lines, problems = records.read([tmp_path / "runs.jsonl"])
    assert lines == made
    assert problems == []
    assert [line["last"]["image_auroc"] for line in lines] == [0.5, 0.8]
    assert lines[0]["command"].startswith("hyperspot benchmark DATA --table 2 --category bottle --method patchcore")
    assert lines[0]["command"].endswith("--weights WEIGHTS")
    assert lines[0]["jobs"] == 1
    assert ("moved", "bottle", "training", 1, 2) in events


def test_a_run_that_stands_in_the_lines_is_not_made_again(make, tmp_path):
    make([task(seed=0)])
    lines, _ = records.read([tmp_path / "runs.jsonl"])
    made, events = make([task(seed=0), task(seed=1)], lines)
    assert events[0] == (1, 1)
    assert [line["seed"] for line in made] == [1]
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("other", ["images", "weights", "settings", "budget", "checkpoints", "alone"])
def test_what_decides_a_result_makes_another_run(make, tmp_path, other):
    make([task()])
    (line,), _ = records.read([tmp_path / "runs.jsonl"])
    wanted = task()
    if other == "images":
        line["fingerprint"] = "other images"
    elif other == "weights":
        line["weights"] = "random:0"
    elif other == "settings":
        line["settings"]["method_settings"]["ratio"] = 0.01
    elif other == "budget":
        settings = settings_of("cfa released", backbone="resnet18", seed=0)
        full = Run("cfa released", "bottle", settings, "images", "abc")
        assert key(full.to_dict()) != key(on_budget(full, "quick", 200).to_dict())
        return
    elif other == "checkpoints":
        wanted = task(oracle=True)
    else:
        line["jobs"] = 2
        wanted = task(timed=True)
    made, _ = make([wanted], [line])
    assert len(made) == 1


@pytest.mark.parametrize(
    ("category", "said"),
    [("broken", "the image is no image"), ("killed", "signal 9"), ("crashed", "ValueError: a fault of ours")],
)
def test_a_run_that_fails_is_told_and_the_others_go_on(make, tmp_path, capsys, category, said):
    made, _ = make([task(category), task("bottle")])
    assert said in made[0]["error"]
    assert "error" not in made[1]
    assert f"failed: patchcore · {category} · seed 0" in capsys.readouterr().err
    lines, _ = records.read([tmp_path / "runs.jsonl"])
    again, events = make([task(category), task("bottle")], lines)
    assert events[0] == (1, 1)
    assert len(again) == 1


def test_runs_go_side_by_side(make):
    started = time.monotonic()
    made, events = make([task("slow"), task("bottle")], jobs=2)
    assert [line["category"] for line in made] == ["bottle", "slow"]
    assert events.index(("started", "bottle")) < events.index(("finished", "slow"))
    assert time.monotonic() - started < 60
    assert {line["jobs"] for line in made} == {2}


def test_memory_and_cores_are_shared_out(monkeypatch):
    allowed = runner.Resources(jobs=4, cores=8, memory_mb=10_000)
    assert allowed.threads == 2
    assert allowed.fits(50_000, [])
    assert allowed.fits(4000, [6000])
    assert not allowed.fits(4001, [6000])
    assert not allowed.fits(1, [1, 1, 1, 1])
    assert runner.Resources(jobs=4, cores=2, memory_mb=None).fits(10**9, [10**9])
    assert runner.resources(None, 9, timed=True).jobs == 1
    assert runner.resources(3, 2, timed=True).jobs == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert runner.resources(1, 5, timed=False).threads == 1


def test_what_earlier_runs_took_is_expected_of_later_ones(make, tmp_path):
    make([task()])
    (line,), _ = records.read([tmp_path / "runs.jsonl"])
    kind = ("patchcore", "resnet18", "center")
    assert runner._expectations([line | {"peak_memory_mb": 800}, line | {"peak_memory_mb": 400}]) == {kind: 1000}


def test_a_line_cut_short_swallows_no_other(tmp_path):
    path = tmp_path / "runs.jsonl"
    whole = {"format": 2, "recipe": "padim", "category": "bottle", "seed": 0}
    path.write_text(json.dumps(whole) + "\n" + json.dumps(whole)[:20])
    records.append(path, whole | {"seed": 1})
    lines, problems = records.read([path])
    assert [line["seed"] for line in lines] == [0, 1]
    assert len(problems) == 1
    assert "line 2" in problems[0]


def test_lines_of_the_first_format_are_skipped(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps({"recipe": "released", "category": "bottle", "seed": 1}))
    lines, problems = records.read([path])
    assert lines == []
    assert "line 1" in problems[0]
    assert "run it again" in problems[0]


def test_a_run_counts_as_made_with_the_same_weights_checkpoints_and_time(tmp_path):
    run = Run("cfa released", "bottle", settings_of("cfa released", backbone="resnet18", seed=1), "images", "abc")
    ledger = records.Ledger([{**run.to_dict(), "watched": False, "jobs": 2, "latency_ms": 1.0}])
    assert ledger.has(run)
    assert not ledger.has(Run(**{**vars(run), "weights": "random:0"}))
    assert not ledger.has(Run(**{**vars(run), "oracle": True}))
    assert not ledger.has(run, timed=True)


def test_lines_that_cannot_be_read_are_a_mistake(tmp_path):
    with pytest.raises(DataError, match="missing"):
        records.read([tmp_path / "missing.jsonl"])
    newer = tmp_path / "newer.jsonl"
    newer.write_text(json.dumps({"format": 3, "recipe": "x", "category": "y", "seed": 0}))
    with pytest.raises(DataError, match="newer"):
        records.read([newer])
    with pytest.raises(DataError, match="--out"):
        records.append(tmp_path, {})


def test_a_run_survives_its_message():
    run = task(version=3, train_images=7, oracle=True, budget="quick", reduced=(("steps", 10, 1),)).run
    wanted = Task(run, Path(), "bottle", None)
    assert run_of(json.loads(json.dumps(wanted.message(2)))) == run


def test_a_limit_of_images_is_part_of_a_run():
    run = task().run
    fewer = limit_images(run, 200, train=32, test=10, tests=80)
    assert (fewer.train_images, fewer.test_images) == (32, 10)
    assert fewer.reduced == (("training images", 200, 32), ("test images", 80, 10))
    assert key(fewer.to_dict()) != key(run.to_dict())
    assert limit_images(run, 30, train=32, test=80, tests=80) is run
    command = Task(fewer, Path(), "bottle", None).command(4)
    assert "--max-train-images 32 --max-test-images 10" in command
    assert fewer.label == "patchcore, 32 train images, 10 test images · bottle · seed 0"


def test_the_live_table_shows_running_and_finished_runs(capsys):
    board = Board(live=True)
    first, second = task(seed=0).run, task(seed=1).run
    with board:
        board.planned(3, 1)
        board.started(first)
        board.started(second)
        board.moved(second, "training", 5, 10)
        board.finished(first, {"error": "the disk [is] full"})
        page = Console(width=120)
        with page.capture() as shown:
            page.print(board.drawn())
    assert "1 of 3 runs, 1 failed" in shown.get()
    assert "the disk [is] full" in shown.get()
    assert "training 5/10" in shown.get()


def test_a_run_ends_with_whoever_asked_for_it():
    program = "import time; from hyperspot.benchmark import measuring, worker; "
    program += "measuring.measure = lambda *_: time.sleep(60); worker.main()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(task().message(1)) + "\n")
    process.stdin.flush()
    time.sleep(1)
    assert process.poll() is None
    # As the system closes it where the asker is killed.
    process.stdin.close()
    assert process.wait(timeout=30) == 1
