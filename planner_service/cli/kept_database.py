"""The database of a service, for commands that look into it and must not make one in a misspelt folder."""

from __future__ import annotations

from planner_service.settings import DATABASE_FILE, Settings


def require_database(settings: Settings) -> None:
    """Raises FileNotFoundError where the data folder has no database. One named by URL is not looked for."""
    kept = settings.data_dir / DATABASE_FILE
    if not settings.database_url and not kept.exists():
        raise FileNotFoundError(f"there is no {kept}: name the service's folder with --data-dir")
