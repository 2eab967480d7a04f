"""The DICOM series of the MONAI Deploy application holds what docs/dicom_conformance.md states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import REPOSITORY
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from deploy.bundle_record import BundleRecord
from deploy.findings import Findings
from deploy.series import write_series

PAGE = (REPOSITORY / "docs" / "dicom_conformance.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (\([0-9A-F]{4},[0-9A-F]{4}\)) \|", PAGE, re.M))
RECORD = BundleRecord("brain_mri_unpaired_super_resolution", "0.1.0", 64 * "a", "Research only; not for diagnosis")
WARNINGS = (
    "Its intensities have another distribution than those of any training scan.",
    "Data consistency is off: ±1.",
)
FINDINGS = Findings(WARNINGS, 41.23, "auto", "off: the scan was smoothed.")
SHAPE = (6, 5, 4)  # slices, rows, columns of the source
AFFINE = np.diag([-0.5, -0.75, 1.0, 1.0])  # of the result, to NIfTI's world


def source_images(sop_class: UID = MRImageStorage, **attributes: object) -> list[Dataset]:
    images = []
    for index in range(SHAPE[0]):
        image = Dataset()
        described = {
            "SpecificCharacterSet": "ISO_IR 100",
            "SOPClassUID": sop_class,
            "SOPInstanceUID": generate_uid(entropy_srcs=[str(index)]),
            "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
            "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame"]),
            "PatientName": "Müller^Zoë",
            "PatientID": "P-1",
            "StudyDate": "20260102",
            "SeriesNumber": 3,
            "SeriesDescription": "t1 mprage",
            "InstanceNumber": index + 1,
            "Manufacturer": "Phantom",
            "EchoTime": "2.98",
            "ImagePositionPatient": [0, 0, 2 * index],
            **attributes,
        }
        for keyword, value in described.items():
            setattr(image, keyword, value)
        images.append(image)
    return images


def written(folder: Path, sources: list[Dataset], findings: Findings = FINDINGS) -> list[Dataset]:
    volume = np.random.default_rng(0).uniform(0, 900, [2 * n for n in SHAPE])
    write_series(folder, volume, AFFINE, sources, RECORD, findings)
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Dataset]:
    return written(tmp_path_factory.mktemp("out") / "series", source_images())


def stated(section: str) -> set[str]:
    """The attributes of a table of the page."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", text, re.M))


def test_the_page_gives_every_attribute_its_tag():
    assert len(ROWS) > 80
    for keyword, tag in ROWS.items():
        number = tag_for_keyword(keyword)
        assert tag == f"({number >> 16:04X},{number & 0xFFFF:04X})", keyword


def test_every_image_has_the_attributes_that_the_page_states_and_no_other(images):
    always, sometimes = stated("Attributes of every image"), stated("Attributes that depend on the source")
    for image in images:
        keywords = {element.keyword for element in image}
        assert always <= keywords
        assert keywords <= always | sometimes
        assert not [element for element in image.iterall() if element.tag.is_private]


def test_the_page_names_the_classes_codes_and_uids(images):
    image = images[0]
    assert image.SOPClassUID == MRImageStorage
    assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    for text in (MRImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, "1.2.826.0.1.3680043.8.498"):
        assert f"`{text}`" in PAGE
    found = {(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
             for item in (sub for sub in walk(image) if "CodeValue" in sub)}  # fmt: skip
    assert found == set(re.findall(r"\((\d+), (DCM), \"([^\"]+)\"\)", PAGE))
    for code in (codes.DCM.SpatialResampling, codes.DCM.ProcessingEquipment, codes.DCM.ArtificialIntelligence):
        assert (code.value, code.scheme_designator, code.meaning) in found


def walk(item: Dataset):
    yield item
    for element in item:
        if element.VR == "SQ":
            for inner in element.value:
                yield from walk(inner)


def test_the_page_names_the_classes_that_the_selection_reads():
    text = (REPOSITORY / "deploy" / "selection.py").read_text(encoding="utf-8")
    names = re.search(r"^IMAGE_CLASSES = \((.*)\)", text, re.M)[1].split(", ")
    read = PAGE.partition("## SOP classes\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| ([\w ]+ Storage) \|.*\| read", read, re.M)) == {
        getattr(pydicom.uid, name).name for name in names
    }


def test_the_findings_are_in_the_comments_and_the_derivation(images):
    image = images[-1]
    assert "Data consistency auto: off: the scan was smoothed. Agreement with the scan: 41.2 dB." in image.ImageComments
    assert f"Warning: {WARNINGS[0]}" in image.ImageComments
    assert "Warning: Data consistency is off: ?1." in image.ImageComments  # in every character set
    assert "Agreement with the scan: 41.2 dB." in image.DerivationDescription
    assert RECORD.weights_sha256 in image.DerivationDescription


def test_texts_keep_the_limits_of_their_representation(tmp_path):
    """Warnings of any length must not make an image that no archive accepts."""
    findings = Findings(("word " * 5000,), 41.0, "auto", "off: " + "reason " * 500)
    for image in written(tmp_path / "series", source_images(SeriesDescription=64 * "d"), findings)[:1]:
        for keyword, longest in {
            "ImageComments": 10240,
            "DerivationDescription": 1024,
            "SeriesDescription": 64,
        }.items():
            assert len(image[keyword].value) <= longest, keyword
            assert dictionary_VR(keyword) in ("LT", "ST", "LO")
        assert len(image.ContributingEquipmentSequence[0].AlgorithmParameters) <= 10240


def test_the_series_is_new_and_the_subject_study_and_frame_of_reference_stay(images):
    source = source_images()[0]
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "EchoTime"):
        assert {image[keyword].value for image in images} == {source[keyword].value}, keyword
    assert len({image.SOPInstanceUID for image in images}) == len(images) == 2 * SHAPE[0]
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert images[0].SeriesNumber == 301


def test_the_algorithm_is_identified_and_the_scanner_named(images):
    algorithm, scanner = images[0].ContributingEquipmentSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (RECORD.name, RECORD.version)
    assert list(algorithm.SoftwareVersions) == [RECORD.version, RECORD.weights_sha256]
    assert "Weights SHA-256" in algorithm.AlgorithmParameters
    assert scanner.Manufacturer == "Phantom"


def test_values_and_places_are_the_volume_s(tmp_path):
    sources = source_images(RescaleSlope="0.5", RescaleIntercept="0")
    images = written(tmp_path / "series", sources)
    volume = np.random.default_rng(0).uniform(0, 900, [2 * n for n in SHAPE])
    for index, image in enumerate(images):
        slope = float(image.RescaleSlope)
        assert np.abs(image.pixel_array * slope - volume[index]).max() <= slope / 2
        np.testing.assert_allclose(image.ImagePositionPatient, [0, 0, index], atol=1e-6)
        np.testing.assert_allclose(image.PixelSpacing, [0.75, 0.5])


def test_a_frame_of_an_enhanced_source_is_referenced_by_its_number(tmp_path):
    image = written(tmp_path / "series", source_images(EnhancedMRImageStorage))[5]  # 5 mm, between 4 and 6 mm
    assert [item.ReferencedFrameNumber for item in image.SourceImageSequence] == [3, 4]


def test_an_earlier_series_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "99999.dcm").touch()
    assert len(written(tmp_path / "series", source_images())) == 2 * SHAPE[0]
    assert [path.name for path in tmp_path.iterdir()] == ["series"]
