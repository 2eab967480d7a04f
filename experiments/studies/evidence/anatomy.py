"""Anatomy: where the brain of a scan is, and which of its voxels are fluid, grey and white matter.

The ICBM152 maps that nilearn ships are warped to the scan by DIPY. Two readers then segment a volume within the brain:
a hidden Markov random field (DIPY, after Zhang et al., IEEE TMI 20, 2001), and a plain Gaussian mixture whose shares
are the warped maps, without neighbours.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import itk
import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to, resample_to_output
from scipy import ndimage

__all__ = ["READERS", "TISSUES", "Anatomy", "find_anatomy", "hidden_markov", "mixture"]

TISSUES = {"CSF": 1, "GM": 2, "WM": 3}  # labels, from dark to bright on T1w
COARSE = 2.5  # mm, the grid of the registration
AFFINE = {"level_iters": [200, 50], "sigmas": [2.0, 0.0], "factors": [2, 1]}
WARP = [15, 10, 5]  # iterations from coarse to fine
SHRINK = 4  # of the volume on which N4 finds the bias field
STEPS = 30  # of expectation and maximisation; the means then move by less than 0.1 %
SMOOTHNESS = 0.1  # beta of the random field, DIPY's own example


class Anatomy(NamedTuple):
    """What is known of a scan's brain, on the scan's grid.

    Args:
        mask: of the brain, boolean.
        priors: of CSF, GM and WM, ``(3, X, Y, Z)``, whose sum is 1.
        bias: the field by which the scan's intensities are multiplied.
    """

    mask: np.ndarray
    priors: np.ndarray
    bias: np.ndarray


def find_anatomy(scan: nib.Nifti1Image) -> Anatomy:
    """Brain, priors and bias field of a T1w scan with or without a skull, in its canonical orientation."""
    maps = {name: _icbm(name) for name in ("t1", "gm", "wm")}
    grey, white = (np.asarray(maps[name].dataobj, dtype=np.float32) / 255 for name in ("gm", "wm"))
    brain = ndimage.binary_fill_holes(ndimage.binary_opening(np.asarray(maps["t1"].dataobj) > 0.05 * 255))
    brain = brain.astype(np.float32)
    to_scan = _registration(scan, maps["t1"], brain)
    shares = [to_scan(one) for one in ((brain - grey - white).clip(0), grey, white)]
    inside = to_scan(brain) > 0.5
    volume = scan.get_fdata(dtype=np.float32)
    inside &= volume > 0
    priors = np.stack(shares) + 0.02  # no tissue is impossible
    return Anatomy(inside, priors / priors.sum(0), _bias_field(volume, inside))


def hidden_markov(volume: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Labels of the tissues by a hidden Markov random field, 0 outside the brain."""
    from dipy.segment.tissue import TissueClassifierHMRF

    low, high = np.percentile(volume[anatomy.mask], (0.1, 99.9))  # vessels would leave no class to the tissues
    image = np.where(anatomy.mask, volume.clip(max(low, 0.01 * high), high), 0).astype(np.float64)
    labels = TissueClassifierHMRF(verbose=False).classify(image, 3, SMOOTHNESS, max_iter=10)[1]
    return np.where(anatomy.mask, labels, 0).astype(np.uint8)


def mixture(volume: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Labels of the tissues by one Gaussian each, whose shares are the priors; 0 outside the brain."""
    values, priors = volume[anatomy.mask].astype(np.float64), anatomy.priors[:, anatomy.mask]
    shares = priors
    for _ in range(STEPS):
        weights = shares.sum(1)
        means = shares @ values / weights
        variances = (shares * (values - means[:, None]) ** 2).sum(1) / weights
        likelihood = np.exp(-((values - means[:, None]) ** 2) / (2 * variances[:, None])) / np.sqrt(variances)[:, None]
        shares = priors * likelihood + 1e-30
        shares /= shares.sum(0)
    labels = np.zeros(volume.shape, dtype=np.uint8)
    labels[anatomy.mask] = 1 + shares.argmax(0)
    return labels


READERS = {"random field": hidden_markov, "Gaussian mixture": mixture}


def _icbm(name: str) -> nib.Nifti1Image:
    """A map of ICBM152 in the wheel of nilearn: 0 to 255 on a grid of 1 mm."""
    import nilearn

    return nib.load(
        Path(nilearn.__file__).parent / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    )


def _registration(scan: nib.Nifti1Image, template: nib.Nifti1Image, brain: np.ndarray):
    """The function that brings a map from the template's grid to the scan's grid."""
    from dipy.align import affine_registration
    from dipy.align.imaffine import AffineMap
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric

    moving, static = (resample_to_output(one, (COARSE,) * 3, order=1) for one in (scan, template))
    head, target = (one.get_fdata(dtype=np.float32) for one in (moving, static))
    mask = resample_from_to(nib.Nifti1Image(brain, template.affine), static, order=1).get_fdata() > 0.5
    _, affine = affine_registration(
        head,
        target,
        moving_affine=moving.affine,
        static_affine=static.affine,
        static_mask=ndimage.binary_dilation(mask, iterations=2).astype(np.int32),
        pipeline=["center_of_mass", "translation", "rigid", "affine"],
        **AFFINE,
    )
    grid = {"domain_grid_shape": target.shape, "domain_grid2world": static.affine}
    aligned = AffineMap(affine, **grid, codomain_grid_shape=head.shape, codomain_grid2world=moving.affine)
    stripped = aligned.transform(head) * ndimage.binary_dilation(mask)  # the template has no skull
    search = SymmetricDiffeomorphicRegistration(CCMetric(3, radius=3), level_iters=WARP)
    warp = search.optimize(target, stripped, static_grid2world=static.affine, moving_grid2world=static.affine)

    def to_scan(one: np.ndarray) -> np.ndarray:
        coarse = resample_from_to(nib.Nifti1Image(one, template.affine), static, order=1).get_fdata(dtype=np.float32)
        warped = nib.Nifti1Image(warp.transform_inverse(coarse), np.asarray(affine) @ static.affine)
        return resample_from_to(warped, scan, order=1).get_fdata(dtype=np.float32)

    return to_scan


def _bias_field(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The smooth factor by which coils and field brighten a volume (N4), 1 on average within the brain."""
    coarse = [ndimage.zoom(one.astype(np.float32), 1 / SHRINK, order=1) for one in (volume, mask)]
    image, inside = itk.image_from_array(coarse[0]), itk.image_from_array((coarse[1] > 0.5).astype(np.uint8))
    corrected = itk.array_from_image(itk.n4_bias_field_correction_image_filter(image, mask_image=inside))
    ratio = np.where(coarse[1] > 0.5, coarse[0] / corrected.clip(min=1e-6), 0).clip(0, 4)
    weight = ndimage.gaussian_filter((ratio > 0).astype(np.float32), 2)
    smooth = ndimage.gaussian_filter(ratio, 2) / weight.clip(min=1e-3)  # beyond the brain as at its edge
    factors = [n / m for n, m in zip(volume.shape, smooth.shape, strict=True)]
    field = ndimage.zoom(np.where(weight > 1e-2, smooth, 1), factors, order=1).clip(0.2, 5)
    return field / field[mask].mean()
