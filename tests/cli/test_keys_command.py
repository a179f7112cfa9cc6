"""`tightfit keys create`: how long a key is good for."""

import pytest

from planner_service.cli import main


def create(folder, *options):
    return main(["keys", "create", "somebody", "--scope", "read", "--data-dir", str(folder), *options])


@pytest.mark.parametrize("days", ["-1", "0", "nan", "1e400", "1e12", "soon"])
def test_a_key_that_has_expired_or_never_could_is_refused_and_not_made(tmp_path, capsys, days):
    """Exit status 2 with what may be given; the list has no such key"""
    assert create(tmp_path, "--days", "0.5") == 0
    with pytest.raises(SystemExit) as refused:
        create(tmp_path, "--days", days)
    assert refused.value.code == 2
    printed = capsys.readouterr()
    assert f"argument --days: {days!r}: give a number above 0, at most 36500" in printed.err
    assert main(["keys", "list", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("somebody") == 1


@pytest.mark.parametrize("action", [("list",), ("revoke", "abc")])
def test_a_misspelt_folder_has_no_keys_and_is_not_made(tmp_path, capsys, action):
    """Not an empty list, which would say that nobody has a key"""
    misspelt = tmp_path / "misspelt"
    assert main(["keys", *action, "--data-dir", str(misspelt)]) == 2
    assert capsys.readouterr().err.startswith(f"tightfit keys: there is no {misspelt}/tightfit.sqlite3")
    assert not misspelt.exists()
