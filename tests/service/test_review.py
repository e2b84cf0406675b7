"""Review: labels, the queue, what labels say, and two versions compared; on both databases."""

import io
import math
import uuid

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.orm import Session

from hyperspot.metrics.intervals import exact_interval
from hyperspot.service.database.tables import Inspection, Label, ModelVersion, Product, StoredImage, now
from hyperspot.service.problems import Problem
from hyperspot.service.review.comparison import Compared, Decision, compare, mcnemar
from hyperspot.service.review.labels import add_label, consensus, labels_of
from hyperspot.service.review.learning import Group, Labeled, detection_rate, false_alarm_rate, figures_of, trade_off
from hyperspot.service.review.queue import count_waiting, next_inspections


@pytest.fixture
def version(database):
    with database.session() as session:
        session.add(Product(id="bolt", name="Bolt"))
        session.flush()
        made = ModelVersion(
            product_id="bolt", number=1, sha256="0" * 64, suffix=".onnx", size=1, origin="uploaded", created_by="tests",
            false_alarm_rate=0.05, threshold=10.0,
        )  # fmt: skip
        session.add(made)
    return made


def inspection(session, version, score, *, reason=None, source="rest", image=None, **values):
    alarm = score > 10
    digest = image or uuid.uuid4().hex * 2
    if session.get(StoredImage, digest) is None:
        session.add(StoredImage(sha256=digest, suffix=".png", size=1, width=40, height=30))
        session.flush()
    added = Inspection(
        id=uuid.uuid4().hex, product_id="bolt", version_id=version.id, version_number=1, image_sha256=digest,
        source=source, received_at=now(), score=score, p_value=0.01 if alarm else 0.5, threshold=10.0,
        is_anomalous=alarm, milliseconds=1.0, width=40, height=30, verdict={}, rendering={}, result_size=1,
        review_reason="alarm" if alarm and reason is None else reason,
    )  # fmt: skip
    for name, value in values.items():
        setattr(added, name, value)
    session.add(added)
    session.flush()
    return added


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def test_the_newest_label_of_each_reviewer_counts(database, version):
    with database.session() as session:
        one = inspection(session, version, 12.0)
        add_label(session, one, "ann", "good")
        add_label(session, one, "bob", "defect")
        assert consensus(labels_of(session, [one.number])[one.number]) == "disagreement"
        add_label(session, one, "ann", "defect", comment="  seen again ")
        labels = labels_of(session, [one.number])[one.number]
        assert consensus(labels) == "defect"
        assert [(label.reviewer, label.label, label.comment) for label in labels] == [
            ("bob", "defect", ""),
            ("ann", "defect", "seen again"),
        ]
        assert session.query(Label).count() == 3
    assert consensus([]) is None
    assert consensus([Label(reviewer="ann", label="unsure")]) == "unsure"


def test_a_mask_is_kept_as_one_bit_per_pixel(database, version):
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[5:9, 10:20] = (0, 0, 1)
    with database.session() as session:
        label = add_label(session, inspection(session, version, 12.0), "ann", "defect", png(pixels))
    with Image.open(io.BytesIO(label.mask)) as kept:
        assert (kept.mode, kept.size) == ("1", (40, 30))
        assert (np.asarray(kept) == pixels.any(axis=2)).all()


@pytest.mark.parametrize(
    ("label", "mask", "comment", "message"),
    [
        ("bad", None, "", "no label 'bad'"),
        ("good", png(np.ones((30, 40), np.uint8)), "", "only a defect"),
        ("defect", png(np.ones((31, 40), np.uint8)), "", "40 x 31"),
        ("defect", png(np.zeros((30, 40), np.uint8)), "", "marks no pixel"),
        ("defect", b"<svg/>", "", "no readable PNG"),
        ("defect", png(np.ones((30, 40), np.uint8))[:50], "", "no readable PNG"),
        ("defect", None, "x" * 1001, "1001 characters"),
    ],
    ids=["label", "mask of good", "size", "empty", "svg", "truncated", "comment"],
)
def test_labels_that_do_not_fit_are_refused(label, mask, comment, message):
    with pytest.raises(Problem, match=message):
        add_label(Session(), Inspection(number=1, id="a", width=40, height=30), "ann", label, mask, comment)


def test_the_queue_has_alarms_first_then_near_misses_then_the_sample(database, version):
    with database.session() as session:
        sample = inspection(session, version, 1.0, reason="sample")
        near = inspection(session, version, 9.0, reason="near-miss")
        alarm = inspection(session, version, 12.0)
        older = inspection(session, version, 13.0)
        inspection(session, version, 2.0)
        gone = inspection(session, version, 14.0)
        session.get(StoredImage, gone.image_sha256).removed_at = now()
        expected = [older.id, alarm.id, near.id, sample.id]
        assert [one.id for one in next_inspections(session, "bolt", "ann")] == expected
        assert count_waiting(session, "bolt", "ann") == {"alarm": 2, "near-miss": 1, "sample": 1}
        assert next_inspections(session, "nut", "ann") == []
        assert len(next_inspections(session, None, "ann", limit=2)) == 2


def test_a_reviewer_sees_nothing_twice_and_disputes_before_second_opinions(database, version):
    with database.session() as session:
        first, second, third = (inspection(session, version, 12.0) for _ in range(3))
        add_label(session, second, "ann", "good")
        add_label(session, first, "ann", "defect")
        add_label(session, first, "bob", "good")
        queues = {who: [one.id for one in next_inspections(session, "bolt", who)] for who in ("ann", "bob", "eve")}
        assert queues == {
            "ann": [third.id],
            "bob": [third.id, second.id],
            "eve": [third.id, first.id, second.id],
        }
        assert count_waiting(session, "bolt", "eve")["alarm"] == 1


def test_figures_weight_the_sampled_passes(database, version):
    with database.session() as session:
        for _ in range(8):
            add_label(session, inspection(session, version, 20.0), "ann", "defect")
        for _ in range(2):
            add_label(session, inspection(session, version, 11.0), "ann", "good")
        for number in range(25):
            label = "defect" if number == 0 else "good"
            add_label(session, inspection(session, version, 5.0, reason="sample"), "ann", label)
        for _ in range(75):
            inspection(session, version, 4.0)
        # On own initiative: no random sample.
        add_label(session, inspection(session, version, 3.0), "ann", "defect")
        figures = figures_of(session, version)
    # 101 passes; each of 25 labels stands for 4.04 of them.
    assert figures.detection_rate.value == pytest.approx(8 / (8 + 101 / 25))
    assert figures.false_alarm_rate.value == pytest.approx(2 / (2 + 24 * 101 / 25))
    assert (figures.detection_rate.count, figures.detection_rate.total) == (8, 9)
    assert figures.detection_rate.low < figures.detection_rate.value < figures.detection_rate.high
    assert figures.groups["sample"] == Group(101, good=24, defect=1)
    assert "stands for 4.0 passed parts" in figures.sentence
    assert figures.own_choice == 1
    at_threshold = next(point for point in figures.trade_off if point["threshold"] == 11.0)
    assert at_threshold["detection_rate"] == pytest.approx(figures.detection_rate.value)
    assert at_threshold["false_alarm_rate"] == pytest.approx(figures.false_alarm_rate.value)


def test_no_rate_is_claimed_from_too_few_labels(database, version):
    with database.session() as session:
        for _ in range(4):
            add_label(session, inspection(session, version, 20.0), "ann", "defect")
        for _ in range(30):
            inspection(session, version, 4.0, reason="sample")
        figures = figures_of(session, version)
        assert figures.detection_rate.value is None
        assert figures.detection_rate.missing == "4 defects are labeled, and 5 are needed"
        add_label(session, inspection(session, version, 20.0), "ann", "defect")
        figures = figures_of(session, version)
        assert figures.detection_rate.value is None
        assert "random sample" in figures.detection_rate.missing
        assert figures.detection_rate.low < 0.2
        assert figures.trade_off == []


def test_disputed_and_unsure_labels_decide_nothing(database, version):
    with database.session() as session:
        one, other = inspection(session, version, 20.0), inspection(session, version, 20.0)
        add_label(session, one, "ann", "defect")
        add_label(session, one, "bob", "good")
        add_label(session, other, "ann", "unsure")
        figures = figures_of(session, version)
    assert (figures.disagreements, figures.unsure) == (1, 1)
    assert figures.groups["alarm"] == Group(2)


def test_imported_images_are_counted_by_themselves(database, version):
    with database.session() as session:
        for number in range(10):
            score = 20.0 if number < 7 else 1.0
            add_label(session, inspection(session, version, score, source="import"), "ann", "defect")
        figures = figures_of(session, version)
    assert figures.imported_detection_rate.value == 0.7
    assert figures.imported_false_alarm_rate.value is None
    assert figures.groups["alarm"] == Group(0)


def test_without_sampling_the_interval_is_that_of_the_plain_count():
    groups = {"alarm": Group(10, 2, 8), "near-miss": Group(6, 4, 2), "sample": Group(30, 28, 2)}
    assert (detection_rate(groups).low, detection_rate(groups).high) == exact_interval(8, 12)
    assert (false_alarm_rate(groups).low, false_alarm_rate(groups).high) == exact_interval(2, 34)
    one_less = groups | {"sample": Group(31, 28, 2)}
    assert detection_rate(one_less).low < detection_rate(groups).low


def test_the_interval_holds_the_true_rate():
    """Simulated reviews: the joint interval misses the true detection rate in less than 5 % of them."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        alarms, passes, share = 60, 3000, 0.05
        detected, missed = 45, 15
        defects = random.hypergeometric(missed, passes - missed, round(passes * share))
        labeled = round(passes * share)
        groups = {
            "alarm": Group(alarms, good=alarms - detected, defect=detected),
            "near-miss": Group(0),
            "sample": Group(passes, good=labeled - int(defects), defect=int(defects)),
        }
        rate = detection_rate(groups)
        wrong += not rate.low <= detected / (detected + missed) <= rate.high
        assert false_alarm_rate(groups).low <= 15 / (15 + passes - missed) <= false_alarm_rate(groups).high
    assert wrong <= 10


def test_mcnemar_is_the_sign_test_of_the_images_that_differ():
    for first, second in [(0, 0), (1, 9), (4, 5), (20, 3)]:
        total = first + second
        expected = sum(
            math.comb(total, count) / 2**total
            for count in range(total + 1)
            if abs(count - total / 2) >= abs(first - total / 2)
        )
        assert mcnemar(first, second) == pytest.approx(expected)


def test_a_comparison_says_who_finds_more_and_lists_what_differs():
    yes, no = Decision(2.0, 0.01, True), Decision(1.0, 0.5, False)
    rows = [
        *(Compared(f"d{number}", number, True, no, yes) for number in range(8)),
        Compared("d8", 8, True, yes, no),
        *(Compared(f"g{number}", 20 + number, False, no, no) for number in range(5)),
        Compared("g9", 29, False, yes, no),
    ]
    result = compare(rows)
    assert (result["defects"]["active"]["right"], result["defects"]["candidate"]["right"]) == (1, 8)
    assert result["defects"]["better"] == "candidate"
    assert result["good"]["better"] is None
    assert [one["inspection_id"] for one in result["differences"]][:2] == ["d8", "d7"]
    assert len(result["differences"]) == 10
    assert "no image has a label" in compare([])["sentence"]


def test_a_trade_off_is_thinned_with_its_ends_kept():
    points = trade_off([Labeled(float(number), number % 2 == 0, True) for number in range(1000)])
    assert len(points) == 200
    assert (points[0]["threshold"], points[-1]["detection_rate"], points[-1]["false_alarm_rate"]) == (999.0, 1.0, 1.0)
