"""The columns that several tables share, and the cells that follow from a row and some categories."""

from collections.abc import Callable, Sequence

from hyperspot import metrics
from hyperspot.benchmark.published import Entry, published
from hyperspot.benchmark.render import Cell, Cells, Column, Given
from hyperspot.benchmark.runs import IMAGE, METRICS, PIXEL, PRO, RATES, Row, mean_over

Body = tuple[tuple[Column, ...], list[Cells], list[Row]]
"""Columns, cells and runs of a table."""


def metric_title(name: str) -> str:
    """Return the column title of a metric."""
    return metrics.get(name).short_title


def metric_column(name: str) -> Column:
    """Return the column of a metric; the promised rate is a setting beside the observed one, not a metric."""
    title = "promised" if name == "promised_false_alarm_rate" else metric_title(name)
    return Column(name, title, optional=name in RATES)


METHOD, BACKBONE = Column("what", "method", words=True), Column("backbone", "backbone", words=True)
CATEGORY, SEEDS = Column("category", "category", words=True), Column("seeds", "seeds")
COUNT = Column("categories", "categories", words=True)
ACCURACY = (*map(metric_column, RATES), *map(metric_column, METRICS))
PUBLISHED = (
    Column("published_image", "published I-AUROC", optional=True),
    Column("published_pixel", "published P-AUROC", optional=True),
)
THEIR_BACKBONE = Column("published_backbone", "published backbone", "backbone (publ.)", words=True, optional=True)
PAPER = (
    Column("paper_image", "CFA paper, I-AUROC", optional=True),
    Column("paper_pixel", "CFA paper, P-AUROC", optional=True),
)
PAPER_BACKBONE = Column("paper_backbone", "CFA paper, backbone", words=True, optional=True)
TIMES = (
    Column("latency_ms", "ms per image", decimals=1),
    Column("throughput", "images / s in batches", decimals=1),
    Column("bank_mb", "memory kept, MB", decimals=1),
)


def _seeds(row: Row, names: Sequence[str]) -> str:
    image = row.mean(IMAGE, names)
    return str(image.count if image else 0)


def _mean(metric: str) -> Callable[[Row, Sequence[str]], Cell]:
    return lambda row, names: row.mean(metric, names)


def _published(metric: str) -> Callable[[Row, Sequence[str]], Given | None]:
    """Return a function that gives the published mean over some categories, with its footnotes and source."""

    def cell(row: Row, names: Sequence[str]) -> Given | None:
        entry = published().by_category(row.published_as)
        figure = None if entry is None else entry.mean(metric, names)
        if entry is None or figure is None:
            return None
        keys = (*entry.notes, *(key for name in names for key in entry.category_notes.get(name, ())))
        source = [f"{entry.label}: {published().sources[entry.source]}."] if entry.source else []
        return Given(figure, (*published().texts(keys), *source))

    return cell


def published_backbone(row: Row, names: Sequence[str]) -> str | None:
    """Return the backbone of the published figures of some categories; None if nothing was published."""
    entry = published().by_category(row.published_as)
    known = entry is not None and any(entry.mean(metric, names) is not None for metric in METRICS)
    return entry.backbone if entry and known else None


def _difference(row: Row, names: Sequence[str]) -> float | None:
    """Return ours minus the published image AUROC; None unless both have the same backbone."""
    ours, theirs = row.mean(IMAGE, names), CELLS["published_image"](row, names)
    if ours is None or not isinstance(theirs, Given) or published_backbone(row, names) != row.backbone:
        return None
    return ours.mean - float(theirs.value)


def _oracle(row: Row, names: Sequence[str]) -> Cell:
    """Return the image AUROC of the best checkpoint, marked if fewer seeds have it: it must not be compared then."""
    best, ours = mean_over(row.values(IMAGE, part="oracle"), names), row.mean(IMAGE, names)
    if best is None or ours is None or best.count == ours.count:
        return best
    return f"{best.mean:.2f} ({best.count} of {ours.count} seeds)"


CELLS: dict[str, Callable[[Row, Sequence[str]], Cell]] = {
    "what": lambda row, _: row.label,
    "backbone": lambda row, _: row.backbone,
    "seeds": _seeds,
    "categories": lambda _, names: str(len(names)),
    **{name: _mean(name) for name in (*RATES, *METRICS, "seg_f1")},
    "original_pixel": lambda row, names: row.mean(PIXEL, names, where="original"),
    "original_pro": lambda row, names: row.mean(PRO, names, where="original"),
    "published_image": _published(IMAGE),
    "published_pixel": _published(PIXEL),
    "published_pro": _published(PRO),
    "published_backbone": published_backbone,
    "difference": _difference,
    "oracle": _oracle,
}
"""Cells by column key."""


def cells(columns: Sequence[Column], row: Row, names: Sequence[str], **own: Cell) -> Cells:
    """Return the cells of a row over some categories; `own` adds cells or replaces them."""
    keys = [column.key for column in columns if column.key in CELLS and column.key not in own]
    return {**{key: CELLS[key](row, names) for key in keys}, **own}


def printed(entry: Entry | None, group: str = "all") -> Cells:
    """Return the figures of a row as the CFA paper prints them, with their backbone."""
    found: Cells = {}
    for key, metric in (("paper_image", IMAGE), ("paper_pixel", PIXEL), ("paper_pro", PRO)):
        figure = None if entry is None else entry.figures.get(metric, {}).get(group)
        found[key] = None if entry is None or figure is None else Given(figure, published().texts(entry.notes))
    return {**found, "paper_backbone": entry.backbone if entry and any(found.values()) else None}
