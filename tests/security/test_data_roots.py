"""Jobs name files inside the operator's folders, and none outside by any trick."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner_service.security import TextOutsideRoots, require_text_within


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a text, and links out of it; beside it a secret."""
    folder = tmp_path / "texts"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("s")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    return folder


@pytest.mark.parametrize("text", ["python", "inner/a.txt", "./inner/a.txt"])
def test_a_file_inside_is_admitted(root, text):
    require_text_within(text, [root])
    require_text_within(text, [root / "inner", root])


def test_a_full_path_counts_when_it_lies_inside(root):
    require_text_within(str(root / "inner" / "a.txt"), [root])


@pytest.mark.parametrize(
    "text",
    [
        "../secret.txt",
        "inner/../../secret.txt",
        "/etc/passwd",
        "link.txt",
        "up/secret.txt",
        "loop",
        "inner",
        "missing.txt",
        "inner/a.txt\0.png",
        "a" * 400,
        "",
    ],
)
def test_everything_else_is_refused(root, text):
    with pytest.raises(TextOutsideRoots) as refused:
        require_text_within(text, [root])
    assert refused.value.field == "data.text"


def test_without_folders_only_names_that_climb_are_refused(root):
    require_text_within("anything.txt", [])
    with pytest.raises(TextOutsideRoots):
        require_text_within("a/../b.txt", [])
