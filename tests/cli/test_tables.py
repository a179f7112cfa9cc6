"""Numbers and columns for people."""

from planner_service.cli.tables import bytes_text, cost_text, percent, table


def test_columns_are_aligned_and_lines_have_no_trailing_space():
    assert table([("a", "1"), ("bbb", "22")], right_aligned=frozenset({1})) == "a     1\nbbb  22"
    assert table([]) == ""


def test_names_with_line_breaks_do_not_break_the_table():
    lines = table([("name", "state"), ("two\nlines\x1b[2J", "ready"), ("Knoten-ü", "lost")]).splitlines()
    assert lines == ["name               state", r"two\nlines\x1b[2J  ready", "Knoten-ü           lost"]


def test_quantities_carry_their_units():
    assert bytes_text(2 * 2**30) == "2 GiB (2147483648 bytes)"
    assert bytes_text(250) == "250 bytes"
    assert percent(0.2783) == "27.8 %"
    assert cost_text(1.5, "seconds") == "1.5 seconds"
