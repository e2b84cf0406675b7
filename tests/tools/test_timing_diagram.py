"""The timing diagrams of the PLC page are what the handshake does."""

import pytest

from tools.timing_diagram import PAGE, SCENES, draw, updated


def test_the_page_shows_what_the_handshake_does():
    page = PAGE.read_text()
    assert updated(page) == page


@pytest.mark.parametrize(("scene", "codes"), [("ok", "00000"), ("slow", "00500"), ("missed", "00060")])
def test_the_diagrams_show_the_time_outs(scene, codes):
    lines = {line[:14].strip(): line[14:] for line in draw(SCENES[scene]).splitlines()}
    assert "".join(lines["error code"].split()) == codes
    assert "".join(lines["counter"].split())[:3] == "001"


def test_a_page_without_a_place_is_named():
    with pytest.raises(SystemExit, match="no place for the diagram 'ok'"):
        updated("# PLC")
