"""Compression: gzip by ISA-L, which is several times as fast as zlib and packs as tightly.

Without python-isal, which a server of its own may lack, Python's module does the same in more time.
"""

from __future__ import annotations

try:
    from isal.igzip import IGzipFile as GzipFile
    from isal.igzip import decompress
except ImportError:
    from gzip import GzipFile, decompress

__all__ = ["GzipFile", "decompress"]
