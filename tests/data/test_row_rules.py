from __future__ import annotations

import pytest

from include.data.row_rules import check_kinds, evaluate, list_columns, parse

KINDS = {"amount": "number", "price": "number", "home": "category", "at": "timestamp", "a name": "number"}


class Flag:
    """A truth value that joins as columns do, by & | ~."""

    def __init__(self, value: bool) -> None:
        self.value = bool(value)

    def __and__(self, other: Flag) -> Flag:
        return Flag(self.value and other.value)

    def __or__(self, other: Flag) -> Flag:
        return Flag(self.value or other.value)

    def __invert__(self) -> Flag:
        return Flag(not self.value)


class Cell:
    """One cell that compares as columns do."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __le__(self, other: Cell | float) -> Flag:
        return Flag(self.value <= getattr(other, "value", other))

    def __gt__(self, other: Cell | float) -> Flag:
        return Flag(self.value > getattr(other, "value", other))

    def __mul__(self, other: Cell | float) -> Cell:
        return Cell(self.value * getattr(other, "value", other))

    __rmul__ = __mul__


@pytest.mark.parametrize(
    ("text", "amount", "price", "holds"),
    [
        ("amount <= price", 1, 1, True),
        ("amount <= price", 2, 1, False),
        ("amount <= price * 2", 2, 1, True),
        ("amount <= price <= 5", 2, 6, False),
        ("not amount <= price", 2, 1, True),
        ("amount <= 0 or price <= 0 and amount <= 1", 2, 0, False),
        ("(amount <= 0 or price <= 0) and amount > 1", 2, 0, True),
        ("-1 * amount <= -2", 2, 0, True),
    ],
)
def test_a_rule_means_what_python_would_mean_by_it(text: str, amount: float, price: float, holds: bool) -> None:
    cells = {"amount": Cell(amount), "price": Cell(price)}
    assert evaluate(parse(text), cells.__getitem__).value is holds


def test_a_rule_names_its_columns_once_and_any_name_can_be_written() -> None:
    assert list_columns(parse("amount <= price and price > 2 * col('a name')")) == ("amount", "price", "a name")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("__import__('os').system('true') > 1", "is not allowed"),
        ("amount.real > 1", "is not allowed"),
        ("[amount][0] > 1", "is not allowed"),
        ("amount / price > 1", "is not allowed"),
        ("amount ** 9 ** 9 ** 9 > 1", "is not allowed"),
        ("(lambda: amount)() > 1", "is not allowed"),
        ("True < amount", "is not allowed"),
        ("amount", "compares nothing"),
        ("amount + price", "compares nothing"),
        ("amount in price", "a rule knows < <= > >= == !="),
        ("amount <= ", "is no rule"),
        ("", "is no rule"),
    ],
)
def test_what_is_no_comparison_of_columns_is_refused_and_never_run(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("amount <= prize", "no column 'prize'"),
        ("amount <= home", "number cannot be compared with a category"),
        ("home < 'rent'", "with == and != only"),
        ("at + at > at", "not added"),
        ("home + 'x' == 'rentx'", "with == and != only"),
    ],
)
def test_a_rule_about_unknown_columns_or_of_mixed_kinds_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_kinds(parse(text), KINDS)
