"""Pictures of tokenizers: side by side, error maps, token mosaics, and charts as inline SVG."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from tokenizers_vq.errors import ConfigError

GOLDEN = 0.61803398875  # turns of the colour wheel between neighbouring codes
PALETTE = ("var(--accent)", "#e8833a", "#3f9b6c", "#8a63d2", "#c94f7c", "#64748b")
COLOURS = ("#2563c9", *PALETTE[1:])  # the same without a page around them
CHART_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#5c6773}.m{text-anchor:middle}.e{text-anchor:end}"
    ".n,.t{fill:#1c2430}.t{font-size:16px;font-weight:600}line{stroke:#dfe3e8}"
    "polyline{fill:none;stroke-width:2;stroke-linejoin:round}.mark{stroke:#fff;stroke-width:2}"
)
HEAT = ((0.0, (13, 8, 38)), (0.35, (120, 28, 109)), (0.7, (237, 105, 37)), (1.0, (252, 255, 164)))
ERROR_FULL = 64.0  # grey levels of mean absolute error that reach the end of the heat scale


class Series(NamedTuple):
    """A line of a chart; a single point is drawn as a marker.

    Attributes:
        name: in the legend.
        points: (x, y) in data units.
        dashed: draw it as an aside.
    """

    name: str
    points: list[tuple[float, float]]
    dashed: bool = False


def heat(values: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] of any shape to RGB uint8 ``(*shape, 3)``, dark to bright."""
    stops = [stop for stop, _ in HEAT]
    channels = [np.interp(values, stops, [rgb[c] for _, rgb in HEAT]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def error_map(original: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Return the absolute error as a heat picture ``(H, W, 3)`` uint8.

    Mean over the channels, square-root scale, brightest at 64 grey levels: small errors show, and
    two maps can be compared.
    """
    error = np.abs(original.astype(np.float64) - reconstruction).mean(-1)
    return heat(np.sqrt(np.clip(error / ERROR_FULL, 0, 1)))


def token_mosaic(tokens: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return one coloured cell per position, ``(H, W, 3)`` uint8; equal tokens, equal colours.

    Args:
        tokens: ``(h, w, K)`` or ``(h, w)`` int64; the K indices of a position make one colour.
        size: (H, W) of the picture.
    """
    grid = tokens if tokens.ndim == 3 else tokens[..., None]
    rows, places = np.unique(grid.reshape(-1, grid.shape[-1]), axis=0, return_inverse=True)
    colours = np.array([_colour(row) for row in rows], dtype=np.uint8)
    mosaic = colours[places.reshape(grid.shape[:2])]
    height, width = size
    picture = Image.fromarray(mosaic).resize((width, height), Image.Resampling.NEAREST)
    return np.array(picture)


def token_strip(tokens: np.ndarray) -> np.ndarray:
    """Return the latent frames of a video side by side, a pixel per position, as ``token_mosaic``.

    Args:
        tokens: ``(t, h, w, K)`` int64.

    Returns:
        ``(h, t * (w + 1) - 1, 3)`` uint8, a white column between two frames.
    """
    frames, height, width, _ = tokens.shape
    row = tokens.transpose(1, 0, 2, 3).reshape(height, frames * width, -1)
    cells = token_mosaic(row, (height, frames * width)).reshape(height, frames, width, 3)
    parted = np.pad(cells, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
    return parted.reshape(height, -1, 3)[:, :-1]


def side_by_side(
    images: Mapping[str, np.ndarray] | Sequence[np.ndarray], gap: int = 8
) -> Image.Image:
    """Return pictures in one row on white, with their names above when they have names.

    Args:
        images: ``(H, W, 3)`` uint8 each; all of the height of the first.
        gap: pixels between them.

    Raises:
        ConfigError: there are none.
    """
    named = isinstance(images, Mapping)
    pictures = list(images.values()) if isinstance(images, Mapping) else list(images)
    if not pictures:
        raise ConfigError("side_by_side: expected at least one picture; got none. Give some.")
    top = 24 if named else 0
    width = sum(one.shape[1] for one in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, top + max(one.shape[0] for one in pictures)), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for name, pixels in zip(images if named else pictures, pictures, strict=True):
        if named:
            draw.text((left + 1, 5), str(name), fill=(40, 40, 48), font_size=13)
        canvas.paste(Image.fromarray(pixels), (left, top))
        left += pixels.shape[1] + gap
    return canvas


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Return an SVG line chart with axes, ticks and a legend; empty data gives an empty string.

    Colours follow the page through the custom properties ``--accent``, ``--ink`` and ``--line``.
    """
    kept = [
        Series(one.name, [p for p in one.points if _drawable(p, log_x, log_y)], one.dashed)
        for one in series
    ]
    kept = [one for one in kept if one.points]
    if not kept:
        return ""
    xs = [x for one in kept for x, _ in one.points]
    ys = [y for one in kept for _, y in one.points]
    frame = _Frame(_Axis(min(xs), max(xs), log_x), _Axis(min(ys), max(ys), log_y))
    body = frame.grid(x_label, y_label)
    for number, one in enumerate(kept):
        body += frame.draw(one, PALETTE[number % len(PALETTE)])
    legend = "".join(
        f'<span><i style="background:{PALETTE[k % len(PALETTE)]}"></i>{escape(one.name)}</span>'
        for k, one in enumerate(kept)
    )
    return (
        f'<svg class="chart" viewBox="0 0 {_Frame.W} {_Frame.H}" role="img" '
        f'aria-label="{escape(y_label)} against {escape(x_label)}">{body}</svg>'
        f'<div class="legend">{legend}</div>'
    )


def chart_file(series: Sequence[Series], x_label: str, y_label: str, title: str) -> str:
    """Return a line chart, log in x, as a standalone SVG with its title and legend.

    Raises:
        ConfigError: there is nothing to draw.
    """
    page = line_chart(series, x_label, y_label, log_x=True)
    if not page:
        raise ConfigError("chart_file: expected at least one point; got none. Measure something.")
    body = page.partition(">")[2].partition("</svg>")[0]
    parts = [f'<text x="16" y="26" class="t">{escape(title)}</text>']
    for k, one in enumerate(one for one in series if one.points):
        x, y = 24 + 306 * (k % 2), 48 + 20 * (k // 2)
        parts.append(
            f'<rect x="{x}" y="{y - 10}" width="11" height="11" rx="3" fill="{COLOURS[k]}"/>'
        )
        parts.append(f'<text x="{x + 17}" y="{y}">{escape(one.name)}</text>')
    top = 40 + 20 * -(-len(series) // 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_Frame.W} {_Frame.H + top}" '
        f'width="{_Frame.W}" height="{_Frame.H + top}"><style>{CHART_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}'
        f'<g transform="translate(0 {top})">{body.replace(PALETTE[0], COLOURS[0])}</g></svg>\n'
    )


def bar_chart(frequencies: Sequence[float], label: str) -> str:
    """Return an SVG of code frequencies on a log scale; without any, an empty string.

    Args:
        frequencies: how often each code, or pool of codes, occurred, most frequent first; zeros
            are dead codes and leave a gap.
        label: of the x axis.
    """
    if not frequencies or frequencies[0] <= 0:
        return ""
    width, height = 640, 120
    step = width / len(frequencies)
    body = ""
    for k, frequency in enumerate(frequencies):
        tall = height * math.log1p(frequency) / math.log1p(frequencies[0])
        body += (
            f'<rect x="{k * step:.1f}" y="{height - tall:.1f}" width="{max(step - 0.8, 0.8):.1f}" '
            f'height="{tall:.1f}"/>'
        )
    return (
        f'<svg class="bars" viewBox="0 0 {width} {height + 22}" role="img" '
        f'aria-label="{escape(label)}">{body}<line x1="0" x2="{width}" y1="{height}" '
        f'y2="{height}"/><text x="0" y="{height + 17}">{escape(label)}</text></svg>'
    )


def heat_table(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[str, str], float | None],
    text: Mapping[tuple[str, str], str],
    title: str,
    lower_is_better: Collection[str] = (),
) -> str:
    """Return a standalone SVG table whose cells are shaded column by column.

    Args:
        rows: names down the side.
        columns: names across the top.
        values: by (row, column); None or a missing cell stays grey.
        text: what each cell says.
        title: above the table.
        lower_is_better: the columns whose smallest value is the good, dark end.
    """
    left, wide, tall, top = 150, 132, 34, 66
    width, height = left + wide * len(columns) + 16, top + tall * len(rows) + 16
    parts = [f'<text x="16" y="28" class="t">{escape(title)}</text>']
    for r, row in enumerate(rows):
        parts.append(f'<text x="16" y="{top + r * tall + 22}">{escape(row)}</text>')
    for c, column in enumerate(columns):
        x = left + c * wide
        parts.append(f'<text x="{x + wide / 2}" y="{top - 10}" class="m">{escape(column)}</text>')
        shares = _shares([values.get((row, column)) for row in rows], column in lower_is_better)
        for r, (row, share) in enumerate(zip(rows, shares, strict=True)):
            words = text.get((row, column), "")
            parts.append(_cell(x, top + r * tall, wide, tall, share, words))
    style = (
        "text{font:13px system-ui,sans-serif;fill:#1c2430}.t{font-size:17px;font-weight:600}"
        ".m{text-anchor:middle}.w{fill:#fff}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


class _Axis:
    """A scale with round ticks."""

    def __init__(self, low: float, high: float, log: bool) -> None:
        self.log = log
        low, high = (math.log10(low), math.log10(high)) if log else (low, high)
        margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        self.low, self.high = low - margin, high + margin

    def place(self, value: float) -> float:
        """Return where ``value`` lies, 0 to 1."""
        value = math.log10(value) if self.log else value
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return at most 7 round values on the axis."""
        if self.log:
            exponents = range(math.floor(self.low) - 1, math.ceil(self.high) + 1)
            for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,)):
                values = [d * 10.0**e for e in exponents for d in digits]
                inside = [v for v in values if 0 <= self.place(v) <= 1]
                if 2 <= len(inside) <= 7:
                    return inside
            return inside[:: max(1, len(inside) // 6)]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 6)
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, math.floor(self.high / step) + 1)]


class _Frame:
    """The plotting area of a chart."""

    W, H = 640, 340
    LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 48

    def __init__(self, x: _Axis, y: _Axis) -> None:
        self.x, self.y = x, y

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return SVG coordinates."""
        wide, tall = self.W - self.LEFT - self.RIGHT, self.H - self.TOP - self.BOTTOM
        return (
            self.LEFT + self.x.place(point[0]) * wide,
            self.TOP + (1 - self.y.place(point[1])) * tall,
        )

    def grid(self, x_label: str, y_label: str) -> str:
        """Return grid lines, tick labels and axis names."""
        parts = []
        bottom = self.H - self.BOTTOM
        for value in self.y.ticks():
            y = self.TOP + (1 - self.y.place(value)) * (bottom - self.TOP)
            parts.append(
                f'<line x1="{self.LEFT}" x2="{self.W - self.RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{self.LEFT - 8}" y="{y + 4:.1f}" class="e">{_tick(value)}</text>'
            )
        for value in self.x.ticks():
            x = self.LEFT + self.x.place(value) * (self.W - self.LEFT - self.RIGHT)
            parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" class="m">{_tick(value)}</text>')
        middle = (self.TOP + bottom) / 2
        parts.append(
            f'<text x="{(self.LEFT + self.W) / 2}" y="{self.H - 8}" class="m n">{escape(x_label)}'
            f'</text><text transform="rotate(-90 14 {middle})" x="14" y="{middle}" class="m n">'
            f"{escape(y_label)}</text>"
        )
        return "".join(parts)

    def draw(self, series: Series, colour: str) -> str:
        """Return a line with its points, or one large marker."""
        places = [self.at(point) for point in series.points]
        if len(places) == 1:
            x, y = places[0]
            return (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" style="fill:{colour}" '
                f'class="mark"><title>{escape(series.name)}</title></circle>'
            )
        dash = ";stroke-dasharray:5 4" if series.dashed else ""
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" style="fill:{colour}"/>' for x, y in places
        )
        shown = dots if len(places) <= 12 else ""
        return f'<polyline points="{line}" style="stroke:{colour}{dash}"/>{shown}'


def _cell(x: float, y: float, width: float, height: float, share: float | None, text: str) -> str:
    colour = "#e8ebef" if share is None else _green(share)
    white = ' class="m w"' if share is not None and share > 0.55 else ' class="m"'
    return (
        f'<rect x="{x + 1}" y="{y + 1}" width="{width - 2}" height="{height - 2}" rx="4" '
        f'fill="{colour}"/><text x="{x + width / 2}" y="{y + 22}"{white}>{escape(text)}</text>'
    )


def _shares(column: Sequence[float | None], lower: bool) -> list[float | None]:
    """Return where each value lies between the worst (0) and the best (1) of its column."""
    known = [value for value in column if value is not None and math.isfinite(value)]
    if not known:
        return [None] * len(column)
    low, span = min(known), max(known) - min(known)
    shares: list[float | None] = []
    for value in column:
        if value is None or not math.isfinite(value):
            shares.append(None)
            continue
        share = 0.5 if span == 0 else (value - low) / span
        shares.append(1 - share if lower else share)
    return shares


def _green(share: float) -> str:
    pale, deep = (229, 243, 236), (17, 109, 78)
    mixed = (round(a + (b - a) * share) for a, b in zip(pale, deep, strict=True))
    return "#" + "".join(f"{one:02x}" for one in mixed)


def _colour(indices: np.ndarray) -> tuple[int, int, int]:
    """Return a colour for a tuple of indices: near indices, far hues."""
    key = 0
    for index in indices.tolist():
        key = (key * 1_000_003 + index + 1) % 2**31
    hue = (key * GOLDEN) % 1
    light = 0.38 + 0.34 * ((key * 0.7548776662) % 1)
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.55)
    return round(red * 255), round(green * 255), round(blue * 255)


def _drawable(point: tuple[Any, Any], log_x: bool, log_y: bool) -> bool:
    x, y = point
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        return False
    return not ((log_x and x <= 0) or (log_y and y <= 0))


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
