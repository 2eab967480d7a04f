"""Compression: the content stays, equal content gives equal bytes, and the size is that of zlib to 10 %."""

from __future__ import annotations

import gzip
import importlib
import io
import sys

import numpy as np
import pytest
from scripts.utils import compression


def packed(module, content: bytes, level: int = 1) -> bytes:
    file = io.BytesIO()
    with module.GzipFile("", "wb", level, file, mtime=0) as stream:
        stream.write(content)
    return file.getvalue()


@pytest.fixture(params=["as installed", "without isal"])
def module(request, monkeypatch):
    if request.param == "without isal":
        monkeypatch.setitem(sys.modules, "isal", None)
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    yield importlib.reload(compression)
    monkeypatch.undo()
    importlib.reload(compression)


@pytest.mark.parametrize("level", [1, 3])
def test_python_and_this_read_what_the_other_writes(module, level):
    content = np.random.default_rng(0).normal(500, 100, 60_000).astype(np.float32).tobytes()
    made = packed(module, content, level)
    assert gzip.decompress(made) == module.decompress(made) == module.decompress(gzip.compress(content)) == content
    assert made == packed(module, content, level)
    assert len(made) < 1.1 * len(packed(gzip, content))


def test_what_is_damaged_is_refused(module):
    damaged = bytearray(packed(module, bytes(range(256)) * 99))
    damaged[-6] ^= 1
    with pytest.raises((OSError, EOFError), match=r"(?i)crc|size|length"):
        module.decompress(bytes(damaged))
