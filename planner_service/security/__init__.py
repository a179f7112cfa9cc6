"""Who may do what: scopes, API keys, folders that data may come from. No database, no network."""

from planner_service.security.api_keys import ApiKey, InvalidKeyName, key_id_of, new_api_key
from planner_service.security.data_roots import TextOutsideRoots, require_text_within
from planner_service.security.scopes import Scope, UnknownScope, scopes_of

__all__ = [
    "ApiKey",
    "InvalidKeyName",
    "Scope",
    "TextOutsideRoots",
    "UnknownScope",
    "key_id_of",
    "new_api_key",
    "require_text_within",
    "scopes_of",
]
