"""`tightfit nodes`: who offers memory for jobs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from planner_service.chain.quantities import format_bytes
from planner_service.cli.remote import add_planner_option, asking
from planner_service.cli.tables import table
from planner_service.contract.nodes import Node, NodePage

if TYPE_CHECKING:
    from planner_service.client import PlannerClient


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "nodes",
        help="list the nodes that offer memory for jobs",
        description="List the nodes that registered at a service: device, total and free memory, and when "
        "they were last heard of.",
    )
    add_planner_option(parser)
    parser.add_argument("--json", action="store_true", help="print the service's answer as it is")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    with asking(args.planner) as client:
        page = _all_nodes(client)
    if args.json:
        print(page.model_dump_json(indent=2))
        return 0
    head = ("node", "state", "device", "slice", "total", "free", "driver", "torch", "seen")
    print(table([head, *map(_row, page.nodes)], right_aligned=frozenset({4, 5})))
    return 0


def _all_nodes(client: PlannerClient) -> NodePage:
    """Page by page: those of thousands of nodes are several."""
    nodes: list[Node] = []
    cursor: str | None = None
    while True:
        page = client.nodes(limit=1000, cursor=cursor)
        nodes += page.nodes
        cursor = page.next_cursor
        if cursor is None:
            return NodePage(nodes=nodes)


def _row(node: Node) -> tuple[str, ...]:
    return (
        node.name,
        node.state,
        node.device,
        node.mig_slice or "",
        format_bytes(node.memory_total_bytes),
        format_bytes(node.memory_free_bytes),
        node.driver or "",
        node.torch or "",
        f"{node.seen_at:%Y-%m-%d %H:%M:%S}",
    )
