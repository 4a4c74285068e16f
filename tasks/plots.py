"""Small SVG plots as data URIs inside Markdown: no server, no library, and they last as long as the artifact."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 240, 56, 36, 24, 16
INK, GRID, LINE = "#7c8aa0", "#7c8aa0", "#6366f1"  # readable on the light and the dark page


def as_markdown_image(svg: str, alt: str) -> str:
    """The picture, inline. Prefect's page strips bare `<svg>`, a data URI it shows."""
    return f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def loss_curve(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Loss over steps as SVG; None with fewer than two points."""
    points = [
        (float(entry["step"]), float(entry["loss"]))
        for entry in history
        if isinstance(entry.get("step"), int | float) and isinstance(entry.get("loss"), int | float)
    ]
    if len(points) < 2:
        return None
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)

    lines = [_text(LEFT - 8, place(first, value)[1] + 4, f"{value:.3g}", "end") for value in (low, (low + high) / 2, high)]
    lines += [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place(first, v)[1]:.1f}" y2="{place(first, v)[1]:.1f}" stroke="{GRID}" stroke-opacity="0.35"/>'
        for v in (low, (low + high) / 2, high)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    lines.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2.5" stroke-linejoin="round"/>')
    lines += [
        _text(LEFT, HEIGHT - 10, f"step {first:g}", "start"),
        _text(WIDTH - RIGHT, HEIGHT - 10, f"{last:g}", "end"),
        _text(LEFT, 14, "training loss", "start"),
    ]
    return _svg(WIDTH, HEIGHT, lines)


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """A confusion matrix as SVG: rows are the truth, columns the answers."""
    cell, margin = 92, 120
    top = 56
    lines = [_text(margin, 18, "answered →", "start"), _text(8, top - 10, "true ↓", "start")]
    for row, counts in enumerate(matrix):
        total = sum(counts) or 1
        lines.append(_text(margin - 10, top + row * cell + cell / 2 + 4, _short(labels[row]), "end"))
        lines.append(_text(margin + row * cell + cell / 2, top - 10, _short(labels[row]), "middle"))
        for column, count in enumerate(counts):
            share = count / total
            x, y = margin + column * cell, top + row * cell
            ink = "#ffffff" if share > 0.5 else INK
            lines.append(f'<rect x="{x}" y="{y}" width="{cell - 3}" height="{cell - 3}" rx="4" fill="{LINE}" fill-opacity="{0.08 + 0.87 * share:.2f}"/>')
            lines.append(_text(x + cell / 2 - 1.5, y + cell / 2, f"{count:,}", "middle", ink, 15))
            lines.append(_text(x + cell / 2 - 1.5, y + cell / 2 + 18, f"{share:.0%}", "middle", ink))
    return _svg(margin + cell * len(matrix) + 8, top + cell * len(matrix) + 8, lines)


def _svg(width: float, height: float, lines: Sequence[str]) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">{"".join(lines)}</svg>'


def _text(x: float, y: float, text: str, anchor: str, ink: str = INK, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-family="system-ui,sans-serif" font-size="{size}" fill="{ink}">{escape(text)}</text>'


def _short(label: str) -> str:
    return label if len(label) <= 14 else f"{label[:13]}…"
