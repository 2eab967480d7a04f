"""The bundle for the programs of this folder: its configs, its shipped network, a degraded scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from experiments import ROOT

__all__ = ["BUNDLE", "CONFIGS", "FIXED_FACTOR", "degraded", "read_configs", "trained_network"]

BUNDLE = ROOT / "bundle"
CONFIGS = BUNDLE / "configs"
FIXED_FACTOR = "networks/fixed_factor.yaml"  # in inference and evaluation, for what takes an LR scan on its own grid


def read_configs(*files: str | Path, **overrides: Any) -> ConfigParser:
    """The parser of a stack of config files.

    Args:
        files: absolute paths, or paths below ``bundle/configs/``; the trunk first.
        overrides: entries to set.
    """
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in files])
    parser.update({"bundle_root": str(BUNDLE), **overrides})
    return parser


def trained_network(*overlays: str, **overrides: Any) -> nn.Module:
    """The network of inference with its weights; see :func:`read_configs`."""
    parser = read_configs("inference.yaml", *overlays, **overrides)
    network = parser.get_parsed_content("network")
    network.load_state_dict(torch.load(parser.get_parsed_content("ckpt_path"), weights_only=True))
    return network.eval()


def degraded(scan: Path, texts: Sequence[str] | None = None, **acquisition: Any) -> dict[str, Any]:
    """A scan that evaluate.yaml degrades, on the CPU.

    Args:
        scan: a high-resolution scan.
        texts: its acquisition, a text per axis; None for 2x2x2.
        acquisition: how to degrade it, such as ``hamming=True``.

    Returns:
        the low-resolution scan ``acquired``, and ``image``, its interpolation to the output grid, ``(1, H, W, D)`` on
        the network's intensity scale. ``label`` is the scan on the same scale, with its mask of deep tissue as a second
        channel.
    """
    options = {f"acquisition::{name}": value for name, value in acquisition.items()}
    options |= {} if texts is None else {"acquisition": list(texts)}
    parser = read_configs("evaluate.yaml", device="cpu", **options)
    item = parser.get_parsed_content("preprocessing")({"image": str(scan), "label": str(scan)})
    label = item["label"].as_tensor() / float(item["image"].meta["intensity_scale"])
    label = torch.cat([label, item["deep"].as_tensor().float()])
    return {"acquired": item["acquired"], "image": item["image"], "label": label}
