"""A drawing places its points where their values are, and is sound XML whatever its words."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.curves import Curve, draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def test_points_stand_at_their_steps_and_values() -> None:
    drawing = draw_curves([Curve("a", ((0, 0.0), (5, 0.5), (10, 1.0)), ((10, 0.25),))], title="t", unit="u")
    root = ElementTree.fromstring(drawing)  # noqa: S314  # our own drawing
    (line,) = root.iter(f"{SVG}polyline")
    (left, bottom), middle, (right, top) = (tuple(map(float, p.split(","))) for p in line.attrib["points"].split())
    assert middle == ((left + right) / 2, (top + bottom) / 2)
    mark = next(root.iter(f"{SVG}circle"))
    assert (float(mark.attrib["cx"]), float(mark.attrib["cy"])) == (right, bottom + (top - bottom) / 4)


def test_words_cannot_break_the_drawing() -> None:
    drawing = draw_curves([Curve("<a> & b", ((1, 0.5),))], title="</svg>", unit='"')
    root = ElementTree.fromstring(drawing)  # noqa: S314  # our own drawing
    assert "<a> & b" in [text.text for text in root.iter(f"{SVG}text")]
