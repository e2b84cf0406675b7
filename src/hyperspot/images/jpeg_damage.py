"""Holes in JPEG files: zeros amid the coded pixels, as copies leave them that were cut off or lost a block.

Decoders fill such a hole with gray or smeared blocks and say nothing, so that a good part would be called anomalous, or
a bad one learned from. Other damage they notice themselves, as a rule: most of what overwrites 512 bytes or more.
"""

LONGEST = 256
"""Zero bytes in a row that an intact file may have at most: several blocks of the same coefficient over and over."""

END_OF_IMAGE, START_OF_SCAN, HUFFMAN_TABLES = 0xD9, 0xDA, 0xC4
SEQUENTIAL = (0xC0, 0xC1)
OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {*SEQUENTIAL, HUFFMAN_TABLES, 0xC8, 0xCC}
END_OF_BLOCK = 0


def has_hole(data: bytes) -> bool:
    """Return whether zeros stand amid the coded pixels that cannot have been coded (ITU-T T.81).

    The code word of zeros is the first of its table. Where it ends a block, as encoders choose it for flat pictures, a
    long row of zeros is a plain surface, and nothing can be told; else it would be one coefficient over and over.
    Progressive files and others than the usual kind are not looked into: False.
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
    """Return the symbol that the code word of zeros stands for in each table of coefficients but the mean."""
    found, place = [], 0
    while place + 17 < len(segment):
        if segment[place] >> 4:
            found.append(segment[place + 17])
        place += 17 + sum(segment[place + 1 : place + 17])
    return found
