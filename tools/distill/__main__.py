"""Teaches a small pyramid what ResNet-18 says, and writes it as the package's own backbone.

    python -m tools.distill all   --photos DIR --teacher FILE --work DIR   # everything, from scratch
    python -m tools.distill train --photos DIR --teacher FILE --work DIR --student plain --steps 1500 --decay 500
    python -m tools.distill check --photos DIR --teacher FILE --work DIR RUN...
    python -m tools.distill latency --teacher FILE

Whatever is killed goes on where it was when the same command is given again. DIR of --work takes about 20 GB.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from hyperspot.backbones import Backbone, create
from tools.distill import cache as _cache
from tools.distill import checking, latency, shipping, statistics, training
from tools.distill.photos import ImageLoader, list_photos
from tools.distill.students import STUDENTS

VIEWS = {"training": 10, "held_out": 3}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--photos", type=Path, required=True, help="a folder of images, looked through to its bottom")
    common.add_argument("--teacher", type=Path, required=True, help="weights of ResNet-18, safetensors")
    common.add_argument("--work", type=Path, required=True, help="where caches and runs are kept, 20 GB")
    common.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    common.add_argument("--size", type=int, default=160, help="pixels of each side of a view")
    common.add_argument("--views", type=int, default=VIEWS["training"], help="views of each image")
    recipe = shipping.RECIPE
    learning = argparse.ArgumentParser(add_help=False)
    learning.add_argument("--run", help="name of the run; the student's without it")
    learning.add_argument("--start", type=Path, help="stable.safetensors of a shorter run, to go on from")
    for name, kind in (("steps", int), ("decay", int), ("batch", int), ("seed", int)):
        learning.add_argument(f"--{name}", type=kind, default=getattr(recipe, name))
    for name in ("rate", "weight_decay", "slope", "power"):
        learning.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(recipe, name))
    learning.add_argument("--optimizer", choices=("adamw", "muon"), default=recipe.optimizer)
    learning.add_argument("--student", choices=STUDENTS, default=recipe.student)
    commands.add_parser("train", parents=[common, learning], help="train one student")
    commands.add_parser("all", parents=[common], help="make the shipped file again")
    check = commands.add_parser("check", parents=[common], help="compare runs with the teacher on held-out textures")
    check.add_argument("runs", nargs="*", help="names of runs")
    ship = commands.add_parser("ship", parents=[common], help="write a run's weights into the package")
    ship.add_argument("run")
    timing = commands.add_parser("latency", help="measure all students beside the teacher")
    timing.add_argument("--teacher", type=Path, required=True)
    timing.add_argument("--size", type=int, default=256)
    timing.add_argument("--product", type=Path, help="a data set, to time whole detectors on too")
    given = parser.parse_args()
    if given.command == "latency":
        latency.main(given.teacher, given.size)
        if given.product is not None:
            latency.detectors(given.teacher, given.product)
        return
    found = list_photos(given.photos)
    if given.command == "check":
        checking.main(found, given.teacher, [given.work / run for run in given.runs])
        return
    if given.command == "ship":
        shipping.ship(given.work / given.run)
        return
    if given.command == "all":
        learn(given, found, recipe, "shipped", None)
        shipping.ship(given.work / "shipped")
        return
    wanted = replace(
        recipe, **{name: getattr(given, name) for name in vars(recipe) if getattr(given, name, None) is not None}
    )
    learn(given, found, wanted, given.run or wanted.student, given.start)


def learn(given: argparse.Namespace, found: ImageLoader, recipe: training.Recipe, run: str, start: Path | None) -> None:
    """Build the caches where they are not there yet, and train."""
    device = torch.device(given.device)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.0f} s  {line}", flush=True)

    caches = {}
    for part, photos in (("held_out", found.held_out), ("training", found.training)):
        views = given.views if part == "training" else VIEWS[part]
        teacher = taught_by(given.teacher)
        plan = _cache.Plan(found.sha256, str(teacher.weights_sha256), part, len(photos), views, given.size, seed=0)
        caches[part] = _cache.build(
            given.work / part,
            plan,
            found,
            teacher,
            device=device,
            tell=lambda done, total, part=part: say(f"{part}: teacher on {done} of {total} photos"),  # type: ignore[misc]
        )
    folder = given.work / run
    measured = statistics.measure(caches["training"])
    training.train(
        recipe,
        caches["training"],
        caches["held_out"],
        measured,
        folder,
        device=device,
        start=start,
        tell=lambda line: say(
            f"{run}: step {line['step']:.0f} of {recipe.steps}, loss {line['loss']:.4f}, unexplained "
            f"{line['channels']:.4f} ({line['channels2']:.3f} {line['channels3']:.3f} {line['channels4']:.3f}), "
            f"euclidean {line['euclidean']:.4f}"
        ),
    )


def taught_by(path: Path) -> Backbone:
    """Return the teacher with leaky levels, from which those before and after the activation follow."""
    return create("resnet18", path, output_negative_slope=_cache.SLOPE)


if __name__ == "__main__":
    main()
