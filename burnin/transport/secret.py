"""Secrets: named in rack files, read here, shown nowhere.

`env:NAME` is an environment variable, `file:PATH` a file that only its owner may read (mode 0600), `keyring:SERVICE/USER` an
entry of the keyring of whoever runs this (extra `keyring`). The text never becomes part of an error, a log line or a stored
configuration: `Secret` prints as `***` wherever it ends up.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from burnin.errors import InputError

LONGEST = 4096


class Secret:
    """A password that does not print, compare, copy into JSON or pickle. `reveal()` is called where it is sent."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself."""
        return self.__text

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not stored")


def read_secret(name: str, resolve: Callable[[str], Path]) -> Secret:
    """The secret behind `env:NAME`, `file:PATH` or `keyring:SERVICE/USER`. Raises InputError, which names the place,
    never what is in it."""
    where, _, rest = name.partition(":")
    if where == "env":
        text = os.environ.get(rest)
        if not text:
            raise InputError(f"secret {name}: the environment variable {rest} is not set")
        return Secret(text)
    if where == "keyring":
        return Secret(_from_keyring(name, *rest.rpartition("/")[::2]))
    if where != "file":
        raise InputError("a secret that is neither env:NAME nor file:PATH nor keyring:SERVICE/USER")
    return Secret(_from_file(name, resolve(rest)))


def _from_keyring(name: str, service: str, user: str) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise InputError(f"secret {name}: no keyring is installed here: pip install 'burnin[keyring]'") from None
    try:
        text = keyring.get_password(service, user)
    except KeyringError as error:
        raise InputError(f"secret {name}: the keyring cannot be read ({type(error).__name__})") from None
    if not text or len(text) > LONGEST:
        raise InputError(f"secret {name}: the keyring has no entry of {service} for {user}: keyring set {service} {user}")
    return text


def _from_file(name: str, path: Path) -> str:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            raw = file.read(LONGEST + 1)
    except OSError as error:
        raise InputError(f"secret {name}: {path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
        raise InputError(f"secret {name}: {path} must be a file that only its owner may read: chmod 600 {path}")
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or len(raw) > LONGEST:
        raise InputError(f"secret {name}: {path} is empty, too long or not text")
    return text
