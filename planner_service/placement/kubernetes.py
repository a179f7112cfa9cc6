"""A job's needs in Kubernetes' words: extended resources with node affinity, or a DRA claim.

Extended resources count devices and know nothing of their memory; the node's label tells the product.
Dynamic resource allocation selects by the memory of each device, and is the only way that does.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from planner_service.placement.acceptable import AcceptableType
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
        memory = {"memory": f"{mebibytes(wanted.request_bytes)}Mi"}
        return KubernetesWords(
            alternatives=(PodNeeds(limits=memory, node_affinity=None),),
            device_class=None,
            device_selector=None,
            gpu_memory_annotation=None,
        )
    by_resource: defaultdict[str, list[AcceptableType]] = defaultdict(list)
    fractions = False
    for each in wanted.types:
        if each.smallest.fraction is None:
            by_resource[_resource(each)].append(each)
        fractions |= each.smallest.fraction is not None
    unnamed = any(not _product(each) for kinds in by_resource.values() for each in kinds)
    return KubernetesWords(
        alternatives=tuple(
            PodNeeds(limits={resource: str(wanted.devices)}, node_affinity=_affinity(kinds))
            for resource, kinds in by_resource.items()
        ),
        device_class=DRIVER,
        device_selector=device_selector(wanted.limit_bytes),
        gpu_memory_annotation=str(mebibytes(wanted.limit_bytes)) if fractions else None,
        notes=("a type without a product name: only the claim tells devices apart",) if unnamed else (),
    )


def device_selector(nominal_bytes: int) -> str:
    """A CEL expression that is true of devices with so much nominal memory."""
    quantity = f"quantity('{mebibytes(nominal_bytes)}Mi')"
    return f"device.driver == '{DRIVER}' && device.capacity['{DRIVER}'].memory.compareTo({quantity}) >= 0"


def _resource(kind: AcceptableType) -> str:
    slice_name = kind.smallest.mig_slice
    return GPU if slice_name is None else f"nvidia.com/mig-{slice_name.replace('+', '.')}"


def _product(kind: AcceptableType) -> str:
    return kind.smallest.names.kubernetes or kind.smallest.device


def _affinity(kinds: list[AcceptableType]) -> dict[str, object] | None:
    """Only nodes with one of these products; MIG slices are told apart by their resource already."""
    products = [_product(each) for each in kinds if each.smallest.mig_slice is None and _product(each)]
    if not products:
        return None
    wanted = {"key": PRODUCT_LABEL, "operator": "In", "values": sorted(set(products))}
    return {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
