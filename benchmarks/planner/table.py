"""The result document as a Markdown table."""

from __future__ import annotations

from typing import Any


def markdown(document: dict[str, Any]) -> str:
    """One line per row and peer, with the machine underneath."""
    lines = [
        "| work | ours, CPU | cost | proven | peak RSS | peer | peer, CPU | peer's cost | ratio | targets |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        own = _ours(row)
        verdict = "; ".join(row["missed"]) or "met"
        for peer in row["peers"] or [None]:
            lines.append(f"| {' | '.join([*own, *_peer(peer), verdict])} |")
            own, verdict = [""] * len(own), ""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines += [
        "",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}; "
        f"{machine['date']}, commit {machine['commit']}, load {machine['load_average'][0]}.",
    ]
    return "\n".join(lines)


def _ours(row: dict[str, Any]) -> list[str]:
    ours = row["ours"]
    return [
        row["name"],
        seconds(ours["cpu_median_seconds"]),
        number(ours["cost"]) if "cost" in ours else f"{ours['actions']:,} actions",
        _proven(ours),
        f"{ours['peak_rss_bytes'] / 2**20:.0f} MiB",
    ]


def _proven(ours: dict[str, Any]) -> str:
    if "optimality" not in ours:
        return ""
    if ours["optimality"] == "optimal":
        return "optimal"
    return f"{ours['optimality']}, gap {ours['gap_ratio']:.2%}"


def _peer(peer: dict[str, Any] | None) -> list[str]:
    if peer is None:
        return ["", "", "", ""]
    if "skipped" in peer:
        return [peer["label"], f"skipped: {peer['skipped']}", "", ""]
    memory = f" ({peer['peak_rss_bytes'] / 2**20:.0f} MiB)"
    return [
        peer["label"],
        seconds(peer["cpu_median_seconds"]) + memory,
        number(peer["cost"]),
        f"{peer['cpu_ratio']:,.0f}×" if peer["cpu_ratio"] >= 10 else f"{peer['cpu_ratio']:.1f}×",
    ]


def number(value: float) -> str:
    """A count as it is, a measured cost with three decimals."""
    return f"{value:,.0f}" if value % 1 == 0 else f"{value:,.3f}"


def seconds(value: float) -> str:
    """A duration with three digits and a fitting unit."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms"
