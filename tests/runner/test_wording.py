"""Numbers are written in one way."""

import pytest

from mpstudy.runner.wording import aligned, number, p_value


@pytest.mark.parametrize(
    "value, plain, signed",
    [
        (0.01396, "0.0140", "+0.0140"),
        (-0.5, "−0.500", "−0.500"),
        (0.0, "0", "0"),
        (-0.0, "0", "0"),
        (9.996, "10.0", "+10.0"),
        (99.95, "100", "+100"),
        (20_480, "20,500", "+20,500"),
        (7, "7.00", "+7.00"),
        (1.5e-7, "0.000000150", "+0.000000150"),
        (None, "–", "–"),
    ],
)
def test_three_significant_digits_and_a_sign_for_differences(value, plain, signed):
    assert (number(value), number(value, signed=True)) == (plain, signed)


@pytest.mark.parametrize("p, text", [(0.0009, "< 0.001"), (0.001, "0.00100"), (1.0, "1.00"), (None, "–")])
def test_p_values(p, text):
    assert p_value(p) == text


def test_columns_for_the_terminal():
    assert aligned([["a", "bb"], ["ccc", ""]]) == "a    bb\nccc"
