"""DICOM series for the tests, written by ITK."""

from __future__ import annotations

import itk
import numpy as np


def axial_position(z):
    return 10.0, -20.0, 5.0 + 2.0 * z


def axial_orientation(_z):
    return 1, 0, 0, 0, 1, 0


def write_dicom_series(folder, values, number=1, position=axial_position, orientation=axial_orientation):
    """Write integers of shape (Z, Y, X) as one file per slice, voxels of 1.5 x 1.5 x 2 mm."""
    folder.mkdir(parents=True, exist_ok=True)
    for z, values_of_slice in enumerate(values):
        image = itk.image_from_array(values_of_slice[None].astype(np.int16))
        place, axes = position(z), np.reshape(orientation(z), (2, 3)).astype(float)
        image.SetSpacing([1.5, 1.5, 2.0])
        image.SetOrigin([float(x) for x in place])
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(np.stack([*axes, np.cross(*axes)], axis=1))))
        tags = image.GetMetaDataDictionary()
        tags["0008|0060"] = "MR"
        tags["0020|000d"] = "1.2.3"
        tags["0020|000e"] = f"1.2.3.{number}"
        tags["0008|0018"] = f"1.2.3.{number}.{z + 1}"
        tags["0020|0013"] = str(z + 1)
        tags["0020|0032"] = "\\".join(f"{x:g}" for x in place)
        tags["0020|0037"] = "\\".join(f"{x:g}" for x in axes.ravel())
        dicom = itk.GDCMImageIO.New()
        dicom.KeepOriginalUIDOn()
        itk.imwrite(image, str(folder / f"{number}_{z:03d}.dcm"), imageio=dicom)
