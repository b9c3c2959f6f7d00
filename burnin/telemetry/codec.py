"""How a column of readings becomes a few bytes, and comes back bit for bit.

Readings of hardware are decimals in disguise: whole degrees, milliwatts, microseconds, counters. A column that is exactly
`integer / scale` for a scale of 1, 10, 1000 or 10^6 is kept as integers: first value, usual step, and how far each step is off
the usual one (zigzag, so that small means few bytes). Anything else is kept as the XOR of neighbouring bit patterns. Both
are then split into byte planes, and each plane is compressed by itself: in noise the low byte is pure chance and the
high bytes are not, and one entropy table for both serves neither. A column that never changes costs about 10 bytes.

    varint count | kind (bit 7: has nulls) | [plane of null bits] | varint first, varint step | width | planes | crc32
    a plane: varint length, then length bytes: 0 = all zero, as long as the plane = verbatim, else zstd

Pure: arrays in, bytes out. NaN is a null and loses its payload; -0.0, infinities and subnormals survive.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import zstandard
from numpy.typing import NDArray

from burnin.telemetry.series import Floats

SCALES = (1, 10, 1000, 1_000_000)
MAX_COUNT = 1 << 24
"""Values in one column: 19 days at 10 Hz. A larger count in the bytes is damage, not data."""

_LEVEL = 3
_XOR = len(SCALES)
_NULLS = 0x80
_EXACT = float(1 << 53)

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]


class BadColumn(ValueError):
    """The bytes are not a column: cut off, damaged, or of something else."""


def compressor() -> zstandard.ZstdCompressor:
    """One to be shared by the columns of a block; making one costs more than a column. Not for two threads at once."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=False)


def encode(values: Floats, zstd: zstandard.ZstdCompressor | None = None) -> bytes:
    """One column of float64, NaN = null. Raises ValueError above MAX_COUNT values."""
    if len(values) > MAX_COUNT:
        raise ValueError(f"{len(values)} values in one column, at most {MAX_COUNT}")
    zstd = zstd or compressor()
    null = np.isnan(values)
    holes = bool(null.any())
    known = np.ascontiguousarray(values[~null] if holes else values, dtype=np.float64)
    bits = known.view(np.uint64)
    changing = known if (bits[1:] != bits[:1]).any() else known[:1]
    kind, head, words = _integers(changing) or _patterns(changing)
    out = bytearray(_varint(len(values)))
    out.append(kind | _NULLS if holes else kind)
    if holes:
        out += _plane(np.packbits(null).tobytes(), zstd)
    if known.size:
        width = (int(words.max(initial=0)).bit_length() + 7) // 8
        out += head
        out.append(width)
        for plane in words.view(np.uint8).reshape(-1, 8)[:, :width].T:
            out += _plane(plane.tobytes(), zstd)
    out += struct.pack("<I", zlib.crc32(out))
    return bytes(out)


def decode(data: bytes, zstd: zstandard.ZstdDecompressor | None = None) -> Floats:
    """The column as it was given to `encode`. Raises BadColumn."""
    if len(data) < 6 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise BadColumn(f"{len(data)} bytes whose checksum is not that of a column")
    try:
        return _decode(data, zstd or zstandard.ZstdDecompressor())
    except (ValueError, IndexError, struct.error, OverflowError, zstandard.ZstdError) as error:
        raise BadColumn(f"{len(data)} bytes with a right checksum, but not a column: {error}") from error


def _decode(data: bytes, zstd: zstandard.ZstdDecompressor) -> Floats:
    count, at = _read_varint(data, 0)
    if count > MAX_COUNT:
        raise ValueError(f"{count} values")
    kind, at = data[at], at + 1
    null = np.zeros(count, bool)
    if kind & _NULLS:
        bits, at = _read_plane(data, at, (count + 7) // 8, zstd)
        null = np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(bool)
    known, at = _read_known(data, at, kind & ~_NULLS, count - int(null.sum()), zstd)
    if at != len(data) - 4:
        raise ValueError(f"{len(data) - 4 - at} bytes too many")
    if not kind & _NULLS:
        return known
    values = np.full(count, np.nan)
    values[~null] = known
    return values


def _read_known(data: bytes, at: int, kind: int, count: int, zstd: zstandard.ZstdDecompressor) -> tuple[Floats, int]:
    """The values that are not null, and where reading stopped."""
    if kind > _XOR:
        raise ValueError(f"kind {kind}")
    if not count:
        return np.empty(0), at
    step = 0
    if kind == _XOR:
        (first,), at = struct.unpack_from("<Q", data, at), at + 8
    else:
        first, at = _read_varint(data, at)
        step, at = _read_varint(data, at)
    width, at = data[at], at + 1
    if width > 8:
        raise ValueError(f"{width} planes")
    octets = np.zeros((count - 1, 8), np.uint8)
    for i in range(width):
        plane, at = _read_plane(data, at, count - 1, zstd)
        octets[:, i] = np.frombuffer(plane, np.uint8)
    words: Words = octets.view(np.uint64).reshape(-1)
    if kind == _XOR:
        patterns = np.bitwise_xor.accumulate(np.concatenate((np.array([first], np.uint64), words)))
        return patterns.view(np.float64), at
    steps = (words >> np.uint64(1)).astype(np.int64) ^ -(words & np.uint64(1)).astype(np.int64)
    integers = np.cumsum(np.concatenate((np.array([_unzigzag(first)]), steps + _unzigzag(step))))
    return integers / float(SCALES[kind]), at


def _integers(known: Floats) -> tuple[int, bytes, Words] | None:
    """(kind, first and usual step, deviations from the usual step) when the values are exactly integers / scale."""
    for kind, scale in enumerate(SCALES):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(known * scale)
        if not (np.abs(scaled) < _EXACT).all():  # infinities too
            continue
        whole: Integers = scaled.astype(np.int64)
        if np.array_equal((whole / scale).view(np.int64), known.view(np.int64)):  # as bits: -0.0 is no integer
            steps = whole[1:] - whole[:-1]
            usual = int(np.partition(steps, steps.size // 2)[steps.size // 2]) if steps.size else 0
            off = steps - usual
            first = int(whole[0]) if whole.size else 0
            return kind, _varint(_zigzag(first)) + _varint(_zigzag(usual)), ((off << 1) ^ (off >> 63)).view(np.uint64)
    return None


def _patterns(known: Floats) -> tuple[int, bytes, Words]:
    """(kind, first bit pattern, XOR of neighbours) for any other values."""
    bits = known.view(np.uint64)
    return _XOR, struct.pack("<Q", int(bits[0])), bits[1:] ^ bits[:-1]


def _plane(plane: bytes, zstd: zstandard.ZstdCompressor) -> bytes:
    """One plane with its length in front, in the shortest of its three forms."""
    if plane.count(0) == len(plane):
        return b"\0"
    packed = zstd.compress(plane)
    shortest = packed if len(packed) < len(plane) else plane
    return _varint(len(shortest)) + shortest


def _read_plane(data: bytes, at: int, size: int, zstd: zstandard.ZstdDecompressor) -> tuple[bytes, int]:
    length, at = _read_varint(data, at)
    body = data[at : at + length]
    if len(body) != length or length > size:
        raise ValueError(f"a plane of {length} bytes where at most {size} can be")
    if length == 0:
        return bytes(size), at
    plane = body if length == size else zstd.decompress(body, max_output_size=size)
    if len(plane) != size:
        raise ValueError(f"a plane of {len(plane)} values, expected {size}")
    return plane, at + length


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else -(number << 1) - 1


def _unzigzag(number: int) -> int:
    return number >> 1 if not number & 1 else -(number >> 1) - 1


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte, at = data[at], at + 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that does not end")
