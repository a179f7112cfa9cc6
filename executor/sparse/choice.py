"""The ways there are to multiply what is left of a gate gradient, on a device; `faster` picks among them."""

from __future__ import annotations

from functools import cache

import torch

from executor.native.environment import SPARSE_KERNELS
from executor.native.triton_library import kernels_that_run
from executor.sparse.gathered import GatheredProducts, Products


@cache
def candidates(device: torch.device, dtype: torch.dtype) -> tuple[Products, ...]:
    """Gathered copies everywhere; on CUDA devices, for float32, Triton's programs too, by size of tiles."""
    indexed = kernels_that_run(tried, device, switch=SPARSE_KERNELS) if dtype == torch.float32 else None
    return (GatheredProducts(), *(indexed or ()))


def tried(device: torch.device) -> tuple[Products, ...]:
    """Triton's products, one for each size of tiles, after each has multiplied by the index.

    Raises RuntimeError unless the results were right.
    """
    from executor.sparse.triton_kernels import TILES, IndexedProducts

    found = tuple(IndexedProducts(tile) for tile in TILES)
    gradient, weight = torch.ones(2, 3, device=device), torch.ones(3, 2, device=device)
    columns = torch.tensor([0, 2], device=device)
    for products in found:
        product = products.through_columns(weight, columns)(gradient)
        if product.tolist() != [[2.0, 2.0], [2.0, 2.0]]:
            raise RuntimeError(f"two ones times two ones were computed to be {product.tolist()}")
    return found
