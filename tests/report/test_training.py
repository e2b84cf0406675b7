"""The training report: images to check with pictures, the promise, the estimate, groups; nothing from outside."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot import Detector, open_dataset, read_image
from hyperspot.errors import DataError
from hyperspot.report.training import (
    LISTED,
    TrainingReport,
    images_to_check,
    render,
    training_report,
    write_training_report,
)

GLARE = 7


@pytest.fixture(scope="module")
def images(product) -> list:
    """Return the good images of the product, one of them with a bright bar."""
    images = [read_image(sample.path) for sample in open_dataset(product).train]
    images[GLARE] = images[GLARE].copy()
    images[GLARE][50:70, 20:110] = 255
    return images


@pytest.fixture(scope="module")
def names(images) -> list[str]:
    return [f"good/{number}.png" for number in range(len(images))]


@pytest.fixture(scope="module")
def trained(images) -> Detector:
    return Detector.fit(images, short_side=128, false_alarm_rate=0.2)


@pytest.fixture(scope="module")
def report(trained: Detector, images, names) -> TrainingReport:
    return training_report(
        trained,
        images,
        names,
        name="flange <b>",
        power=trained.estimate_power(images, count=20),
        groups=["monday"] * 10 + ["tuesday"] * (len(images) - 10),
        problems=["good/1.png and good/2.png look like one part"],
        command="hyperspot train data",
    )


def test_the_image_with_glare_sets_the_threshold_and_is_odd(trained: Detector, names: list[str]):
    listed = images_to_check(trained, names)
    assert listed[0].name == f"good/{GLARE}.png"
    assert listed[0].sets_threshold
    assert listed[0].is_odd
    assert [one.score for one in listed] == sorted((one.score for one in listed), reverse=True)
    threshold = trained.decision_rule.calibration.threshold
    assert {one.index for one in listed if one.sets_threshold} == {
        one.index for one in trained.held_out if one.score >= threshold
    }


def test_the_list_is_short_even_at_a_high_rate(images, names):
    many = Detector.fit(images, short_side=64, false_alarm_rate=0.9)
    assert len(images_to_check(many, names)) == LISTED


@pytest.mark.parametrize("method", ["padim", "patchcore", "spade"])
def test_images_of_equal_scores_have_pictures(images, method: str):
    same = [images[0]] * 20
    detector = Detector.fit(same, method=method, short_side=64, false_alarm_rate=0.2)
    report = training_report(detector, same, [str(number) for number in range(20)], name="part")
    assert [one.index for one in report.listed] == list(range(LISTED))
    assert all(len(one.pictures) == 3 for one in report.listed)


def test_with_groups_only_the_images_that_calibrate_set_the_threshold(images, names):
    groups = [str(number // 4) for number in range(len(images))]
    detector = Detector.fit(images, short_side=64, false_alarm_rate=0.9, groups=groups)
    calibration = detector.decision_rule.calibration
    calibrating = [one for one in detector.held_out if one.calibrates]
    assert sorted(one.score for one in calibrating) == list(calibration.scores)
    report = training_report(detector, images, names, name="part", groups=groups)
    setting = {one.index for one in report.listed if one.sets_threshold}
    assert setting == {one.index for one in calibrating if one.score >= calibration.threshold}
    # More images than are listed reach the threshold.
    assert sum(one.score >= calibration.threshold for one in detector.held_out) > LISTED
    assert all(one.pictures for one in report.listed)


def test_pictures_show_the_image_and_its_heatmap(report: TrainingReport):
    first = report.listed[0]
    assert [Image.open(io.BytesIO(picture)).size for picture in first.pictures] == [(128, 128)] * 3
    image, heatmap, _ = (np.asarray(Image.open(io.BytesIO(picture))).astype(int) for picture in first.pictures)
    changed = np.abs(image - heatmap).sum(axis=2)
    assert changed[50:70, 20:110].mean() > 2 * changed[:40].mean()


def test_the_page_holds_everything_and_loads_nothing(report: TrainingReport, tmp_path: Path):
    page = write_training_report(report, tmp_path / "new" / "part.training.html").read_text("utf-8")
    calibration = report.calibration
    for text in (
        "flange &lt;b&gt;",
        "look like one part",
        f"good/{GLARE}.png",
        "sets the threshold",
        "20.0 %",
        calibration.steadiness(),
        f"{100 * report.power.detection_rate:.1f} %",
        "An estimate from synthetic defects",
        "missing-part",
        "tuesday",
    ):
        assert text in page, text
    assert "flange <b>" not in page
    assert {source[:22] for source in re.findall(r'src="([^"]*)"', page)} == {"data:image/jpeg;base64"}
    assert "://" not in page.split("<details>")[0]


def test_the_limit_of_odd_images_is_the_one_that_applies(report: TrainingReport, monkeypatch):
    assert "more than 4 robust standard deviations" in render(report)
    monkeypatch.setattr("hyperspot.report.training.FAR", 5.5)
    assert "more than 5.5 robust standard deviations" in render(report)


def test_the_table_counts_every_synthetic_defect(report: TrainingReport):
    table = render(report).partition('aria-labelledby="power"')[2].partition("</table>")[0]
    cells = re.findall(r"<td>(\d+) of (\d+)</td>", table)
    found, drawn = (sum(int(cell[place]) for cell in cells) for place in (0, 1))
    # The last row repeats the sums.
    assert drawn == 2 * 20
    assert found == 2 * round(20 * report.power.detection_rate)


def test_without_calibration_there_is_nothing_to_check(images, names):
    detector = Detector.fit(images[:6], short_side=64, calibration="none")
    report = training_report(detector, images[:6], names[:6], name="part")
    assert report.listed == ()
    page = render(report)
    assert "no calibration" in page
    assert "Images to check" not in page
    assert "Estimated detection rate" not in page


def test_a_page_that_cannot_be_written_is_an_error(report: TrainingReport, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_training_report(report, tmp_path / "file" / "page.html")
