"""Byte quantities mean what people expect, or are refused with the cure."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain.quantities import (
    UNITS,
    InvalidQuantity,
    format_bytes,
    parse_bytes,
    parse_size_bytes,
)
from planner_service.chain.stage import MAXIMUM_BYTES


@pytest.mark.parametrize(
    ("written", "expected_bytes"),
    [
        (0, 0),
        (260, 260),
        (260.0, 260),
        ("260", 260),
        ("260 B", 260),
        ("1 byte", 1),
        ("512MiB", 512 * 1024 * 1024),
        ("512Mi", 512 * 1024 * 1024),
        ("2GB", 2_000_000_000),
        ("2 gib", 2 * 1024**3),
        (" 1.5 GiB ", 3 * 1024**3 // 2),
        ("7kB", 7000),
        ("7KiB", 7168),
        ("3TB", 3 * 10**12),
        ("3TiB", 3 * 1024**4),
        ("1PB", 10**15),
        (10**15, 10**15),
    ],
)
def test_reads_what_people_write(written, expected_bytes):
    assert parse_bytes(written) == expected_bytes
    assert parse_size_bytes(written) == expected_bytes


def test_a_budget_is_rounded_down_and_a_size_up():
    assert parse_bytes("0.1KiB") == 102
    assert parse_size_bytes("0.1KiB") == 103


NOT_NUMBERS = [float("nan"), float("inf"), -float("inf"), True, None, [], {}, b"1MiB", "", "MiB", "nan"]
NOT_PLAIN = [
    "1 MiB 2",
    "1,5GiB",
    "1e9",
    "0x10",
    "infinity",
    "1_000",
    "٣MiB",
    "1" * 5000,
    "1 furlong",
    "1 XiB",
]
OUT_OF_RANGE = [-1, "-1", "-0.5KiB", 0.5, 2**62 + 1, 10**9999, "4097PiB", "4611686018427387905"]


@pytest.mark.parametrize("written", [*NOT_NUMBERS, *NOT_PLAIN, *OUT_OF_RANGE], ids=lambda _: "")
def test_refuses_everything_else(written):
    with pytest.raises(InvalidQuantity) as refusal:
        parse_bytes(written)
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("unit", ["k", "K", "m", "M", "G", "t"])
def test_an_ambiguous_unit_is_refused_and_names_both_readings(unit):
    readings = f"{unit.upper()}iB for powers of 1024 or .B for powers of 1000"
    with pytest.raises(InvalidQuantity, match=readings):
        parse_bytes(f"512{unit}")


def test_the_largest_quantity_is_accepted():
    assert parse_bytes(MAXIMUM_BYTES) == parse_bytes("4096PiB") == MAXIMUM_BYTES


@given(st.integers(0, 2**52), st.sampled_from(sorted(UNITS)))
def test_a_whole_number_of_any_unit_is_exact(count, unit):
    if count * UNITS[unit] <= MAXIMUM_BYTES:
        assert parse_bytes(f"{count}{unit}") == count * UNITS[unit]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1234567, "1.18 MiB"),
        (1024**2 - 1, "1 MiB"),
        (512 * 1024**2, "512 MiB"),
        (1000 * 1024**2, "1000 MiB"),
        (10**15, "909 TiB"),
        (-1536, "-1.5 KiB"),
        (2**62, "4 EiB"),
    ],
)
def test_formats_for_people(count, text):
    assert format_bytes(count) == text


@given(st.integers(0, MAXIMUM_BYTES // 2))
def test_a_formatted_count_reads_back_within_its_rounding(count):
    text = format_bytes(count).replace("EiB", "PiB")
    factor = 1024 if "EiB" in format_bytes(count) else 1
    assert abs(parse_bytes(text) * factor - count) <= 0.01 * count + factor


def test_the_refusal_survives_a_process_boundary():
    refusal = pickle.loads(pickle.dumps(InvalidQuantity("1M", "which?")))  # noqa: S301 - our own bytes
    assert (refusal.given, refusal.reason) == ("1M", "which?")
