"""Judging what a person names: files, folders, patterns and lists, where one bad photo stops nothing."""

import codecs
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from hyperspot.errors import DataError, HyperspotError, ImageError, SettingsError
from hyperspot.hardware.cpu import Precision
from hyperspot.images import find_images, read_image
from hyperspot.results.verdict import Verdict
from hyperspot.runtime import ExportedDetector, is_exported
from hyperspot.utils.optional_packages import explain
from hyperspot.utils.prefetch import prefetch_map

ENGINES = ("torch", "openvino", "onnxruntime")


@runtime_checkable
class Predictor(Protocol):
    """What judges a photo: a `Detector`, or an `ExportedDetector` without torch."""

    def predict(self, photo: UInt8[np.ndarray, "h w 3"], /) -> Verdict:
        """Return the verdict on a decoded photo."""
        ...


def open_predictor(
    path: Path, engine: str | None = None, precision: Precision | None = None, device: str = "auto"
) -> Predictor:
    """Return the detector of a model file or of an exported file; torch is imported for the former alone.

    Raises ModelFileError where the file is missing, damaged or foreign; SettingsError where the engine is not
    installed, cannot compute in that format, a model file is asked to run in another engine than torch, or an exported
    one elsewhere than on the CPU; DeviceError where there is no such device or it does not compute in that format; and
    MissingPackageError where a model file is given and torch, or what else it takes, is not installed.
    """
    if is_exported(path):
        if device not in ("auto", "cpu"):
            raise SettingsError(f"{path} is an exported file and runs on the CPU; for {device} give the model file")
        return ExportedDetector.load(path, engine=engine, precision=precision)
    if engine is not None and engine not in ENGINES:
        raise SettingsError(f"there is no engine '{engine}'; choose one of {', '.join(ENGINES)}")
    if engine not in (None, "torch"):
        raise SettingsError(f"{path} runs in torch alone; `hyperspot export` makes a file for {engine}")
    try:
        from hyperspot.detector.detector import Detector
    except ModuleNotFoundError as error:
        raise explain(error, f"judging by the model file {path}, unlike by one that `hyperspot export` made,") from None
    return Detector.load(path, device=device, precision=precision)


def find_inputs(named: Sequence[str], *, recursive: bool = False) -> list[Path]:
    """Return the photos meant by files, folders, patterns and `-` (a list on stdin), in that order.

    Raises DataError where a name leads nowhere.
    """
    photos: list[Path] = []
    for name in named:
        if name == "-":
            photos += _listed()
            continue
        path = Path(name)
        if path.is_dir():
            found = find_images(path, recursive=recursive)
            if not found:
                more = "" if recursive else "; --recursive looks into sub-folders"
                raise DataError(f"the folder {path} holds no photo{more}")
            photos += found
        elif path.exists() or path.is_symlink():
            photos.append(path)
        else:
            # By the real folder, because ** follows links around in circles.
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
            matched = list({(match.parent.resolve(), match.name): match for match in reversed(matches)}.values())[::-1]
            if not matched:
                raise DataError(f"{name} does not exist and matches nothing; give a photo, a folder or a pattern")
            photos += [match for match in matched if match.is_file()]
    if not photos:
        raise DataError("no photo was named; give photos, folders or patterns")
    return photos


def _listed() -> list[Path]:
    """Return the paths on stdin, one a line; names need not be text, and editors may begin a list with a mark."""
    if sys.stdin is None:
        raise DataError("there is no list on stdin; pipe one in, or give photos, folders or patterns")
    content = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8)
    return [Path(os.fsdecode(line)) for line in content.splitlines() if line.strip()]


def predict_paths(
    detector: Predictor, photos: Sequence[Path], out: Path | None
) -> Iterator[tuple[Verdict, dict[str, Path | None]] | HyperspotError]:
    """Yield the verdict on each photo and the files written for it, or the error that names a bad one."""
    for photo, stem, image in zip(photos, _stems(photos), prefetch_map(_read, photos), strict=True):
        if isinstance(image, ImageError):
            yield image
            continue
        try:
            verdict = replace(detector.predict(image), path=photo)
            files: dict[str, Path | None] = {"heatmap": None, "mask": None}
            if out is not None:
                files |= verdict.save(out, stem)
            yield verdict, files
        except OSError as error:
            yield DataError(f"{out} cannot be written to ({error.strerror}); choose another --out")
            return


def _read(photo: Path) -> UInt8[np.ndarray, "h w 3"] | ImageError:
    try:
        return read_image(photo)
    except ImageError as error:
        return error


def _stems(photos: Sequence[Path]) -> list[str]:
    """Return a name for each photo's results; photos of one name get their folder before it, then a number."""
    stems: list[str] = []
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for photo in photos:
        counts[photo.stem] = counts.get(photo.stem, 0) + 1
    for photo in photos:
        stem = photo.stem if counts[photo.stem] == 1 else f"{photo.parent.name}.{photo.stem}".lstrip(".")
        unique, number = stem, 2
        while unique in taken:
            unique, number = f"{stem}-{number}", number + 1
        taken.add(unique)
        stems.append(unique)
    return stems
