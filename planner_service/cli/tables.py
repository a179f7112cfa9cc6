"""Plain-text tables for people: aligned columns, numbers with units."""

from __future__ import annotations

from collections.abc import Sequence

from planner_service.chain.quantities import format_bytes


def table(rows: Sequence[Sequence[str]], *, right_aligned: frozenset[int] = frozenset()) -> str:
    """`rows` in columns two spaces apart; the columns in `right_aligned` are flush right.

    Line breaks and control characters, in names that somebody gave to something, are escaped.
    """
    if not rows:
        return ""
    rows = [[on_one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right_aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def on_one_line(cell: str) -> str:
    """`cell` with what is not printable escaped: texts of others must not steer the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cell
    )


def bytes_text(count: int) -> str:
    """Bytes both ways: "2 GiB (2147483648 bytes)"."""
    return f"{format_bytes(count)} ({count} bytes)" if count >= 1024 else f"{count} bytes"


def percent(ratio: float) -> str:
    """A ratio as a percentage of three significant digits: "27.8 %"."""
    return f"{100 * ratio:.3g} %"


def cost_text(cost: float, unit: str) -> str:
    """A cost with its unit: "3835 forward passes of a step" or "1.42 seconds"."""
    name = {"forward": "forward units", "seconds": "seconds"}[unit]
    return f"{cost:.6g} {name}"


def gradient_rows(*, is_exact: bool) -> list[tuple[str, str]]:
    """A row that says that gradients are inexact; none where they are those of full BPTT."""
    return (
        [] if is_exact else [("gradient", "INEXACT gradient: training.gradient_sparsity drops a part of it")]
    )
