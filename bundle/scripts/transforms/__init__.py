"""Transforms from a scan's file to the network and back, by what they act on: reading, grid, intensity, acquisition.

An array transform takes a channel-first volume, and its ``...d`` twin takes a dictionary. The metadata of a
``MetaTensor`` follow. The field of view and the position of voxel 0 never change; the spacing may.
"""

from scripts.transforms.acquisition import KSpaceTruncate, KSpaceTruncated
from scripts.transforms.consistency import DataConsistencyd, consistency_mode
from scripts.transforms.degradation import RandDegraded, Subsample, Subsampled
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
from scripts.transforms.simulation import simulated_acquisition

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
    "simulated_acquisition",
]
