"""One integer from any words, for generators: torch's CPU generator looks at 32 bits of its seed
and at no more.

Shifting parts into a 64-bit seed therefore gives equal streams for different parts; a hash does
not.
"""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """32 bits from the texts of `parts`, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")
