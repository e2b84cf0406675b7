"""The known layouts of data sets on the disk, a file each, in the order in which they are recognized."""

from collections.abc import Mapping
from pathlib import Path

from hyperspot.data.layouts.base import Found, Layout, Sample
from hyperspot.data.layouts.coco import COCO
from hyperspot.data.layouts.folder import FOLDER
from hyperspot.data.layouts.kolektor import SDD, SDD2
from hyperspot.data.layouts.labelme import LABELME
from hyperspot.data.layouts.lookout import LOOKOUT
from hyperspot.data.layouts.mvtec import AD_2, BTAD, LOCO, MPDD, MVTEC
from hyperspot.data.layouts.real_iad import REAL_IAD
from hyperspot.data.layouts.table import TABLE
from hyperspot.data.layouts.visa import VISA, visa_objects
from hyperspot.data.layouts.yolo import YOLO

__all__ = ["FILES", "LAYOUTS", "Found", "Layout", "Sample", "is_data_file", "recognize", "visa_objects"]

LAYOUTS: Mapping[str, Layout] = {
    "csv": TABLE,
    "lookout": LOOKOUT,
    "mvtec_loco": LOCO,
    "mvtec_ad_2": AD_2,
    "mvtec": MVTEC,
    "mpdd": MPDD,
    "btad": BTAD,
    "visa": VISA,
    "real_iad": REAL_IAD,
    "kolektorsdd": SDD,
    "kolektorsdd2": SDD2,
    "labelme": LABELME,
    "coco": COCO,
    "yolo": YOLO,
    "folder": FOLDER,
}
"""All layouts by name, in the order in which they are recognized."""
FILES = {"csv": (".csv",), "lookout": (".manifest", ".jsonl"), "coco": (".json",)}
"""Layouts that are opened by a file, and how its name ends."""


def is_data_file(path: Path) -> bool:
    """Return whether a file is named like those that hold or list a data set.

    Examples:
        >>> is_data_file(Path("parts.csv")), is_data_file(Path("parts.safetensors"))
        (True, False)

    """
    return any(path.suffix.lower() in endings for endings in FILES.values())


def recognize(root: Path) -> str | None:
    """Return the name of the layout of a folder or file, none if it is unknown."""
    return next((name for name, layout in LAYOUTS.items() if layout.recognizes(root)), None)
