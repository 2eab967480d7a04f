"""Transforms between what was acquired and what the networks see: resolution, grid, intensity, reading.

Each array transform takes a channel-first volume; its ``...d`` twin works on a dictionary. The metadata of a
``MetaTensor`` follow: the field of view and the position of voxel 0 never change, the spacing does.
"""

from scripts.transforms.consistency import DataConsistencyd, consistency_mode
from scripts.transforms.degradation import RandDegraded
from scripts.transforms.familiarity import WarnUnfamiliard
from scripts.transforms.intensity import ScaleIntensityRobust, ScaleIntensityRobustd
from scripts.transforms.io import LoadImageStrictd
from scripts.transforms.misalignment import Misalignd
from scripts.transforms.post import InterpolateBaselinesd, MeasureConsistencyd, SplitDisagreementd
from scripts.transforms.registration import RigidRegisterd
from scripts.transforms.spatial import KSpaceSpacing, KSpaceSpacingd, KSpaceTruncate, KSpaceTruncated
from scripts.transforms.subsampling import Subsample, Subsampled
from scripts.transforms.utility import (
    CheckVolume,
    CheckVolumed,
    DeclareHighResGrid,
    DeclareHighResGridd,
    DeclareRestoredGridd,
)

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
