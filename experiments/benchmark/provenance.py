"""Provenance: the machine, the code and the scans behind a number."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from scripts.utils.atomic import write_text_atomically

from experiments.benchmark.matrix import ROOT
from experiments.speed.common import processor

__all__ = ["code_version", "data_digest", "machine", "save_config"]

CODE = ("bundle/configs", "bundle/scripts")


def machine() -> dict[str, Any]:
    """The machine in words."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


def code_version() -> dict[str, str]:
    """The bundle's version, the commit where git knows it, and a digest of the configs and the code."""
    metadata = json.loads((ROOT / "bundle/configs/metadata.json").read_text(encoding="utf-8"))
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    described = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*")):
        if path.suffix in {".py", ".yaml"}:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "version": metadata["version"],
        "commit": described.stdout.strip() or "unknown",
        "digest": digest.hexdigest()[:16],
    }


def data_digest(datalist: Mapping[str, Any], cache: Path) -> str:
    """Digest of the scans of a datalist and of their groups. It is the same wherever the scans lie.

    Args:
        datalist: lists of items by section.
        cache: JSON file with the digests of files, so that an unchanged scan is read once.
    """
    known = json.loads(cache.read_text(encoding="utf-8")) if cache.is_file() else {}
    entries = set()
    for section in (name for name, items in datalist.items() if isinstance(items, list)):
        for item in datalist[section]:
            for key in sorted({"image", "reals", "label"} & item.keys()):
                entries.add(f"{section} {key} {item['subject']} {_file_digest(Path(item[key]), known)}")
    write_text_atomically(cache, json.dumps(known, indent=2))
    return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()[:16]


def _file_digest(path: Path, known: dict[str, list]) -> str:
    state = [path.stat().st_size, path.stat().st_mtime_ns]
    if known.get(str(path), [])[:2] != state:
        known[str(path)] = [*state, hashlib.sha256(path.read_bytes()).hexdigest()]
    return known[str(path)][2]


def save_config(path: Path, configs: Sequence[str], options: Mapping[str, Any]) -> None:
    """Write the config that files and options make together."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / name) for name in configs])
    parser.update(dict(options))
    path.parent.mkdir(parents=True, exist_ok=True)
    ConfigParser.export_config_file(parser.config, str(path), fmt="yaml")
