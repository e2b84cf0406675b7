"""Retention: by age and by space, good ones first, labeled ones never."""

import os
import time
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import event

from hyperspot.service.database.tables import Inspection, Label, ModelVersion, Product, StoredImage, TrainingImage, now
from hyperspot.service.inference.outcome import Outcome
from hyperspot.service.records.image_store import ImageStore, key_of, result_content
from hyperspot.service.records.retention import ORPHAN_SECONDS, Limits, Retention

OUTCOME = Outcome(1.0, 0.5, 2.0, False, 1.0, {}, {}, 4, 4, np.zeros((4, 4), np.float32), None, {})
RESULT = result_content(OUTCOME)


@pytest.fixture
def database(database):
    with database.session() as session:
        session.add(Product(id="bolt", name="Bolt"))
        session.flush()
        session.add(
            ModelVersion(
                product_id="bolt", number=1, sha256="0", suffix=".onnx", size=1, origin="uploaded", created_by="tests"
            )
        )
    return database


@pytest.fixture
def images(tmp_path):
    return ImageStore(tmp_path)


def add(database, images, name, *, days=0.0, is_anomalous=False, label=None, size=1000):
    content = b"BM" + name.encode().ljust(size - 2)
    stored_at = now() - timedelta(days=days)
    key = key_of(content)
    images.put(key, content)
    with database.session() as session:
        session.add(
            StoredImage(
                sha256=key.sha256,
                suffix=key.suffix,
                size=size,
                width=4,
                height=4,
                stored_at=stored_at,
            )
        )
        session.flush()
        images.put_result(name.ljust(32, "0"), RESULT)
        inspection = Inspection(
            id=name.ljust(32, "0"),
            product_id="bolt",
            version_id=1,
            version_number=1,
            image_sha256=key.sha256,
            source="rest",
            received_at=now(),
            score=1.0,
            is_anomalous=is_anomalous,
            milliseconds=1.0,
            width=4,
            height=4,
            result_size=len(RESULT),
            verdict={},
            rendering={},
        )
        session.add(inspection)
        session.flush()
        if label is not None:
            session.add(Label(inspection_number=inspection.number, reviewer="ann", label=label))
    return key


def kept(images, **keys):
    return {name for name, key in keys.items() if images.read(key) is not None}


def test_old_images_go_and_their_inspections_stay(database, images):
    keys = {
        "old": add(database, images, "a", days=10),
        "labeled": add(database, images, "b", days=10, label="good"),
        "new": add(database, images, "c", days=1),
        "trained": add(database, images, "t", days=10),
    }
    with database.session() as session:
        session.add(
            TrainingImage(product_id="bolt", image_sha256=keys["trained"].sha256, origin="reviewed", added_by="tests")
        )
    assert Retention(database, images, Limits(5.0, None)).apply() == 1
    assert kept(images, **keys) == {"labeled", "new", "trained"}
    assert images.read_result("a".ljust(32, "0")) is None
    assert images.read_result("c".ljust(32, "0")) is not None
    with database.session() as session:
        assert session.query(Inspection).count() == 4
        assert session.get(StoredImage, keys["old"].sha256).removed_at is not None


def test_space_takes_good_parts_first_and_then_the_oldest(database, images):
    keys = {
        "alarm": add(database, images, "a", days=9, is_anomalous=True),
        "older": add(database, images, "b", days=3),
        "newer": add(database, images, "c", days=2),
        "labeled": add(database, images, "d", days=8, label="unsure"),
    }
    with database.session() as session:
        each = 1000 + session.query(Inspection).first().result_size
    assert Retention(database, images, Limits(None, 3.5 * each / 1e9)).apply() == 1
    assert kept(images, **keys) == {"alarm", "newer", "labeled"}
    assert Retention(database, images, Limits(None, each / 1e9)).apply() == 2
    assert kept(images, **keys) == {"labeled"}
    assert Retention(database, images, Limits(None, 1e-9)).apply() == 0


def test_an_image_in_use_is_not_removed(database, images):
    key = add(database, images, "a", days=10)
    with images.using(key):
        Retention(database, images, Limits(5.0, None)).apply()
        assert images.read(key) is not None


def test_files_without_an_inspection_go_after_an_hour(database, images):
    content = b"BM orphan"
    key = key_of(content)
    images.put(key, content)
    retention = Retention(database, images, Limits(None, None))
    retention.apply()
    assert images.read(key) == content
    past = time.time() - ORPHAN_SECONDS - 1
    os.utime(images.path(key), (past, past))
    retention.apply()
    assert images.read(key) is None


def test_maps_without_an_inspection_go_after_an_hour(database, images):
    add(database, images, "a")
    images.put_result("b".ljust(32, "0"), RESULT)
    past = time.time() - ORPHAN_SECONDS - 1
    for path in images.result_files():
        os.utime(path, (past, past))
    Retention(database, images, Limits(None, None)).apply()
    assert [path.stem[0] for path in images.result_files()] == ["a"]


def test_files_are_looked_up_together(database, images):
    past = time.time() - ORPHAN_SECONDS - 1
    for number in range(20):
        os.utime(images.path(add(database, images, chr(97 + number))), (past, past))
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    Retention(database, images, Limits(None, None)).apply()
    assert len(statements) == 2
