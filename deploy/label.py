"""Copy the bundle into a MONAI Label application, ready to infer and to train.

Usage: python -m deploy.label APP

APP is the application's folder, such as apps/monaibundle. MONAI Label reads ``configs/train.yaml`` alone, so that the
copy's file also holds ``methods/any_acquisition.yaml`` and ``launch/label.yaml``. It trains the network of
``inference.yaml``. For several GPUs it reads ``configs/multi_gpu_train.yaml`` as well.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from monai.bundle import ConfigParser

from deploy.release import BUNDLE, LEFT_OUT

__all__ = ["install"]

TRAINING = ("train.yaml", "methods/any_acquisition.yaml", "launch/label.yaml")
SIZES = ("num_features", "num_groups", "num_blocks")  # of the network


def install(app: Path, bundle: Path = BUNDLE) -> Path:
    """Copy the bundle to ``<app>/model/<name>`` and merge the config files of its training there.

    Args:
        app: the application's folder.
        bundle: the bundle's folder.

    Returns:
        the folder of the copy.

    Raises:
        FileExistsError: when the application already holds the bundle, because its weights may be trained ones.

    Example:
        >>> import tempfile
        >>> install(Path(tempfile.mkdtemp())).name
        'brain_mri_unpaired_super_resolution'
    """
    name = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["name"]
    copy = app / "model" / name
    if copy.exists():
        raise FileExistsError(f"{copy}: expected no such folder, got one. Keep its weights elsewhere and remove it.")
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns(*LEFT_OUT, ".*"))
    configs = copy / "configs"
    trunk, inference = (ConfigParser.load_config_file(configs / name) for name in ("train.yaml", "inference.yaml"))
    merged = ConfigParser.load_config_files([configs / name for name in TRAINING])
    merged["composition"] = trunk["composition"]  # the file is the copy's trunk, which requires no other
    del merged["requires"]
    merged["architecture"] |= {key: inference["architecture"][key] for key in SIZES}  # other weights don't fit
    style = {"sort_keys": False, "default_flow_style": None, "width": 150}
    ConfigParser.export_config_file(merged, configs / "train.yaml", "yaml", **style)
    shutil.copy(configs / "launch" / "multi_gpu_train.yaml", configs)
    return copy


if __name__ == "__main__":
    print(install(Path(sys.argv[1])))
