"""Weights that are NaN or Inf, found in a safetensors file without loading it.

The format (huggingface/safetensors, README): 8 bytes with the header's length, a JSON header of tensors with dtype,
shape and data_offsets, then their bytes. A float is NaN or Inf exactly when all bits of its exponent are set.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 24  # bytes read at a time: a multiple of every element's size
HEADER_LIMIT = 100_000_000  # bytes, as the safetensors library has it
# dtype -> NumPy's unsigned integer of its size, the mask that takes its sign away, and the least number that, read as
# an integer, is Inf or NaN. The two of 8 bits are those of OCP (E4M3 has no Inf, only NaN).
FLOATS = {
    "F64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7FFF_FFFF, 0x7F80_0000),
    "F16": ("<u2", 0x7FFF, 0x7C00),
    "BF16": ("<u2", 0x7FFF, 0x7F80),
    "F8_E5M2": ("u1", 0x7F, 0x7C),
    "F8_E4M3": ("u1", 0x7F, 0x7F),
}
INTEGERS = {"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"}


def nonfinite(path: Path) -> dict[str, int]:
    """Tensors of the file that hold NaN or Inf: name -> how many elements do.

    Reads the file once, a piece at a time. Raises ValueError for a file that is not safetensors, or has a type of
    number that is not known here.
    """
    bad: dict[str, int] = {}
    with path.open("rb") as file:
        for name, dtype, begin, end in _tensors(file, path.stat().st_size):
            if dtype in INTEGERS:
                continue
            file.seek(begin)
            count = _count(file, end - begin, dtype)
            if count:
                bad[name] = count
    return bad


def _tensors(file: Any, size: int) -> Iterator[tuple[str, str, int, int]]:
    """Name, dtype, and where its bytes begin and end in the file, of each tensor."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(HEADER_LIMIT, size - 8):
        raise ValueError("it is not a safetensors file")
    try:
        header = json.loads(file.read(length))
        tensors: dict[str, tuple[str, int, int]] = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = (8 + length + int(place) for place in entry["data_offsets"])
                tensors[str(name)] = str(entry["dtype"]), begin, end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ValueError("its header is not that of a safetensors file") from None
    for name, (dtype, begin, end) in tensors.items():
        if dtype not in FLOATS and dtype not in INTEGERS:
            raise ValueError(f"{name} has the unknown type {dtype[:20]!r}")
        if not 8 + length <= begin <= end <= size:
            raise ValueError(f"{name} lies outside of the file")
        yield name, dtype, begin, end


def _count(file: Any, left: int, dtype: str) -> int:
    import numpy as np

    kind, without_sign, least = FLOATS[dtype]
    count = 0
    while left:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise ValueError("it ends in the middle of a tensor")
        left -= len(chunk)
        bits = np.frombuffer(chunk, dtype=kind) & np.array(without_sign, dtype=kind)
        if bits.size and bits.max() >= least:
            count += int(np.count_nonzero(bits >= least))
    return count
