"""Instance ids as the tables know them."""

from __future__ import annotations

import re
from hashlib import blake2b

MAX_LENGTH = 255
_MADE_BY_US = re.compile("[0-9a-f]{32}").fullmatch


def is_key(text: str) -> bool:
    """Tell whether text can be an execution id, an update id or a key; databases refuse to look for other text."""
    return _MADE_BY_US(text) is not None


def key_of(instance_id: str) -> str:
    """Return the key of an instance_id: a hash, because collations find 'x', 'X' and 'x ' equal.

    Raises TypeError for anything but text, ValueError for text that is empty, too long or not storable.
    """
    if not isinstance(instance_id, str):
        raise TypeError(f"expected instance_id to be a str, found {type(instance_id).__name__}: {instance_id!r}")
    if not 0 < len(instance_id) <= MAX_LENGTH:
        raise ValueError(f"expected an instance_id of 1 to {MAX_LENGTH} characters, found {len(instance_id)}")
    if "\x00" in instance_id:
        raise ValueError(f"expected an instance_id without NUL characters, found {instance_id!r}")
    try:
        return blake2b(instance_id.encode(), digest_size=16).hexdigest()
    except UnicodeEncodeError:
        raise ValueError(
            f"expected an instance_id of valid Unicode, found a lone surrogate in {instance_id!r}"
        ) from None
