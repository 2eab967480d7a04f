"""Heads that are altered in known ways, and phantoms: what a restoration may show is then known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

__all__ = ["Ball", "alter", "ball", "flat_phantom", "noisy_phantom", "place_lesions", "place_removal"]

RADII = (1.5, 2.5, 4.0, 6.0)  # mm, of a dark and a bright lesion each
CONTRAST = 0.4  # of a lesion, in units of the brightness of white matter
APART = 30.0  # mm between the centres of lesions, and from what is removed: where one is measured, no other reaches
REMOVED = 12.0  # mm, radius of what is removed; its edge fades over 3 mm more
FADE = 3.0
SUPERSAMPLING = 4  # points of a voxel along each axis


class Ball(NamedTuple):
    """A lesion or a removed structure.

    Args:
        centre: in voxels.
        radius: in mm.
        change: of the intensity, in the units of the scan; 0 for a structure that is removed.
    """

    centre: tuple[int, int, int]
    radius: float
    change: float = 0.0


def ball(shape: Sequence[int], spacing: Sequence[float], one: Ball) -> np.ndarray:
    """The share of every voxel that lies in a ball, by supersampling."""
    share = np.zeros(shape, dtype=np.float32)
    reach = [int(one.radius / h) + 2 for h in spacing]
    box = tuple(slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(one.centre, reach, shape, strict=True))
    points = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    axes = [
        ((np.arange(s.start, s.stop)[:, None] + points).ravel() - c) * h
        for s, c, h in zip(box, one.centre, spacing, strict=True)
    ]
    inside = sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)) <= one.radius**2
    sizes = [n for s in box for n in (s.stop - s.start, SUPERSAMPLING)]
    share[box] = inside.reshape(sizes).mean((1, 3, 5))
    return share


def place_removal(volume: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> Ball:
    """The place deep enough in the brain where the anatomy varies most."""
    sigma = [REMOVED / 2 / h for h in spacing]
    mean = ndimage.gaussian_filter(volume, sigma)
    varied = ndimage.gaussian_filter(volume**2, sigma) - mean**2
    varied[ndimage.distance_transform_edt(mask, sampling=spacing) < REMOVED + FADE] = 0
    return Ball(tuple(int(i) for i in np.unravel_index(varied.argmax(), varied.shape)), REMOVED)


def place_lesions(
    volume: np.ndarray, white: np.ndarray, spacing: Sequence[float], taken: Sequence[Ball], seed: int = 0
) -> list[Ball]:
    """Dark and bright lesions of known sizes in white matter, far from each other and from what is taken.

    The largest ones come first, and lie where the white matter is thickest. A lesion without a place is left out.
    """
    depth = ndimage.distance_transform_edt(white, sampling=spacing)
    inner = np.argwhere(depth >= min(RADII))
    inner = np.random.default_rng(seed).permutation(inner)
    depths = depth[tuple(inner.T)]
    change = CONTRAST * float(np.median(volume[white]))
    found = [*taken]
    for radius in sorted(RADII, reverse=True):
        for sign in (-1, 1):
            apart = np.full(len(inner), np.inf)
            for other in found:
                apart = np.minimum(apart, np.linalg.norm((inner - other.centre) * spacing, axis=1))
            free = apart >= APART
            if free.any():
                best = np.where(free, np.minimum(depths, radius), -1).argmax()
                found.append(Ball(tuple(int(i) for i in inner[best]), radius, sign * change))
    return found[len(taken) :]


def alter(volume: np.ndarray, spacing: Sequence[float], lesions: Sequence[Ball], removed: Ball) -> np.ndarray:
    """The head with lesions added, and the anatomy in a ball replaced by its mean."""
    head = volume.astype(np.float32).copy()
    distance = np.linalg.norm(
        np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), -1) * spacing
        - np.multiply(removed.centre, spacing),
        axis=-1,
    )
    kept = ((distance - removed.radius) / FADE).clip(0, 1)
    kept = kept**2 * (3 - 2 * kept)
    mean = head[distance <= removed.radius].mean()
    head = kept * head + (1 - kept) * mean
    for one in lesions:
        head += one.change * ball(volume.shape, spacing, one)
    return head.astype(np.float32)


def flat_phantom(size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A cube in a ball, each of constant intensity, on a grid of 1 mm, and where every border is at least 6 mm away."""
    fine = SUPERSAMPLING // 2
    axis = ((np.arange(fine * size) + 0.5) / fine - size / 2) / (size / 2)  # -1 to 1
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    volume = np.zeros((fine * size,) * 3, dtype=np.float32)
    volume[(x**2 + y**2 + z**2) < 0.9**2] = 0.6
    volume[np.maximum(np.maximum(abs(x), abs(y)), abs(z)) < 0.45] = 1.0
    volume = volume.reshape(size, fine, size, fine, size, fine).mean((1, 3, 5))
    edges = np.ptp([ndimage.maximum_filter(volume, 3), ndimage.minimum_filter(volume, 3)], axis=0) > 1e-4
    return volume, (ndimage.distance_transform_edt(~edges) >= 6) & (volume > 0)


def noisy_phantom(size: int = 96, snr: float = 20.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A ball of constant intensity with Rician noise, which has no anatomy, and its interior."""
    grid = np.stack(np.meshgrid(*(np.arange(size) - (size - 1) / 2,) * 3, indexing="ij"))
    distance = np.linalg.norm(grid, axis=0)
    signal = ball((size,) * 3, (1.0, 1.0, 1.0), Ball((size // 2,) * 3, 0.4 * size))
    noise = np.random.default_rng(seed).normal(scale=1 / snr, size=(2, size, size, size))
    return np.hypot(signal + noise[0], noise[1]).astype(np.float32), distance < 0.4 * size - 8
