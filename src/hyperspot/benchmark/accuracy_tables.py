"""The tables that show how well methods find defects: 2, 3, 4, 5, 7, 9, 10 and 11."""

from collections.abc import Sequence

from hyperspot.benchmark.plans import ABLATION, FUSED, TABLE_BACKBONES, Absent, recipes_for
from hyperspot.benchmark.published import published
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.selection import (
    IMAGE,
    METRICS,
    PIXEL,
    PRO,
    Group,
    groups,
    missing_methods,
    plain_name,
    printed_cell,
    published_cell,
    row,
    shared_categories,
)
from hyperspot.benchmark.table import Cell, Column, Given, Spread, spread_of_means
from hyperspot.methods import METHODS

Body = tuple[tuple[Column, ...], list[dict[str, Cell]], list[Group]]
WHAT = (Column("what", "method"), Column("backbone", "backbone"))
OURS = (Column(IMAGE, "I-AUROC"), Column(PIXEL, "P-AUROC"), Column(PRO, "AUPRO"))


def by_group(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:
    """Table 2: textures, objects, all of MVTec AD, and what else there is."""
    columns = (
        *WHAT,
        Column("group", "group"),
        Column("present", "categories"),
        OURS[0],
        Column("published_image", "published, the same"),
        Column("paper_image", "CFA paper, all"),
        OURS[1],
        Column("published_pixel", "published, the same"),
        Column("paper_pixel", "CFA paper, all"),
        OURS[2],
        Column("photo_pixel", "P-AUROC, photo"),
        Column("photo_pro", "AUPRO, photo"),
    )
    found = groups(lines, recipes_for(2, METHODS))
    rows: list[dict[str, Cell]] = []
    known = published().groups
    for group in found:
        others = tuple(name for name in group.categories if name not in known["all"])
        for title, names in (*known.items(), *((("other", others),) if others else ())):
            present = [name for name in names if name in group.categories]
            if not present and title != "all":
                continue
            paper = next(iter(published().rows(2, group.published_as)), None)
            rows.append(
                row(
                    what=group.label,
                    backbone=group.backbone,
                    group=title,
                    present=f"{len(present)} of {len(names)}" if title in known else str(len(present)),
                    **{metric: mean_over(group, present, metric) for metric in METRICS},
                    published_image=published_cell(group, IMAGE, present) if present else None,
                    published_pixel=published_cell(group, PIXEL, present) if present else None,
                    paper_image=printed_cell(paper, IMAGE, title),
                    paper_pixel=printed_cell(paper, PIXEL, title),
                    photo_pixel=mean_over(group, present, PIXEL, photo=True),
                    photo_pro=mean_over(group, present, PRO, photo=True),
                )
            )
    for name, reason in missing_methods(found, absent):
        paper = next(iter(published().rows(2, name)), None)
        cells = {"paper_image": printed_cell(paper, IMAGE), "paper_pixel": printed_cell(paper, PIXEL)}
        rows.append(row(what=name, group="all", present=reason, **cells))
    return columns, rows, found


def randomized(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:
    """Table 3: mean and deviation over the frozen versions."""
    columns = (
        *WHAT,
        Column("category", "category"),
        Column("versions", "versions"),
        OURS[0],
        Column("paper_image", "CFA paper, I-AUROC"),
        OURS[2],
        Column("paper_pro", "CFA paper, AUPRO"),
        OURS[1],
    )
    turned = [line for line in lines if line.get("version") is not None]
    found = groups(turned, recipes_for(3, METHODS))
    rows: list[dict[str, Cell]] = []
    for group in found:
        for category in group.categories:
            values = {metric: by_version(group, category, metric) for metric in METRICS}
            cells = {metric: Spread.of(one.values(), 100.0) for metric, one in values.items()}
            rows.append(_named(group, category=plain_name(category), versions=str(len(values[IMAGE])), **cells))
        per_metric = {
            metric: spread_of_means([by_version(group, name, metric) for name in group.categories], 100.0)
            for metric in METRICS
        }
        rows.append(_named(group, category=f"mean of {len(group.categories)}", **per_metric))
    rows += [
        row(
            what=f"published {paper.label}",
            backbone=paper.backbone,
            category="mean of 15",
            paper_image=printed_cell(paper, IMAGE),
            paper_pro=printed_cell(paper, PRO),
        )
        for paper in published().rows(3)
    ]
    rows += [row(what=name, category=reason) for name, reason in missing_methods(found, absent)]
    return columns, rows, found


def by_category(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:
    """Table 4: every category by itself."""
    columns: tuple[Column, ...] = (
        Column("category", "category"),
        *WHAT,
        Column("seeds", "seeds"),
        OURS[0],
        Column("published", "published"),
        Column("difference", "difference"),
        *OURS[1:],
    )
    found = groups(lines, recipes_for(4, METHODS))
    watched = any("oracle" in line for group in found for line in group.lines)
    if watched:
        columns = (*columns, Column("oracle", "best checkpoint (oracle)"))
    rows: list[dict[str, Cell]] = []
    for category in sorted({name for group in found for name in group.categories}, key=_dev_last):
        for group in found:
            values = group.by_seed(category, IMAGE)
            ours = Spread.of(values.values(), 100.0)
            if ours is None:
                continue
            theirs = published_cell(group, IMAGE, [category])
            rows.append(
                _named(
                    group,
                    category=plain_name(category),
                    seeds=str(len(values)),
                    image_auroc=ours,
                    pixel_auroc=Spread.of(group.by_seed(category, PIXEL).values(), 100.0),
                    aupro_30=Spread.of(group.by_seed(category, PRO).values(), 100.0),
                    published=theirs,
                    difference=_difference(ours, theirs),
                    oracle=_of_seeds(Spread.of(group.by_seed(category, IMAGE, part="oracle").values(), 100.0), ours),
                )
            )
    rows += [row(category="all", what=name, image_auroc=reason) for name, reason in missing_methods(found, absent)]
    return columns, rows, found


def ablation(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:  # noqa: ARG001
    """Table 5: which losses, and whether the radius is learned."""
    columns = (
        *WHAT,
        Column("losses", "losses"),
        Column("category", "category"),
        Column("seeds", "seeds"),
        *OURS,
        Column("paper_image", "CFA paper, I-AUROC"),
        Column("paper_pixel", "CFA paper, P-AUROC"),
    )
    found = groups(lines, list(ABLATION))
    rows: list[dict[str, Cell]] = []
    for group in found:
        losses = ABLATION[group.recipe]
        for category in group.categories:
            cells = {metric: Spread.of(group.by_seed(category, metric).values(), 100.0) for metric in METRICS}
            seeds = str(len(group.by_seed(category, IMAGE)))
            rows.append(_named(group, losses=losses, category=plain_name(category), seeds=seeds, **cells))
        printed = [one for one in published().rows(5) if one.losses == losses and one.backbone == group.backbone]
        # The released code learns the radius, so only those variants have a published counterpart.
        paper = printed[0] if printed and "fixed" not in group.recipe and group.recipe != "cfa paper" else None
        shared, missing = shared_categories(found, group)
        title = f"mean of {len(shared)} shared" if shared else "none shared by all variants"
        rows.append(
            _named(
                group,
                losses=losses,
                category=f"lacks {missing} of {len(shared)} shared" if missing else title,
                **{metric: None if missing else mean_over(group, shared, metric) for metric in METRICS},
                paper_image=printed_cell(paper, IMAGE),
                paper_pixel=printed_cell(paper, PIXEL),
            )
        )
    return columns, rows, found


def backbones(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:
    """Table 7: one method on several feature extractors."""
    columns = (
        Column("backbone", "backbone"),
        Column("what", "method"),
        Column("categories", "categories"),
        *OURS,
        Column("paper_image", "CFA paper, I-AUROC"),
        Column("paper_pixel", "CFA paper, P-AUROC"),
    )
    found = groups(lines, recipes_for(7, METHODS))
    reasons = {one.name: one.reason for one in absent if one.kind == "backbone"}
    rows: list[dict[str, Cell]] = []
    names = [*TABLE_BACKBONES, *sorted({group.backbone for group in found} - set(TABLE_BACKBONES))]
    for backbone in names:
        own = [group for group in found if group.backbone == backbone]
        for group in own:
            cells = {metric: mean_over(group, group.categories, metric) for metric in METRICS}
            rows.append(_named(group, categories=str(len(group.categories)), **cells))
        if not own:
            rows.append(row(backbone=backbone, what="–", categories=reasons.get(backbone, "no run")))
        for paper in published().rows(7):
            if paper.backbone == backbone:
                printed = {"paper_image": printed_cell(paper, IMAGE), "paper_pixel": printed_cell(paper, PIXEL)}
                rows.append(row(backbone=backbone, what=f"published {paper.label}", categories="15", **printed))
    return columns, rows, found


def oracle(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:
    """Table 9: the same runs at their last and at their best checkpoint."""
    columns = (
        Column("category", "category"),
        *WHAT,
        Column("metric", "metric"),
        Column("seeds", "seeds"),
        Column("last", "last checkpoint"),
        Column("best", "best checkpoint (oracle)"),
        Column("adds", "oracle adds"),
        Column("published", "published"),
        Column("checkpoints", "checkpoints"),
    )
    watched = [line for line in lines if line.get("watched")]
    found = groups(watched, recipes_for(9, METHODS))
    rows: list[dict[str, Cell]] = []
    for group in found:
        seen = [line for line in group.lines if "oracle" in line]
        if not seen:
            rows.append(_named(group, category="all", metric="it reports no checkpoint to choose from"))
            continue
        for metric, title in METRICS.items():
            adds = []
            for category in group.categories:
                best = group.by_seed(category, metric, part="oracle")
                last = {seed: one for seed, one in group.by_seed(category, metric).items() if seed in best}
                added = {seed: best[seed] - last[seed] for seed in last}
                adds.append(added)
                rows.append(
                    _named(
                        group,
                        category=plain_name(category),
                        metric=title,
                        seeds=str(len(last)),
                        last=Spread.of(last.values(), 100.0),
                        best=Spread.of((best[seed] for seed in last), 100.0),
                        adds=Spread.of(added.values(), 100.0),
                        published=published_cell(group, metric, [category]),
                        checkpoints=str(max(len(line["history"]) for line in seen)),
                    )
                )
            mean = spread_of_means([one for one in adds if one], 100.0)
            rows.append(_named(group, category=f"mean of {len(adds)}", metric=title, adds=mean))
    rows += [row(category="all", what=name, metric=reason) for name, reason in missing_methods(found, absent)]
    return columns, rows, found


def promises(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:  # noqa: ARG001
    """Table 10: what calibration on good photos promised, and what was seen on the test photos."""
    columns = (
        Column("category", "category"),
        *WHAT,
        Column("seeds", "seeds"),
        Column("good", "good test photos"),
        Column("promised", "promised, %"),
        Column("observed", "observed, %"),
        Column("found", "defects found, %"),
        Column("seg_f1", "segmentation F1, %"),
    )
    kept = {
        "promised": "promised_false_alarm_rate",
        "observed": "observed_false_alarm_rate",
        "found": "detection_rate",
        "seg_f1": "seg_f1",
    }
    found = groups(lines, recipes_for(10, METHODS))
    rows: list[dict[str, Cell]] = []
    for group in found:
        for category in group.categories:
            cells = {
                name: Spread.of(group.by_seed(category, metric, where="photo").values(), 100.0)
                for name, metric in kept.items()
            }
            good = str(group.of(category)[-1]["last"]["good_images"])
            seeds = str(len(group.by_seed(category, IMAGE)))
            rows.append(_named(group, category=plain_name(category), seeds=seeds, good=good, **cells))
    return columns, rows, found


def fusion(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:  # noqa: ARG001
    """Table 11: the fused map against each view alone, from the same runs."""
    columns = (
        Column("category", "category"),
        *WHAT,
        Column("view", "view"),
        Column("seeds", "seeds"),
        *OURS,
        Column("published_image", "published, I-AUROC"),
        Column("published_pixel", "published, P-AUROC"),
    )
    found = groups(lines, [FUSED])
    rows: list[dict[str, Cell]] = []
    for group in found:
        for category in group.categories:
            for part, title, known in (
                ("center", "crop alone", "cfa"),
                ("full", "resize alone", "cfa_resize"),
                ("last", "fused", "cfa++"),
            ):
                entry = published().by_category(known)
                cells: dict[str, Cell] = {}
                for name, metric in (("published_image", IMAGE), ("published_pixel", PIXEL)):
                    figure = None if entry is None else entry.figures[metric].get(category)
                    notes = () if entry is None else published().texts(entry.notes)
                    cells[name] = None if figure is None else Given(figure, notes)
                for metric in METRICS:
                    cells[metric] = Spread.of(group.by_seed(category, metric, part=part).values(), 100.0)
                seeds = str(len(group.by_seed(category, IMAGE, part=part)))
                rows.append(_named(group, category=plain_name(category), crop=title, seeds=seeds, **cells))
    return columns, rows, found


def mean_over(group: Group, categories: Sequence[str], metric: str, *, photo: bool = False) -> Spread | None:
    """Return mean and deviation over seeds, in per cent, of the mean over categories."""
    where = "photo" if photo else "input"
    return spread_of_means([group.by_seed(name, metric, where=where) for name in categories], 100.0)  # type: ignore[arg-type]


def by_version(group: Group, category: str, metric: str) -> dict[int, float]:
    """Return, for each randomized version, the mean of a metric over seeds."""
    gathered: dict[int, dict[int, float]] = {}
    for seed in {int(line["seed"]) for line in group.of(category)}:
        own = Group(
            group.label,
            group.recipe,
            group.method,
            group.backbone,
            tuple(line for line in group.lines if line["seed"] == seed),
        )
        for version, figure in own.by_seed(category, metric, by="version").items():
            gathered.setdefault(version, {})[seed] = figure
    return {version: sum(one.values()) / len(one) for version, one in sorted(gathered.items())}


def _named(group: Group, **cells: Cell) -> dict[str, Cell]:
    return row(what=group.label, backbone=group.backbone, **cells)


def _of_seeds(oracle: Spread | None, ours: Spread) -> Spread | str | None:
    """Return the oracle's figure, with a word where fewer seeds have it: the two are not to be subtracted then."""
    if oracle is None or oracle.count == ours.count:
        return oracle
    return f"{oracle.mean:.2f} ({oracle.count} of {ours.count} seeds)"


def _difference(ours: Spread, theirs: Given | None) -> float | None:
    if theirs is None or isinstance(theirs.value, str):
        return None
    return ours.mean - theirs.value


def _dev_last(name: str) -> tuple[bool, str]:
    return plain_name(name) != name, name
