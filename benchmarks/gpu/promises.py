"""What must be true of a result file, whatever the times are.

Running out of memory under a hard cap is no broken promise yet: what a cap sets aside for the allocator's
segments and gaps was set by the allocator alone (docs/decisions/0006), with other workspaces than a device's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def broken_promises(found: Mapping[str, Any]) -> list[str]:
    """Every promise that a measurement broke, in words; none is as it should be."""
    broken = [] if found["tests"]["exit_status"] == 0 else [f"tests: {found['tests']['summary']}"]
    records = list(_records(found))
    if not any("measured_peak_bytes" in record for _, record in records):
        broken.append("no budget was measured")
    for name, record in records:
        broken += [f"{name}: {what}" for what in _broken_by(record)]
    failed = [row for rows in found.values() if isinstance(rows, list) for row in rows if "failed" in row]
    return broken + [f"{row['name']}: {row['failed']}" for row in failed]


def _records(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in found.get("budgets", []):
        for record in row.get("budgets", []):
            yield f"{row['name']} at {100 * record['share']:g} %", record


def _broken_by(record: Mapping[str, Any]) -> Iterator[str]:
    budget, host = record["budget_bytes"], record.get("with_host", {})
    for peak in (record.get("measured_peak_bytes", 0), host.get("measured_peak_bytes", 0)):
        if peak > budget:
            yield f"measured {peak} bytes in a budget of {budget}"
    if host.get("host_peak_bytes", 0) > host.get("host_budget_bytes", 0):
        yield f"{host['host_peak_bytes']} bytes of host memory in a budget of {host['host_budget_bytes']}"
    if "failed" in host:
        yield f"with host memory: {host['failed']}"
    if "failed" in record.get("hard_cap", {}):
        yield f"under a hard cap of the budget: {record['hard_cap']['failed']}"
