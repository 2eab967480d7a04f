"""Names for the scans of an evaluation."""

from __future__ import annotations

import pytest
from scripts.data.names import distinct_names


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["r/a/b/T1w.nii", "r/a_b/T1w.nii"], ["a/b/T1w", "a_b/T1w"]),
        (["r/x.nii", "r/x.nii.gz"], ["x.nii", "x.nii.gz"]),
        (["r/T1w.nii", "r/2/t1w.nii"], ["T1w", "2/t1w"]),
        (["r/x.nii", "r/y.nii"], ["x", "y"]),
    ],
)
def test_the_names_of_scans_differ(files, expected):
    assert list(distinct_names([(file, file) for file in files]).values()) == expected


def test_pairs_that_share_a_file_have_names_of_their_own():
    pairs = [("hr/a.nii", "lr/x.nii"), ("hr/a.nii", "lr/y.nii"), ("hr/b.nii", "lr/x.nii"), ("hr/a.nii", "z/y.nii")]
    assert list(distinct_names(pairs).values()) == ["a_x", "a_1", "b", "a_2"]
    assert distinct_names([]) == {}
