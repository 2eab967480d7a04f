"""DICOM images for the tests, written by pydicom: classic series and enhanced multi-frame files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

MM = (1.5, 1.25, 2.0)  # between columns, rows and slices
ORIGIN = (-18.0, -21.0, -24.0)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.block(
    [[np.diag(MM), np.reshape(ORIGIN, (3, 1))], [np.zeros(3), 1.0]]
)  # RAS


def dataset(**attributes) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def place_of(z: int) -> list[float]:
    """Where slice ``z`` begins, in mm of the LPS frame."""
    return [*ORIGIN[:2], ORIGIN[2] + z * MM[2]]


def image(pixels: np.ndarray, series: int, instance: int, kind: str = MRImageStorage) -> FileDataset:
    """An image without a position, of ``pixels`` (..., rows, columns)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{series}.{instance}"
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", f"1.2.3.{series}"
    made.SeriesNumber, made.SeriesDescription, made.InstanceNumber = series, "t1 mprage", instance
    made.Modality, made.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M"]
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    return made


def write_series(folder: Path, values: np.ndarray, edit=None, name="{:03d}.dcm", series: int = 1) -> Path:
    """Write 16-bit integers (X, Y, Z) as axial slices; ``edit(image, z)`` changes an image before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    for z in range(values.shape[2]):
        made = image(values[:, :, z].T, series, z + 1)
        made.PixelSpacing, made.SliceThickness = [MM[1], MM[0]], MM[2]
        made.ImagePositionPatient = place_of(z)
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        if edit is not None:
            edit(made, z)
        made.save_as(folder / name.format(z), enforce_file_format=True)
    return folder


def write_enhanced(path: Path, values: np.ndarray, order, edit=None) -> Path:
    """Write slices ``order`` of 16-bit integers (X, Y, Z) as frames; ``edit(groups, number)`` changes a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = image(values[:, :, list(order)].transpose(2, 1, 0), 1, 1, EnhancedMRImageStorage)
    made.NumberOfFrames = len(order)
    measures = dataset(PixelSpacing=[MM[1], MM[0]], SliceThickness=MM[2])
    turned = dataset(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    made.SharedFunctionalGroupsSequence = [dataset(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[turned])]
    frames = []
    for number, z in enumerate(order):
        place = dataset(ImagePositionPatient=place_of(z))
        within = dataset(StackID="1", InStackPositionNumber=int(z) + 1)
        groups = dataset(PlanePositionSequence=[place], FrameContentSequence=[within])
        if edit is not None:
            edit(groups, number)
        frames.append(groups)
    made.PerFrameFunctionalGroupsSequence = frames
    made.save_as(path, enforce_file_format=True)
    return path
