"""A synthetic study of eligible and other series, which show a phantom in world coordinates."""

from __future__ import annotations

import copy
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from dicom_series import write_dicom_series
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    generate_uid,
)

STUDY_UID = generate_uid(entropy_srcs=["study"])
FRAME_OF_REFERENCE_UID = generate_uid(entropy_srcs=["frame of reference"])
PATIENT = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Wang^XiaoDong=王^小東",
    "PatientID": "P-0042",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "PatientAge": "056Y",
    "StudyInstanceUID": STUDY_UID,
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyID": "S7",
    "AccessionNumber": "A-123",
    "StudyDescription": "Brain MRI",
    "ReferringPhysicianName": "Müller^Zoë",
    "AcquisitionDate": "20260102",
    "AcquisitionTime": "102030",
    "FrameOfReferenceUID": FRAME_OF_REFERENCE_UID,
    "PositionReferenceIndicator": "",
    "PatientPosition": "HFS",
    "BodyPartExamined": "BRAIN",
    "Manufacturer": "Phantom",
}
SEQUENCE = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SK", "SP"],
    "ScanOptions": "",
    "MRAcquisitionType": "3D",
    "RepetitionTime": "2300",
    "EchoTime": "2.98",
    "EchoTrainLength": "1",
    "InversionTime": "900",
    "FlipAngle": "9",
    "MagneticFieldStrength": "3",
}
# voxel (column, row, slice) to DICOM's world (LPS), in mm: oblique, with pixels that are not square, odd sizes
SHAPE = (41, 37, 33)
SPACING = (1.8, 2.0, 2.4)
OBLIQUE = nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag(SPACING)


def brightness(world: np.ndarray) -> np.ndarray:
    """A smooth field over DICOM's world in mm, so that the value of a voxel depends on its position."""
    x, y, z = np.moveaxis(world, -1, 0) / 24
    return 900 * np.exp(-(x**2 + y**2 + z**2)) * (1 + 0.3 * x - 0.2 * y + 0.4 * z)


def affine_of(matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine that puts the centre of the volume at the origin of the world."""
    return nib.affines.from_matvec(matrix, -matrix @ ((np.array(shape) - 1) / 2))


def world_of(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))


def write_series(
    folder: Path,
    number: int,
    description: str,
    shape: tuple[int, ...] = SHAPE,
    matrix: np.ndarray = OBLIQUE,
    sop_class: UID = MRImageStorage,
    **attributes: object,
) -> Path:
    """Write the phantom as single-frame images. ITK encodes, and pydicom adds the attributes of a scanner.

    Args:
        folder: where to write.
        number: of the series; its UID follows from it.
        description: of the series.
        shape: columns, rows and slices.
        matrix: of the voxels in DICOM's world, mm.
        sop_class: of the images.
        attributes: what differs from an eligible T1w acquisition.
    """
    affine = affine_of(matrix, shape)
    values = np.round(brightness(world_of(shape, affine))).astype(np.int16)
    write_dicom_series(folder, np.ascontiguousarray(values.transpose(2, 1, 0)), number)
    spacing = np.linalg.norm(matrix, axis=0)
    for index, path in enumerate(sorted(folder.glob(f"{number}_*.dcm"))):
        image = pydicom.dcmread(path)
        described = {
            **PATIENT,
            **SEQUENCE,
            "SOPClassUID": sop_class,
            "SOPInstanceUID": generate_uid(entropy_srcs=[str(number), str(index)]),
            "SeriesInstanceUID": generate_uid(entropy_srcs=[str(number)]),
            "SeriesNumber": number,
            "SeriesDescription": description,
            "Modality": "MR",
            "PixelSpacing": [f"{spacing[1]:g}", f"{spacing[0]:g}"],  # between rows, between columns
            "SliceThickness": f"{spacing[2]:g}",
            "ImageOrientationPatient": [f"{value:.10g}" for value in (matrix[:, :2] / spacing[:2]).T.ravel()],
            "ImagePositionPatient": [f"{value:.10g}" for value in affine[:3, 3] + index * affine[:3, 2]],
            "InstanceNumber": index + 1,
            **attributes,
        }
        for keyword, value in described.items():
            setattr(image, keyword, value)
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(path)
    return folder


def write_study(folder: Path) -> Path:
    """A study in one folder: one eligible series, other series, and a file that is not DICOM."""
    small = (24, 24, 20)
    write_series(folder, 1, "localizer", (32, 32, 3), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder, 2, "t1 mprage sag")
    write_series(folder, 3, "ct head", small, sop_class=CTImageStorage, Modality="CT")
    thick = np.diag([0.9, 0.9, 6.0])
    write_series(folder, 4, "t2 flair tra 2d", (64, 64, 12), thick, MRAcquisitionType="2D")
    write_series(folder, 5, "two echoes", small)
    write_series(folder / "second echo", 5, "two echoes", small, EchoTime="5.2")
    for path in (folder / "second echo").glob("*.dcm"):
        echo = pydicom.dcmread(path)
        echo.SOPInstanceUID = echo.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        echo.save_as(path)
    write_series(folder, 6, "t1 small", small)
    write_series(folder, 7, "mpr", small, ImageType=["DERIVED", "SECONDARY", "MPR"])
    write_series(folder, 8, "thick slab 3d", (64, 64, 10), thick)
    write_series(folder, 9, "knee", small, BodyPartExamined="KNEE")
    write_series(folder, 10, "slice missing", small)
    next(folder.glob("10_009.dcm")).unlink()
    (folder / "readme.txt").write_text("not DICOM")
    return folder


def write_enhanced(folder: Path, source: Path) -> Path:
    """A single-frame series as one enhanced multi-frame image: frames in reverse order, half units, compressed."""
    images = [pydicom.dcmread(path) for path in sorted(source.glob("*.dcm"))][::-1]
    whole = copy.deepcopy(images[0])
    for keyword in ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient", "EchoTime",
                    "RepetitionTime", "ScanningSequence", "SequenceVariant", "ScanOptions", "FlipAngle",
                    "EchoTrainLength", "InversionTime"):  # fmt: skip
        del whole[keyword]
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["enhanced"])
    whole.SeriesInstanceUID = generate_uid(entropy_srcs=["enhanced series"])
    whole.SeriesNumber, whole.SeriesDescription = 12, "t1 enhanced"
    whole.EchoPulseSequence = "GRADIENT"
    whole.NumberOfFrames = len(images)
    whole.SharedFunctionalGroupsSequence = [_shared(images[0])]
    whole.PerFrameFunctionalGroupsSequence = [_per_frame(image, index) for index, image in enumerate(images)]
    slope = 0.5
    frames = np.stack([image.pixel_array for image in images]) / slope
    whole.PixelData = frames.astype("<i2").tobytes()
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole.compress(JPEG2000Lossless)
    folder.mkdir(parents=True)
    whole.save_as(folder / "enhanced.dcm")
    return folder


def _item(**values: object) -> list[Dataset]:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def _shared(image: Dataset) -> Dataset:
    return _item(
        PixelMeasuresSequence=_item(PixelSpacing=image.PixelSpacing, SliceThickness=image.SliceThickness),
        PlaneOrientationSequence=_item(ImageOrientationPatient=image.ImageOrientationPatient),
        MREchoSequence=_item(EffectiveEchoTime=2.98),
        MRTimingAndRelatedParametersSequence=_item(RepetitionTime="2300", FlipAngle="9", EchoTrainLength="1"),
        PixelValueTransformationSequence=_item(RescaleSlope="0.5", RescaleIntercept="0", RescaleType="US"),
        FrameVOILUTSequence=_item(WindowCenter="450", WindowWidth="900"),
    )[0]


def _per_frame(image: Dataset, index: int) -> Dataset:
    return _item(
        PlanePositionSequence=_item(ImagePositionPatient=image.ImagePositionPatient),
        FrameContentSequence=_item(StackID="1", InStackPositionNumber=index + 1),
        MRImageFrameTypeSequence=_item(FrameType=["ORIGINAL", "PRIMARY", "M", "NONE"]),
    )[0]
