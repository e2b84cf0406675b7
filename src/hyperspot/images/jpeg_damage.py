"""Finds holes in JPEG files: zeros amid the coded pixels, left by copies that were interrupted or lost a block.

Decoders fill such a hole with gray or smeared blocks without an error, so that a good part would become anomalous, or a
bad one be trained on. They detect most other damage of 512 bytes or more themselves.
"""

LONGEST = 256
"""Longest run of zero bytes in an intact file: several blocks of one coefficient repeated."""

END_OF_IMAGE, START_OF_SCAN, HUFFMAN_TABLES = 0xD9, 0xDA, 0xC4
SEQUENTIAL = (0xC0, 0xC1)
OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {*SEQUENTIAL, HUFFMAN_TABLES, 0xC8, 0xCC}
END_OF_BLOCK = 0


def has_hole(data: bytes) -> bool:
    """Return whether zeros stand amid the coded pixels that no encoder wrote (ITU-T T.81).

    The code word of zeros is the first of its table. If it ends a block, as encoders choose it for flat images, a long
    run of zeros is a plain surface: undecidable, False. Otherwise it would be one coefficient repeated. Progressive and
    other non-sequential files are not examined: False.
    """
    place, ends_blocks = 2, True
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        start, stop = place + 4, place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in OTHER_FRAMES or marker == END_OF_IMAGE:
            return False
        if marker == HUFFMAN_TABLES:
            ends_blocks &= all(first == END_OF_BLOCK for first in _first_of_ac_tables(data[start:stop]))
        if marker == START_OF_SCAN:
            end = data.find(bytes((0xFF, END_OF_IMAGE)), stop)
            return not ends_blocks and data.find(bytes(LONGEST + 1), stop, len(data) if end < 0 else end) >= 0
        place = stop
    return False


def _first_of_ac_tables(segment: bytes) -> list[int]:
    """Return the symbol of the code word of zeros in each table of AC coefficients."""
    found, place = [], 0
    while place + 17 < len(segment):
        if segment[place] >> 4:
            found.append(segment[place + 17])
        place += 17 + sum(segment[place + 1 : place + 17])
    return found
