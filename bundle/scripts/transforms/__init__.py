"""Transforms from a scan's file to the network and back, by what they act on.

* File: reading (formats, nifti, nrrd, dicom and its frames), evidence, naming and saving.
* Grid: grid, interpolate, registration and misalignment.
* Voxels: intensity, masks and familiarity.
* k-space: acquisition, acquire, degradation, simulation and consistency.
* Prediction: results and errors.

A transform of one volume comes as a pair: the array transform takes a channel-first volume, and its ``...d`` twin takes
a dictionary. A transform of several volumes takes a dictionary only. The metadata of a ``MetaTensor`` follow. The field
of view and the position of voxel 0 never change; the spacing may. Only :class:`Acquire` and
:class:`InterpolateAcquiredd` move voxel 0, to the first slice and back.
"""

from scripts.transforms.acquire import Acquire, Acquired
from scripts.transforms.acquisition import KSpaceTruncate, KSpaceTruncated
from scripts.transforms.consistency import DataConsistencyd, consistency_mode
from scripts.transforms.degradation import RandDegraded, Subsample, Subsampled
from scripts.transforms.errors import CalibrateErrord, SplitErrord
from scripts.transforms.familiarity import WarnUnfamiliard
from scripts.transforms.grid import (
    CheckSameGridd,
    DeclareHighResGrid,
    DeclareHighResGridd,
    DeclareRestoredGridd,
    KSpaceSpacing,
    KSpaceSpacingd,
)
from scripts.transforms.intensity import ScaleIntensityRobust, ScaleIntensityRobustd
from scripts.transforms.interpolate import InterpolateAcquiredd, ReleaseInterpolatedd
from scripts.transforms.masks import ErodeMask, ErodeMaskd, MarkTissued
from scripts.transforms.misalignment import Misalignd
from scripts.transforms.reading import CheckVolume, CheckVolumed, LoadImageStrictd
from scripts.transforms.registration import RigidRegisterd
from scripts.transforms.results import InterpolateBaselinesd, MeasureConsistencyd
from scripts.transforms.saving import SaveImageDerivatived
from scripts.transforms.simulation import SimulateAcquiredd, simulated_acquisition

__all__ = [
    "Acquire",
    "Acquired",
    "CalibrateErrord",
    "CheckSameGridd",
    "CheckVolume",
    "CheckVolumed",
    "DataConsistencyd",
    "DeclareHighResGrid",
    "DeclareHighResGridd",
    "DeclareRestoredGridd",
    "ErodeMask",
    "ErodeMaskd",
    "InterpolateAcquiredd",
    "InterpolateBaselinesd",
    "KSpaceSpacing",
    "KSpaceSpacingd",
    "KSpaceTruncate",
    "KSpaceTruncated",
    "LoadImageStrictd",
    "MarkTissued",
    "MeasureConsistencyd",
    "Misalignd",
    "RandDegraded",
    "ReleaseInterpolatedd",
    "RigidRegisterd",
    "SaveImageDerivatived",
    "ScaleIntensityRobust",
    "ScaleIntensityRobustd",
    "SimulateAcquiredd",
    "SplitErrord",
    "Subsample",
    "Subsampled",
    "WarnUnfamiliard",
    "consistency_mode",
    "simulated_acquisition",
]
