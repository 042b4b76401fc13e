"""Names become keyed hashes: the same patient gives the same one, and nobody else can undo it.

The key is a file that stays at the site. Whoever has a store without the key cannot test a guessed
name against it.
"""

from __future__ import annotations

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from flames.errors import FlamesError

BYTES = 32


def load_key(path: Path) -> bytes:
    """Return the key in ``path``, made on the first call, readable by its owner only.

    Raises:
        FlamesError: The file holds no key, or cannot be written.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(BYTES) + "\n")
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except (OSError, ValueError) as error:
        raise FlamesError(
            f"cannot use the key {path}: {error}",
            "name with --key the file that this site uses for its stores, or a new one",
        ) from error
    if len(key) < BYTES:
        raise FlamesError(
            f"the key {path} has {len(key)} bytes, not {BYTES}",
            "name with --key the file that this site uses for its stores, or a new one",
        )
    return key


def pseudonym(key: bytes, kind: str, value: str, length: int = 10) -> str:
    """Return the keyed hash of an identifier, in lower-case hexadecimal.

    >>> pseudonym(b"k" * 32, "patient", "Doe^Jane") == pseudonym(b"x" * 32, "patient", "Doe^Jane")
    False
    """
    return hmac.new(key, f"{kind}\x1f{value}".encode(), sha256).hexdigest()[:length]
