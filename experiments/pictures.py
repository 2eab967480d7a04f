"""Small pictures: what is committed stays below 300 kB."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

__all__ = ["LARGEST", "save_small"]

LARGEST = 300_000  # bytes
WIDTHS = range(1000, 200, -100)  # pixels, tried in this order
COLOURS = 128


def save_small(source: Path, target: Path) -> None:
    """Copy a picture as a PNG file of few colours, as wide as its size in bytes allows."""
    picture = Image.open(source).convert("RGB")
    target.parent.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        smaller = picture.copy()
        smaller.thumbnail((width, picture.height))
        smaller.quantize(COLOURS).save(target, optimize=True)
        if target.stat().st_size <= LARGEST:
            return
