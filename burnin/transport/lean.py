"""asyncssh, imported without starting other programs.

Its import looks for liboqs and libnacl by `ctypes.util.find_library`, which starts ldconfig, gcc and ld: thirteen processes
where neither is installed, a tenth of a second on a busy machine. Neither is wanted: the key exchange is curve25519 first
(burnin.transport.ssh), and Ed25519 is cryptography's.
"""

from __future__ import annotations

import ctypes.util

_find, ctypes.util.find_library = ctypes.util.find_library, lambda name: None
try:
    import asyncssh
finally:
    ctypes.util.find_library = _find

__all__ = ["asyncssh"]
