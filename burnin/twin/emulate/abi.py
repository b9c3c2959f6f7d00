"""A shared library as ctypes code sees one: symbols that can be called, and memory behind the pointers they are given.

Strict where a real library would read or write garbage: a struct passed by value, a buffer that is too small, a number
of arguments that is wrong, a Python int that does not fit the C int ctypes would make of it.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Mapping
from typing import Any

_REFERENCE = type(c.byref(c.c_int()))
_POINTER = c._Pointer


class Refuse(Exception):
    """The call's return code is not success."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Library:
    """What `ctypes.CDLL(name)` gives: one attribute per exported symbol, AttributeError for any other."""

    def __init__(self, name: str, symbols: Mapping[str, Callable[..., Any]]) -> None:
        self._name, self._symbols = name, symbols

    def __getattr__(self, name: str) -> Symbol:
        if name.startswith("_"):
            raise AttributeError(name)
        symbol = self[name]
        setattr(self, name, symbol)
        return symbol

    def __getitem__(self, name: str) -> Symbol:
        if name not in self._symbols:
            raise AttributeError(f"{self._name}: undefined symbol: {name}")
        return Symbol(name, self._symbols[name])


class Symbol:
    """One exported function; `argtypes` and `restype` may be set, and arguments are then checked as ctypes does."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.__name__ = name
        self._function = function
        self.argtypes: Any = None
        self.restype: Any = c.c_int

    def __call__(self, *args: Any) -> Any:
        if self.argtypes is None:
            given: tuple[Any, ...] = tuple(_as_c_int(a) if type(a) is int else a for a in args)
        else:
            if len(args) != len(self.argtypes):
                raise TypeError(f"{self.__name__} takes {len(self.argtypes)} arguments ({len(args)} given)")
            given = tuple(map(_checked, self.argtypes, args))
        try:
            result = self._function(*given)
        except Refuse as refusal:
            result = refusal.code
        return 0 if result is None else result


def _as_c_int(value: int) -> int:
    """Without argtypes ctypes hands over a C int: the upper half is lost, as it is for real."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _checked(kind: Any, value: Any) -> Any:
    if type(value) is kind:
        return value
    try:
        kind.from_param(value)
    except TypeError as error:
        raise c.ArgumentError(f"{type(value).__name__} where {kind.__name__} is expected: {error}") from None
    return value


def number(value: Any) -> int:
    """An integer argument: Python int or simple ctypes object."""
    if isinstance(value, int):
        return value
    if isinstance(value, c._SimpleCData):
        return int(value.value or 0)
    raise c.ArgumentError(f"{type(value).__name__} where a number is expected")


def address(value: Any, size: int = 0) -> int:
    """A pointer argument's address; 0 for NULL. `size` is what will be touched behind it, where that can be checked.

    Raises ctypes.ArgumentError for an object passed by value, and for a buffer that is too small.
    """
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if isinstance(value, c.c_void_p):
        return value.value or 0
    if isinstance(value, c.c_char_p):
        return c.cast(value, c.c_void_p).value or 0
    room = size
    if isinstance(value, _REFERENCE):
        whole, at = value._obj, c.cast(value, c.c_void_p).value or 0  # type: ignore[attr-defined]
        room = c.sizeof(whole) - (at - c.addressof(whole))
        if room >= size:
            return at
    elif isinstance(value, c.Array):
        room = c.sizeof(value)
    elif isinstance(value, bytes):
        room, value = len(value) + 1, c.c_char_p(value)
    elif not isinstance(value, _POINTER):
        raise c.ArgumentError(f"{type(value).__name__} passed by value where a pointer is expected")
    if room < size:
        raise c.ArgumentError(f"{size} bytes would be touched in {room}")
    return c.cast(value, c.c_void_p).value or 0


def struct_at(kind: Any, value: Any) -> Any:
    """The C struct behind a pointer argument, in place."""
    return kind.from_address(address(value, c.sizeof(kind)))


def put(kind: Any, value: Any, *pointers: Any) -> None:
    """Write `value` as a C `kind` behind each pointer."""
    for pointer in pointers:
        kind.from_address(address(pointer, c.sizeof(kind))).value = value
