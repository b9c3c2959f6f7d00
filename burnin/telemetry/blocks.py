"""Stretches of one tray's readings as bytes: frames while they are young, blocks for good.

A *group* is the columns that are read at the same moments: the fast metrics of a tray are one group, the slow ones
another, each with its own times. A *frame* holds some ten seconds of groups and is cheap to write. A *block* holds half
an hour; each of its columns is coded by itself (`burnin.telemetry.codec`), behind a directory, so that one series is read
without decoding the others.

A block is a tray's, not a GPU's: GPUs of a tray share times, directory and the last half-filled page, which is 8 % fewer
bytes a value (0.72 against 0.78 on the readings of bench/store), and one series of two hours still reads in a millisecond.

Pure: records in, bytes out. Times are whole milliseconds since the run began, in any order.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from burnin.telemetry.codec import BadColumn, compressor, decode, encode
from burnin.telemetry.series import Floats, Series

Key = tuple[str, str]
"""(part, metric)."""
Moments = NDArray[np.int64]

_BLOCK, _FRAME = b"BB1\n", b"BF1\n"
_MAX_FRAME = 1 << 30


class BadBlock(ValueError):
    """The bytes are not a frame or block: cut off, damaged, or of something else."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Columns read at the same moments: `values[i]` are the readings of `keys[i]`, one per moment, NaN = null."""

    t_ms: Moments
    keys: tuple[Key, ...]
    values: Floats
    """Shape (keys, moments)."""


def merge(groups: Iterable[Group]) -> list[Group]:
    """Groups of the same columns become one, sorted by time; what came first stays first within a millisecond."""
    same: dict[tuple[Key, ...], list[Group]] = {}
    for group in groups:
        same.setdefault(group.keys, []).append(group)
    merged = []
    for keys in list(same):
        many = same.pop(keys)  # let go of, so that two days of a rack are never in memory twice
        t_ms = np.concatenate([g.t_ms for g in many])
        values = np.ascontiguousarray(np.concatenate([g.values for g in many], axis=1))
        if (t_ms[1:] < t_ms[:-1]).any():
            order = np.argsort(t_ms, kind="stable")
            t_ms, values = t_ms[order], values[:, order]
        merged.append(Group(t_ms, keys, values))
    return merged


def series(groups: Iterable[Group]) -> dict[Key, Series]:
    """One series per (part, metric). Series of one group share one array of times."""
    pieces: dict[Key, list[tuple[Floats, Floats]]] = {}
    for group in merge(groups):
        t_s = group.t_ms / 1000.0
        for key, values in zip(group.keys, group.values, strict=True):
            pieces.setdefault(key, []).append((t_s, values))
    out = {}
    for key, parts in pieces.items():
        if len(parts) == 1:
            out[key] = Series(*parts[0])
        else:
            t_s, values = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(t_s, kind="stable")
            out[key] = Series(t_s[order], values[order])
    return out


# ---------------------------------------------------------------- blocks: small, and readable by the column


def pack(groups: Iterable[Group]) -> bytes:
    """A block. Its directory names every column and the length of its bytes."""
    zstd = compressor()
    directory, columns = [], []
    for group in groups:
        times = encode(group.t_ms.astype(np.float64), zstd)
        coded = [encode(values, zstd) for values in group.values]
        directory.append([len(times), [[metric, part, len(c)] for (part, metric), c in zip(group.keys, coded, strict=True)]])
        columns += [times, *coded]
    index = zstd.compress(orjson.dumps(directory))
    return b"".join((_BLOCK, struct.pack("<II", len(index), zlib.crc32(index)), index, *columns))


def unpack(block: bytes, parts: Collection[str] | None = None, metrics: Collection[str] | None = None) -> list[Group]:
    """The groups of a block, or only the columns of these parts and metrics. Raises BadBlock."""
    try:
        return [group for group in _unpack(block, parts, metrics) if group.keys]
    except (BadColumn, ValueError, TypeError, struct.error, zstandard.ZstdError) as error:
        raise BadBlock(f"{len(block)} bytes that are not a whole block of telemetry: {error}") from error


def _unpack(block: bytes, parts: Collection[str] | None, metrics: Collection[str] | None) -> Iterable[Group]:
    if block[:4] != _BLOCK:
        raise ValueError(f"they begin with {block[:4]!r}")
    size, crc = struct.unpack_from("<II", block, 4)
    index, at = block[12 : 12 + size], 12 + size
    if zlib.crc32(index) != crc:
        raise ValueError("the directory is damaged")
    zstd = zstandard.ZstdDecompressor()
    for times_size, columns in orjson.loads(zstd.decompressobj().decompress(index)):
        t_ms = None
        begin, at = at, at + times_size
        keys, values = [], []
        for metric, part, length in columns:
            if _wanted(part, metric, parts, metrics):
                if t_ms is None:
                    t_ms = decode(block[begin : begin + times_size], zstd).astype(np.int64)
                column = decode(block[at : at + length], zstd)
                if column.size != t_ms.size:
                    raise ValueError(f"{part} {metric} has {column.size} values at {t_ms.size} moments")
                keys.append((part, metric))
                values.append(column)
            at += length
        if t_ms is not None:
            yield Group(t_ms, tuple(keys), np.stack(values))


# ---------------------------------------------------------------- frames: cheap, written every few seconds


def pack_frame(groups: Collection[Group]) -> bytes:
    """A frame: names, times and values of all groups, moment after moment, in one zstd frame with a checksum."""
    names = orjson.dumps([[len(g.t_ms), g.keys] for g in groups])
    arrays = [array.tobytes() for g in groups for array in (g.t_ms, g.values.T)]
    body = b"".join((struct.pack("<I", len(names)), names, *arrays))
    return _FRAME + zstandard.ZstdCompressor(level=1, write_checksum=True).compress(body)


def unpack_frames(
    frames: Iterable[bytes], parts: Collection[str] | None = None, metrics: Collection[str] | None = None
) -> list[Group]:
    """The groups of these frames, or only the columns of these parts and metrics. Raises BadBlock."""
    zstd, names, groups = zstandard.ZstdDecompressor(), dict[bytes, Any](), list[Group]()
    for frame in frames:
        try:
            groups += _unpack_frame(frame, zstd, names)
        except (ValueError, TypeError, struct.error, zstandard.ZstdError) as error:
            raise BadBlock(f"{len(frame)} bytes that are not a whole frame of telemetry: {error}") from error
    if parts is None and metrics is None:
        return groups
    some = []
    for group in groups:
        rows = [i for i, key in enumerate(group.keys) if _wanted(*key, parts, metrics)]
        if rows:
            some.append(Group(group.t_ms, tuple(group.keys[i] for i in rows), group.values[rows]))
    return some


def _unpack_frame(frame: bytes, zstd: zstandard.ZstdDecompressor, names: dict[bytes, Any]) -> Iterable[Group]:
    """`names`: directories seen before, as they were read; a tray's frames all have the same one."""
    if frame[:4] != _FRAME:
        raise ValueError(f"they begin with {frame[:4]!r}")
    body = zstd.decompress(frame[4:], max_output_size=_MAX_FRAME)
    (size,) = struct.unpack_from("<I", body)
    head, at = body[4 : 4 + size], 4 + size
    if head not in names:
        names[head] = [(count, tuple(map(tuple, keys))) for count, keys in orjson.loads(head)]
    for count, keys in names[head]:
        t_ms = np.frombuffer(body, np.int64, count, at)
        at += t_ms.nbytes
        values = np.frombuffer(body, np.float64, count * len(keys), at).reshape(count, len(keys))
        at += values.nbytes
        yield Group(t_ms, keys, values.T)
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes too many")


def _wanted(part: str, metric: str, parts: Collection[str] | None, metrics: Collection[str] | None) -> bool:
    return (parts is None or part in parts) and (metrics is None or metric in metrics)
