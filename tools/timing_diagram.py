"""Draws the timing diagrams of the handshake in docs/station/plc.md by running it: `python tools/timing_diagram.py`."""

import re
from dataclasses import dataclass
from pathlib import Path

from hyperspot.service.outputs.handshake import Handshake, PlcSignals, StationSignals

PAGE = Path(__file__).resolve().parents[1] / "docs" / "station" / "plc.md"
WIDTH = 8
"""Characters of a step."""


@dataclass(frozen=True)
class Step:
    """What happens at one moment.

    Attributes:
        plc: Signals of the PLC from now on.
        seconds: That pass before.
        finishes: Whether the inspection has its result: a part that passes.
    """

    plc: PlcSignals
    seconds: float = 0.0
    finishes: bool = False


IDLE, TRIGGERED = PlcSignals(), PlcSignals(trigger=True)
SCENES = {
    "ok": [
        Step(IDLE),
        Step(TRIGGERED),
        Step(TRIGGERED, 1, finishes=True),
        Step(PlcSignals(acknowledge=True), 1),
        Step(IDLE, 1),
    ],
    "slow": [
        Step(IDLE),
        Step(TRIGGERED),
        Step(TRIGGERED, 10),
        Step(PlcSignals(acknowledge=True), 1),
        Step(IDLE, 1),
    ],
    "missed": [Step(IDLE), Step(TRIGGERED), Step(IDLE, 1, finishes=True), Step(IDLE, 5), Step(TRIGGERED, 1)],
}
ROWS = {
    "ready": "ready",
    "busy": "busy",
    "result ready": "result_ready",
    "OK": "ok",
    "NG": "ng",
    "error": "error",
}


def play(steps: list[Step]) -> list[tuple[PlcSignals, StationSignals]]:
    """Return the signals after each step."""
    now = 0.0
    handshake = Handshake(clock=lambda: now)
    ticket, seen = 0, []
    for step in steps:
        now += step.seconds
        if step.finishes:
            handshake.finish(ticket, is_anomalous=False)
        ticket = handshake.update(step.plc) or ticket
        seen.append((step.plc, handshake.signals))
    return seen


def draw(steps: list[Step]) -> str:
    """Return the diagram of some steps."""
    seen = play(steps)
    levels = {"trigger": [plc.trigger for plc, _ in seen], "acknowledge": [plc.acknowledge for plc, _ in seen]}
    levels |= {row: [getattr(station, name) for _, station in seen] for row, name in ROWS.items()}
    lines = [f"{row:<14}{_wave(values)}" for row, values in levels.items()]
    for row, name in (("error code", "error_code"), ("counter", "counter")):
        lines.append(f"{row:<14}{''.join(f'{getattr(station, name):<{WIDTH}}' for _, station in seen).rstrip()}")
    return "\n".join(lines)


def _wave(values: list[bool]) -> str:
    wave, before = "", values[0]
    for value in values:
        edge = "/" if value and not before else "\\" if before and not value else "~" if value else "_"
        wave += edge + ("~" if value else "_") * (WIDTH - 1)
        before = value
    return wave


def updated(page: str) -> str:
    """Return the page with all diagrams drawn anew."""
    for name, steps in SCENES.items():
        marker = f"<!-- timing: {name} -->\n"
        block = re.compile(re.escape(marker) + r"(```\n.*?\n```\n)?", re.DOTALL)
        if not block.search(page):
            raise SystemExit(f"{PAGE} has no place for the diagram '{name}'; add the line {marker.strip()}")
        drawn = f"{marker}```\n{draw(steps)}\n```\n"
        page = block.sub(lambda _, drawn=drawn: drawn, page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
