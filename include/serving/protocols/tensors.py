"""Tensors of the Open Inference Protocol: values of a column from bytes or JSON, and values of an answer as bytes.

Bytes are little end first, row by row, without padding. A number is taken as its datatype holds it, from JSON too: 0.1
sent as FP32 is the same number in either form. What a datatype cannot hold is refused or left to the check of the rows.
"""

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.serving.exchange import RequestRefused
from include.serving.slot.input_schema import convert_to_float

_KINDS = {"INT": ("i", (8, 16, 32, 64)), "UINT": ("u", (8, 16, 32, 64)), "FP": ("f", (16, 32, 64))}
NUMBERS = {f"{kind}{bits}": np.dtype(f"<{code}{bits // 8}") for kind, (code, all_) in _KINDS.items() for bits in all_}


def decode_numbers(raw: memoryview, datatype: str, count: int, name: str) -> list[Any]:
    """Numbers of `count` rows; NaN, the only way bytes can say it, is missing."""
    dtype = NUMBERS[datatype]
    if len(raw) != count * dtype.itemsize:
        raise RequestRefused(422, f"The bytes of {name} must be {dtype.itemsize} for each row.", field=name)
    values: NDArray[Any] = np.frombuffer(raw, dtype)
    if dtype.kind != "f":
        return cast_numbers(values.tolist(), datatype, name)
    return [None if value != value else value for value in values.tolist()]


def decode_strings(raw: memoryview, datatype: str, count: int, name: str) -> list[Any]:
    """BYTES of `count` rows: each element is its length in four bytes and then itself."""
    texts, end = [], 0
    for row in range(count):
        first = end + 4
        end = first + int.from_bytes(raw[end:first], "little")
        if max(first, end) > len(raw):
            raise RequestRefused(422, f"The bytes of {name} end before its {datatype} do.", row, name)
        texts.append(_decode_text(raw[first:end], row, name))
    if end != len(raw):
        raise RequestRefused(422, f"The bytes of {name} hold more than its shape says.", field=name)
    return texts


def decode_base64(values: Sequence[Any], name: str) -> list[Any]:
    """Texts; what is no text is left to the check of the rows."""
    try:
        return [base64.b64decode(each, validate=True).decode() if type(each) is str else each for each in values]
    except ValueError:
        raise RequestRefused(422, f"{name} must be UTF-8 in base64, as its content_type says.", field=name) from None


def cast_numbers(values: list[Any], datatype: str, name: str) -> list[Any]:
    """JSON numbers as the datatype holds them; what is no number is left to the check of the rows."""
    dtype = NUMBERS[datatype]
    if dtype.kind == "f":
        return values if dtype.itemsize == 8 else [_round(value, dtype, row, name) for row, value in enumerate(values)]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    for row, value in enumerate(values):
        if type(value) is float or (type(value) is int and (not low <= value <= high or float(value) != value)):
            raise RequestRefused(
                422,
                f"{name} must be an integer that fits into {datatype} and that a 64-bit float holds exactly.",
                row,
                name,
            )
    return values


def encode_floats(values: Sequence[float]) -> bytes:
    return np.asarray(values, "<f8").tobytes()


def encode_flags(values: Sequence[bool]) -> bytes:
    return np.asarray(values, "?").tobytes()


def encode_strings(values: Sequence[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return b"".join(part for each in encoded for part in (struct.pack("<I", len(each)), each))


def _decode_text(raw: memoryview, row: int, name: str) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise RequestRefused(422, f"{name} must be UTF-8.", row, name) from None


def _round(value: Any, dtype: np.dtype[Any], row: int, name: str) -> Any:
    """A fraction to the next one the datatype has; an integer is held exactly or not at all."""
    if type(value) not in (int, float):
        return value
    number = convert_to_float(value)
    with np.errstate(over="ignore"):  # beyond the datatype is infinite, and refused as such
        held = float(np.float64(number).astype(dtype))
    if type(value) is int and held != number and not math.isinf(held):
        raise RequestRefused(422, f"{name} must be an integer that its datatype holds exactly.", row, name)
    return held
