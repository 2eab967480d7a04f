"""Transforms between what was acquired and what the networks see: resolution, grid, intensity, reading.

Each array transform takes a channel-first volume; its ``...d`` twin works on a dictionary. The metadata of a
``MetaTensor`` follow: the field of view and the position of voxel 0 never change, the spacing does.
"""

from scripts.transforms.acquisition import KSpaceTruncate, KSpaceTruncated, RandDegraded, Subsample, Subsampled
from scripts.transforms.consistency import DataConsistencyd, consistency_mode
from scripts.transforms.familiarity import WarnUnfamiliard
from scripts.transforms.grid import (
    DeclareHighResGrid,
    DeclareHighResGridd,
    DeclareRestoredGridd,
    KSpaceSpacing,
    KSpaceSpacingd,
)
from scripts.transforms.intensity import ScaleIntensityRobust, ScaleIntensityRobustd
from scripts.transforms.misalignment import Misalignd
from scripts.transforms.reading import CheckVolume, CheckVolumed, LoadImageStrictd
from scripts.transforms.registration import RigidRegisterd
from scripts.transforms.results import InterpolateBaselinesd, MeasureConsistencyd, SplitDisagreementd

__all__ = [
    "CheckVolume",
    "CheckVolumed",
    "DataConsistencyd",
    "DeclareHighResGrid",
    "DeclareHighResGridd",
    "DeclareRestoredGridd",
    "InterpolateBaselinesd",
    "KSpaceSpacing",
    "KSpaceSpacingd",
    "KSpaceTruncate",
    "KSpaceTruncated",
    "LoadImageStrictd",
    "MeasureConsistencyd",
    "Misalignd",
    "RandDegraded",
    "RigidRegisterd",
    "ScaleIntensityRobust",
    "ScaleIntensityRobustd",
    "SplitDisagreementd",
    "Subsample",
    "Subsampled",
    "WarnUnfamiliard",
    "consistency_mode",
]
