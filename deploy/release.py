"""Pack the bundle as one archive that runs wherever it is unpacked, as MONAI's model zoo distributes bundles.

Usage: python -m deploy.release [OUTPUT_DIR]

The bundle specification asks for an archive with one folder, both named after the bundle. Every YAML config has a copy
in JSON, which ``monai.bundle.load`` reads. Equal contents give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from monai.bundle import ConfigParser

BUNDLE = Path(__file__).parents[1] / "bundle"
LEFT_OUT = {"outputs", "__pycache__"}  # written by runs
UNDATED = (1980, 1, 1, 0, 0, 0)


def contents(bundle: Path) -> Iterator[tuple[str, bytes]]:
    """The files of the archive by their path in the bundle, with every config also as JSON."""
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        name = path.relative_to(bundle)
        if any(part in LEFT_OUT or part.startswith(".") for part in name.parts):
            continue
        yield name.as_posix(), path.read_bytes()
        if path.suffix == ".yaml":
            config = ConfigParser.load_config_file(path)
            yield name.with_suffix(".json").as_posix(), (json.dumps(config, indent=2) + "\n").encode()


def pack(output_dir: Path, bundle: Path = BUNDLE) -> Path:
    """Write ``<name>.zip`` and return its path.

    Example:
        >>> import tempfile
        >>> pack(Path(tempfile.mkdtemp())).name
        'brain_mri_unpaired_super_resolution.zip'
    """
    name = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["name"]
    output_dir.mkdir(parents=True, exist_ok=True)
    archive = output_dir / f"{name}.zip"
    with ZipFile(archive, "w", ZIP_DEFLATED) as file:
        for path, content in contents(bundle):
            entry = ZipInfo(f"{name}/{path}", UNDATED)
            entry.external_attr = 0o644 << 16  # readable by all
            file.writestr(entry, content, ZIP_DEFLATED)
    return archive


if __name__ == "__main__":
    packed = pack(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
    print(f"{packed}  {packed.stat().st_size:,} bytes  sha256 {hashlib.sha256(packed.read_bytes()).hexdigest()}")
