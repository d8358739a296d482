"""DynamoDB's numbers: 38 significant digits, exact, each with one text."""

import re
from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, Subnormal

from dualstore.errors import invalid

_NUMERAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

# Texts that DynamoDB gives back as they are. Most numbers come so, and 38 characters cannot break a limit: a
# match takes an eighth of the time that reading and writing the number does, at every write.
_CANONICAL = re.compile(r"0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]")
_SURELY_EXACT_CHARACTERS = 38

# Rounding away zeros is allowed (`Rounded` is not trapped): DynamoDB counts significant digits.
_DYNAMODB = Context(prec=38, Emin=-130, Emax=125, traps=[Inexact, InvalidOperation, Overflow, Subnormal])


def _limited(compute: Callable[[], Decimal]) -> Decimal:
    """The outcome of a computation in DynamoDB's number context, without trailing zeros or `-0`."""
    try:
        return _DYNAMODB.normalize(compute()) or Decimal(0)
    except Overflow:
        raise invalid(
            "Number overflow. Attempting to store a number with magnitude larger than supported range"
        ) from None
    except Subnormal:
        raise invalid(
            "Number underflow. Attempting to store a number with magnitude smaller than supported range"
        ) from None
    except Inexact:
        raise invalid("Attempting to store more than 38 significant digits in a Number") from None
    except InvalidOperation:
        raise invalid("The parameter cannot be converted to a numeric value") from None


def number(text: str) -> Decimal:
    """Read a DynamoDB number.

    Args:
        text: the content of an `N`.

    Returns:
        Its exact value, without trailing zeros; `-0` is 0.

    Raises:
        RequestRejected: not a numeral, more than 38 significant digits, or a magnitude outside
            1E-130 to 9.99…E+125 (AWS, "Supported data types and naming rules": Number).
    """
    if _NUMERAL.fullmatch(text) is None:
        raise invalid("The parameter cannot be converted to a numeric value")
    return _limited(lambda: _DYNAMODB.create_decimal(text))


def is_canonical(text: str) -> bool:
    """Whether a text is surely a number, and the one that `canonical_numeral` gives; False says nothing."""
    return len(text) <= _SURELY_EXACT_CHARACTERS and _CANONICAL.fullmatch(text) is not None


def canonical_numeral(text: str) -> str:
    """The one text of the number that a text says: `number_text(number(text))`.

    Raises:
        RequestRejected: as `number`.
    """
    return text if is_canonical(text) else number_text(number(text))


def number_text(value: Decimal) -> str:
    """The one text that DynamoDB gives back for a number: plain digits, `1.0` as `1`, `1E2` as `100`.

    Raises:
        RequestRejected: the value is outside DynamoDB's limits.
    """
    return format(_limited(lambda: _DYNAMODB.plus(value)), "f")


def add_numbers(left: str, right: str) -> str:
    """The exact sum of two numbers.

    Raises:
        RequestRejected: an operand or the sum is outside DynamoDB's limits.
    """
    a, b = number(left), number(right)
    return format(_limited(lambda: _DYNAMODB.add(a, b)), "f")


def subtract_numbers(left: str, right: str) -> str:
    """The exact difference of two numbers.

    Raises:
        RequestRejected: an operand or the difference is outside DynamoDB's limits.
    """
    a, b = number(left), number(right)
    return format(_limited(lambda: _DYNAMODB.subtract(a, b)), "f")
