"""Measures of what a restoration does to tissue, boundaries, lesions and false detail, each with an ideal value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance
from scipy import ndimage

from .anatomy import TISSUES
from .heads import Ball, ball

__all__ = [
    "MEASURES",
    "Measure",
    "flat_error",
    "lesion_response",
    "noise_structure",
    "removal_return",
    "stroke",
    "tissue_agreement",
]

AROUND = 8.0  # mm beyond a lesion, where its response is looked for
BLURRED = 4.0  # mm beyond a lesion, to which the acquisition spreads it
ANATOMY = 2.0  # voxels, of the Gaussian that leaves structures as large as gyri
INNER = 4.0  # mm inside a removed ball, to which the acquisition spreads the anatomy around it


class Measure(NamedTuple):
    """A measure of the table.

    Args:
        part: of the table.
        title: in words, with its unit.
        ideal: the value of the HR volume.
        decimals: that are shown.
    """

    part: str
    title: str
    ideal: float
    decimals: int


MEASURES = {
    **{f"dice_{name}": Measure("tissue", f"Dice of {name}", 1.0, 3) for name in TISSUES},
    **{f"volume_{name}": Measure("tissue", f"volume of {name}, change in %", 0.0, 1) for name in TISSUES},
    "boundary_white": Measure("boundaries", "grey-white boundary, mean distance in mm", 0.0, 3),
    "boundary_outer": Measure("boundaries", "grey-fluid boundary, mean distance in mm", 0.0, 3),
    "kept": Measure("lesions", "contrast kept in %", 100.0, 0),
    "size": Measure("lesions", "volume at half contrast in %", 100.0, 0),
    "lost": Measure("lesions", "lesions lost, without any voxel at half contrast, in %", 0.0, 0),
    "beyond": Measure("lesions", "strongest false signal 4 to 8 mm outside the lesion, in % of its contrast", 0.0, 1),
    "shift": Measure("place", "shift against HR in voxels, largest axis", 0.0, 4),
    "removed": Measure("false detail", "removed anatomy that returns in %; more than 0 is invented", 0.0, 1),
    "smooth": Measure("false detail", "texture where anatomy was removed, in % of the anatomy's", 0.0, 1),
    "flat": Measure("false detail", "error in flat parts of a phantom, in % of its contrast", 0.0, 2),
    "noise": Measure("false detail", "structure in a noisy ball that HR lacks, in % of its signal", 0.0, 3),
    "stroke_mean": Measure("stroke scan", "mean intensity in the lesion, change in %", 0.0, 2),
    "stroke_error": Measure("stroke scan", "error in the lesion, in % of its mean", 0.0, 1),
}


def tissue_agreement(
    labels: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """Dice and change of volume of each tissue, and the distance of the boundaries, between two segmentations."""
    for name, label in TISSUES.items():
        found, true = labels == label, reference == label
        yield f"dice_{name}", 2 * float((found & true).sum()) / float(found.sum() + true.sum())
        yield f"volume_{name}", 100 * (float(found.sum()) / float(true.sum()) - 1)
    for name, lowest in (("white", TISSUES["WM"]), ("outer", TISSUES["GM"])):
        pair = (torch.as_tensor(one >= lowest)[None, None] for one in (labels, reference))
        distance = compute_average_surface_distance(
            *pair, include_background=True, symmetric=True, spacing=[float(h) for h in spacing]
        )
        yield f"boundary_{name}", float(distance)


def lesion_response(response: np.ndarray, lesion: Ball, spacing: Sequence[float]) -> Iterator[tuple[str, float]]:
    """What became of a lesion.

    Args:
        response: the restored head with lesions minus the restored head without.
        lesion: what was added.
        spacing: in mm.
    """
    share = ball(response.shape, spacing, lesion)
    distance = ndimage.distance_transform_edt(share == 0, sampling=spacing)
    near, found = distance <= AROUND, response / lesion.change  # 1 in an ideal lesion, whatever its sign
    yield "kept", 100 * float((found * share).sum() / (share * share).sum())
    yield "size", 100 * float((near & (found > 0.5)).sum()) / float((share > 0.5).sum())
    yield "beyond", 100 * float(np.abs(found[near & (distance > BLURRED)]).max())


def removal_return(
    restored: np.ndarray, anatomy: np.ndarray, removed: Ball, spacing: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """How much of a removed structure a restoration shows.

    Args:
        restored: the restored head without the structure.
        anatomy: the HR volume with it.
        removed: the ball.
        spacing: in mm.
    """
    inside = ball(restored.shape, spacing, removed._replace(radius=removed.radius - INNER)) == 1
    shown, truth = (one[inside] - one[inside].mean() for one in (restored.astype(float), anatomy.astype(float)))
    yield "removed", 100 * float(shown @ truth) / float(truth @ truth)
    yield "smooth", 100 * float(shown.std() / truth.std())


def flat_error(volume: np.ndarray, phantom: np.ndarray, where: np.ndarray) -> float:
    """Root mean square error in the flat parts of a phantom, in % of its largest intensity."""
    return 100 * float(np.sqrt(np.mean((volume - phantom)[where] ** 2)) / phantom.max())


def noise_structure(volume: np.ndarray, phantom: np.ndarray, where: np.ndarray) -> float:
    """Standard deviation of what differs from a noisy phantom on the scale of anatomy, in % of the signal."""
    return 100 * float(ndimage.gaussian_filter(volume - phantom, ANATOMY)[where].std() / phantom[where].mean())


def stroke(found: np.ndarray, true: np.ndarray) -> Iterator[tuple[str, float]]:
    """Mean and error of the intensity in the box of a lesion, against HR."""
    yield "stroke_mean", 100 * (float(found.mean()) / float(true.mean()) - 1)
    yield "stroke_error", 100 * float(np.sqrt(np.mean((found - true) ** 2))) / float(true.mean())
