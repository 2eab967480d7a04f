"""Discovery: every scan below a folder, and every scan that is left out, with the reason."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from monai.config import PathLike

from scripts.data.bids import ASIDE, Dataset, is_dataset, natural, not_magnitude
from scripts.transforms.dicom import are_parts, dicom_series
from scripts.transforms.formats import HEADER_FILES, VOXEL_FILES, identify, partner
from scripts.transforms.naming import ENDINGS, SERIES_ENDINGS, is_own_result
from scripts.utils.errors import explain

__all__ = ["Found", "discover"]

ARCHIVES = (".dcm.gz", ".ima.gz", ".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
UNREAD = (".mnc", ".brik", ".brik.gz", ".par", ".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip")
UNWALKED = (".git", ".datalad")  # their files are those that the links in the dataset lead to


class Found(NamedTuple):
    """A scan below a folder, or what stands in place of one.

    Args:
        path: a file, or a folder with a DICOM series. Of several series in a folder, the first file of each.
        fault: why the scan cannot be processed.
        left_out: why it is not one of the scans to process.
    """

    path: Path
    fault: str = ""
    left_out: str = ""


def discover(root: PathLike, skip: Collection[Path] = ()) -> list[Found]:
    """Find every scan below a folder, by content or by ending.

    Links are followed, but no folder and no file is read twice. Of a BIDS dataset only raw magnitude anatomy is
    taken, see :mod:`scripts.data.bids`. Everything else that a person would count as a scan is listed with a reason:
    results of this bundle, hidden files, other formats, links that lead nowhere, folders that cannot be read.

    Args:
        root: the folder.
        skip: folders directly below it that are not searched.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a.nii.gz", "notes.txt", "old.mnc"):
        ...     (folder / name).touch()
        >>> [(found.path.name, found.left_out) for found in discover(folder)]
        [('a.nii.gz', ''), ('old.mnc', 'this format is not read. Convert it to NIfTI')]
    """
    search = _Search(Path(root), skip)
    return sorted(search.run(), key=lambda found: [natural(part) for part in found.path.parts])


class _Search:
    """One search below a root, which remembers the folders and files that it has read."""

    def __init__(self, root: Path, skip: Collection[Path]) -> None:
        self.root, self.skip = root, skip
        self.read: dict[str, Path] = {}  # real path: the path under which it was read first
        self.datasets: dict[Path, Dataset | None] = {}
        self.series: dict[str, list[tuple[Path, list[Path]]]] = {}  # UID: each place with its images

    def run(self) -> Iterator[Found]:
        folders, links = [self.root], []
        candidates: list[Path] = []
        above = {str(folder) for folder in Path(os.path.realpath(self.root)).parents}
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)  # links last: the real folder gives the name
            real = os.path.realpath(folder)
            if real in self.read or real in above:
                yield Found(folder, left_out=f"a link to {real}, which is searched under another name")
                continue
            self.read[real] = folder
            try:
                entries = sorted(folder.iterdir())
                inner = {entry: None for entry in entries if entry.is_dir()}
            except OSError as error:
                yield Found(folder, fault=f"{folder}: expected a folder that can be read, got {explain(error)}.")
                continue
            kept, left_out = self._folders(inner, folder)
            yield from left_out
            folders += [entry for entry in kept if not entry.is_symlink()]
            links += [entry for entry in kept if entry.is_symlink()]
            series = []
            for file in (entry for entry in entries if entry not in inner):
                kind = _kind(file)
                if kind == "dicom" and not file.name.startswith("."):
                    series.append(file)
                elif kind is not None:
                    candidates.append(file)
            yield from self._read_series(folder, series)
        yield from self._series()
        for file in sorted(candidates, key=lambda path: (path.is_symlink(), path)):
            yield self._judge(file)

    def _folders(self, entries: Iterable[Path], parent: Path) -> tuple[list[Path], list[Found]]:
        """The folders to search, and those left out that hold scans."""
        dataset = self._dataset(parent)
        kept, left_out = [], []
        for entry in entries:
            if entry in self.skip or entry.name in UNWALKED:
                continue
            if entry.name.startswith("."):
                reason = "a hidden folder"
            elif dataset and dataset.root == Path(os.path.abspath(parent)) and entry.name in ASIDE:
                reason = f"BIDS keeps no raw scans in {entry.name}/. To process it, give it as dataset_dir"
            elif dataset and dataset.ignores(entry):
                reason = ".bidsignore excludes it"
            else:
                kept.append(entry)
                continue
            if _holds_scans(entry):
                left_out.append(Found(entry, left_out=reason))
        return kept, left_out

    def _dataset(self, folder: Path) -> Dataset | None:
        """The BIDS dataset that a folder belongs to, none further up than the one around the root."""
        if folder not in self.datasets:
            if folder == self.root:
                self.datasets[folder] = Dataset.around(folder)
            else:
                self.datasets[folder] = Dataset(folder) if is_dataset(folder) else self._dataset(folder.parent)
        return self.datasets[folder]

    def _read_series(self, folder: Path, files: list[Path]) -> Iterator[Found]:
        """Remember the DICOM series of a folder. What is no scan is found at once."""
        if not files:
            return
        try:
            series = dicom_series(folder)
        except (OSError, ValueError, RuntimeError) as error:
            yield Found(folder, fault=explain(error))
            return
        reason = ""
        if self._dataset(folder):
            reason = "BIDS keeps DICOM in sourcedata/. To process it, give it as dataset_dir"
        elif not series and any(file.name.upper() != "DICOMDIR" for file in files):
            reason = "its DICOM files hold no series of images"
        if reason:
            yield Found(folder, left_out=reason)
        for uid, images in () if reason else series.items():
            place = folder if len(series) == 1 else min(images)
            self.series.setdefault(uid, []).append((place, images))

    def _series(self) -> Iterator[Found]:
        """The DICOM series. Parts of one series in several folders are faults, because each is half a volume."""
        for found in self.series.values():
            parts = len(found) > 1 and are_parts([images for _, images in found])
            for place, images in found:
                folder = images[0].parent
                others = sorted({str(other[0].parent) for _, other in found} - {str(folder)})
                fault = f"{folder}: expected all slices of its series, got others in {', '.join(others[:2])}. Put them "
                fault += "into one folder, or give one folder as dataset_dir."
                yield Found(place, fault if parts else "")

    def _judge(self, file: Path) -> Found:
        """Whether a file is a scan to process."""
        leave_out = partial(Found, file, "")
        if file.name.startswith("."):
            return leave_out("a hidden file")
        if not file.exists() and not file.name.casefold().endswith((*ENDINGS, *SERIES_ENDINGS)):
            return leave_out(f"a link to {os.readlink(file)}, where nothing is")
        if is_own_result(file):
            return leave_out("a result of this bundle")
        dataset = self._dataset(file.parent)
        if reason := dataset.left_out(file) if dataset else not_magnitude(file.name):
            return leave_out(reason)
        if file.name.casefold().endswith(UNREAD):
            return leave_out("this format is not read. Convert it to NIfTI")
        if file.name.casefold().endswith(ARCHIVES) and file.exists() and identify(file) is None:
            return leave_out("an archive. Unpack it if it holds scans")
        if not file.exists():
            return Found(
                file,
                f"{file}: expected a scan, got a link to {os.readlink(file)}, where nothing is. Fetch the file, for "
                "instance by `datalad get`, or remove the link.",
            )
        real = os.path.realpath(file)
        if real in self.read:
            return leave_out(f"the same file as {self.read[real]}")
        self.read[real] = file
        return Found(file)


def _kind(file: Path) -> str | None:
    """The format of a file by its content, or else by its ending. None for a file that nobody takes for a scan."""
    if not (file.is_file() or file.is_symlink()):
        return None
    name = file.name.casefold()
    known = name.endswith((*ENDINGS, *UNREAD, *ARCHIVES))
    lost = not file.exists() and (not file.suffix or name.endswith(SERIES_ENDINGS))  # it may be a folder or DICOM
    try:
        content = identify(file) if file.is_file() else None
    except OSError:
        content = None
    if content is not None or not (known or lost):
        return content
    if file.name.startswith(".") or (name.endswith(VOXEL_FILES) and partner(file, HEADER_FILES)):
        return None
    return "named"


def _holds_scans(folder: Path) -> bool:
    """Whether there is a scan below a folder that is not searched further."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return any(_kind(file) is not None for file in files)
