"""A job's needs in Kubernetes' words: extended resources with node affinity, or a DRA claim.

Extended resources count devices and know nothing of their memory; the node's label tells the product.
Dynamic resource allocation selects by the memory of each device, and is the only way that does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from planner_service.placement.holes import Hole
from planner_service.placement.wanted import Wanted, mebibytes

PRODUCT_LABEL = "nvidia.com/gpu.product"
GPU = "nvidia.com/gpu"
DRIVER = "gpu.nvidia.com"
"""The DRA driver, and the domain of its devices' attributes and capacities."""


@dataclass(frozen=True, kw_only=True)
class PodNeeds:
    """What goes into a pod: limits of its container, and where it may run."""

    limits: dict[str, str]
    node_affinity: dict[str, object] | None
    """`requiredDuringSchedulingIgnoredDuringExecution`; None: any node."""


@dataclass(frozen=True, kw_only=True)
class KubernetesWords:
    """Alternatives of extended resources, and the claim that replaces them."""

    alternatives: tuple[PodNeeds, ...]
    """The quickest first; each is complete in itself."""
    device_class: str | None
    """Of the DRA request; None on CPUs."""
    device_selector: str | None
    """A CEL expression on one device; None on CPUs."""
    gpu_memory_annotation: str | None
    """MiB for KAI's annotation `gpu-memory`, where fractions are acceptable: it shares devices."""
    notes: tuple[str, ...] = ()


def kubernetes_words(wanted: Wanted) -> KubernetesWords:
    """The alternatives for Kubernetes."""
    if wanted.on_cpu:
        memory = {"memory": f"{mebibytes(wanted.devices * wanted.request_bytes)}Mi"}  # all ranks in one pod
        return KubernetesWords(
            alternatives=(PodNeeds(limits=memory, node_affinity=None),),
            device_class=None,
            device_selector=None,
            gpu_memory_annotation=None,
        )
    holes = [each.smallest for each in wanted.types]
    whole = [hole for hole in holes if hole.fraction is None]
    unnamed = any(not product_of(hole) for hole in whole)
    return KubernetesWords(
        alternatives=pod_alternatives(whole, wanted.devices),
        device_class=DRIVER,
        device_selector=device_selector(wanted.limit_bytes),
        gpu_memory_annotation=str(mebibytes(wanted.limit_bytes)) if len(whole) < len(holes) else None,
        notes=("a type without a product name: only the claim tells devices apart",) if unnamed else (),
    )


def pod_alternatives(types: Sequence[Hole], devices: int) -> tuple[PodNeeds, ...]:
    """What a pod asks for so that it gets `devices` of one of `types`: an alternative per resource, in the
    order of `types`.
    """
    by_resource: defaultdict[str, list[Hole]] = defaultdict(list)
    for hole in types:
        by_resource[resource_of(hole.mig_slice)].append(hole)
    return tuple(
        PodNeeds(limits={resource: str(devices)}, node_affinity=_affinity(holes))
        for resource, holes in by_resource.items()
    )


def device_selector(nominal_bytes: int) -> str:
    """A CEL expression that is true of devices with so much nominal memory."""
    quantity = f"quantity('{mebibytes(nominal_bytes)}Mi')"
    return f"device.driver == '{DRIVER}' && device.capacity['{DRIVER}'].memory.compareTo({quantity}) >= 0"


def resource_of(mig_slice: str | None) -> str:
    """The extended resource that counts whole GPUs, or slices of one profile."""
    return GPU if mig_slice is None else f"nvidia.com/mig-{mig_slice.replace('+', '.')}"


def product_of(hole: Hole) -> str:
    """The node label nvidia.com/gpu.product of a type of device; empty where it is not known."""
    return hole.names.kubernetes or hole.device


def _affinity(holes: Sequence[Hole]) -> dict[str, object] | None:
    """Only nodes with one of these products; MIG slices are told apart by their resource already."""
    products = {product_of(hole) for hole in holes if hole.mig_slice is None} - {""}
    if not products:
        return None
    wanted = {"key": PRODUCT_LABEL, "operator": "In", "values": sorted(products)}
    return {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
