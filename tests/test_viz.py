import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tokenizers_vq import viz
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.viz import Series


def test_no_error_is_dark_and_a_large_error_is_bright():
    black = np.zeros((4, 4, 3), dtype=np.uint8)
    same = viz.error_map(black, black)
    far = viz.error_map(black, black + 255)
    assert same.shape == (4, 4, 3)
    assert same.max() < 40
    assert far.min() > 100
    sums = [viz.error_map(black, black + np.uint8(e)).sum() for e in (0, 2, 8, 32, 64)]
    assert sums == sorted(sums)


def test_equal_tokens_have_equal_colours_and_others_differ():
    tokens = np.array([[[0, 5], [1, 5]], [[0, 5], [70000, 5]]])
    mosaic = viz.token_mosaic(tokens, (8, 8))
    assert mosaic.shape == (8, 8, 3)
    assert np.array_equal(mosaic[0, 0], mosaic[7, 0])
    assert len({tuple(mosaic[y, x]) for y, x in ((0, 0), (0, 7), (7, 7))}) == 3
    assert np.array_equal(
        viz.token_mosaic(tokens[..., 0], (2, 2))[0, 0],
        viz.token_mosaic(tokens[..., 0], (2, 2))[1, 0],
    )


def test_side_by_side_keeps_the_pixels():
    a, b = np.full((10, 12, 3), 7, dtype=np.uint8), np.full((10, 20, 3), 9, dtype=np.uint8)
    row = viz.side_by_side([a, b], gap=4)
    assert row.size == (36, 10)
    assert row.getpixel((0, 0)) == (7, 7, 7)
    assert row.getpixel((35, 9)) == (9, 9, 9)
    named = viz.side_by_side({"original": a, "reconstruction": b})
    assert named.size == (40, 34)
    assert named.getpixel((0, 30)) == (7, 7, 7)


def test_side_by_side_of_nothing_is_refused():
    with pytest.raises(ConfigError) as caught:
        viz.side_by_side([])
    assert str(caught.value) == (
        "side_by_side: expected at least one picture; got none. Give some."
    )


def svg(text: str) -> ET.Element:
    return ET.fromstring(text[: text.index("</svg>") + 6])


@pytest.mark.parametrize("log_x", [False, True])
def test_charts_put_points_where_they_belong(log_x):
    series = [Series("a <b>", [(1, 10), (10, 20), (100, 30)]), Series("one", [(50, 15)])]
    chart = viz.line_chart(series, "x", "y", log_x=log_x)
    assert "a &lt;b&gt;" in chart
    line = next(node for node in svg(chart).iter("polyline")).get("points").split()
    xs, ys = zip(*(map(float, point.split(",")) for point in line), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)
    middle = (xs[1] - xs[0]) / (xs[2] - xs[0])
    assert middle == pytest.approx(0.5 if log_x else 9 / 99, abs=0.01)
    assert len([node for node in svg(chart).iter("circle") if node.get("class") == "mark"]) == 1


def test_charts_leave_out_what_cannot_be_drawn():
    series = [Series("a", [(1, float("nan")), (0, 1), (2, 3), (3, None)]), Series("b", [])]
    assert "polyline" not in viz.line_chart(series, "x", "y", log_x=True)
    assert viz.line_chart([Series("a", [])], "x", "y") == ""
    assert viz.line_chart([Series("flat", [(0, 5), (1, 5)])], "x", "y") != ""


def test_bars_show_dead_codes_as_gaps():
    bars = list(svg(viz.bar_chart([8, 3, 0], "codes")).iter("rect"))
    heights = [float(bar.get("height")) for bar in bars]
    assert heights[0] > heights[1] > heights[2] == 0
    assert viz.bar_chart([0, 0], "codes") == ""


def test_the_heat_table_is_shaded_by_column():
    values = {("a", "dB"): 20.0, ("b", "dB"): 30.0, ("a", "bits"): 5.0, ("b", "bits"): 9.0}
    text = {place: str(value) for place, value in values.items()}
    table = viz.heat_table(["a", "b", "c"], ["dB", "bits"], values, text, "t & t", ["bits"])
    fills = [node.get("fill") for node in svg(table).iter() if node.get("rx")]
    worst, best = "#e5f3ec", "#116d4e"
    assert fills == [worst, best, "#e8ebef", best, worst, "#e8ebef"]


def test_a_chart_of_its_own_is_whole_and_names_its_series():
    series = [viz.Series("a <b>", [(100, 20), (400, 30)]), viz.Series("one", [(200, 25)])]
    text = viz.chart_file(series, "bytes", "PSNR, dB", "photos & more")
    root = ET.fromstring(text)
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[:3] == ["photos & more", "a <b>", "one"]
    assert "var(" not in text
    with pytest.raises(ConfigError) as error:
        viz.chart_file([], "bytes", "PSNR", "none")
    assert str(error.value) == (
        "chart_file: expected at least one point; got none. Measure something."
    )
