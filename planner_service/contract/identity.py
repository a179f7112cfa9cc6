"""The name of a plan: a hash of what was asked and of who answers."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from planner_service.chain import PlanningError


class UnwritableText(PlanningError, ValueError):
    """JSON can escape half of a surrogate pair; UTF-8 cannot write it."""

    def __init__(self) -> None:
        super().__init__("a text of the request is no Unicode: it holds half of a surrogate pair")


class NestedTooDeeply(PlanningError, ValueError):
    """JSON was read that is nested deeper than it can be written."""

    def __init__(self) -> None:
        super().__init__("a value of the request is nested hundreds of levels deep: nothing here is")


def canonical_json(request: BaseModel) -> bytes:
    """The request with every default written out, quantities in bytes and fields in a fixed order.

    Requests that mean the same field by field ("2GiB" and 2147483648) have the same canonical form.
    Raises UnwritableText and NestedTooDeeply.
    """
    try:
        return request.model_dump_json().encode()
    except PydanticSerializationError as error:
        if "surrogates" in str(error):
            raise UnwritableText from None
        if "depth exceeded" in str(error):
            raise NestedTooDeeply from None
        raise


def content_id(request: BaseModel, planner_version: str) -> str:
    """32 hexadecimal digits that name the answer of `planner_version` to `request`."""
    digest = hashlib.sha256()
    digest.update(f"{type(request).__name__}\n{planner_version}\n".encode())
    digest.update(canonical_json(request))
    return digest.hexdigest()[:32]


class BudgetIds:
    """The ids of plans that differ in their budget alone: `content_id` of each, at a tenth of its price.

    The canonical form is written once; only the number in it changes. Raises UnwritableText.
    """

    _FIELD = b'"device_budget_bytes":'
    """Unescaped quotes: no text of a request can hold it."""

    def __init__(self, request: BaseModel, budget_bytes: int, planner_version: str) -> None:
        """`request` is any of these plans' requests, and `budget_bytes` its budget."""
        whole = self._FIELD + str(budget_bytes).encode()
        before, found, self._after = canonical_json(request).partition(whole)
        if not found:
            raise ValueError(f"the request has no budget of {budget_bytes} bytes")
        head = f"{type(request).__name__}\n{planner_version}\n".encode()
        self._begun = hashlib.sha256(head + before + self._FIELD)

    def of(self, budget_bytes: int) -> str:
        """The id of the plan with that budget."""
        digest = self._begun.copy()
        digest.update(str(budget_bytes).encode() + self._after)
        return digest.hexdigest()[:32]
