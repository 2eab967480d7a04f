"""Every discriminator of low-resolution images that a config or a matrix uses can tell two degradations apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import BUNDLE
from monai.bundle import ConfigParser
from monai.transforms import Compose, DivisiblePad, EnsureChannelFirst, LoadImage, Orientation
from scripts.data.crops import Slabs
from scripts.losses import discriminator_loss, log_discriminator_loss
from scripts.networks import FrequencySeparatedDiscriminator, SpectrumDiscriminator, VGGDiscriminator
from scripts.transforms import KSpaceTruncate, ScaleIntensityRobust
from torch import Tensor

from experiments.benchmark.matrix import ROOT, read_matrix

SCANS = ROOT.parent / "shared" / "ds002748"
LEFT_OUT = ("sub-37", "sub-38", "sub-39", "sub-40")
SCALE_FACTOR = (2, 2, 1)
UNKNOWN = {  # outside the families of our own estimator
    "elliptical": True,
    "exponential": (0.9, 0, 0),
    "fermi": (None, (0.9, 0.05), None),
    "snr": 20,
    "rician": True,
}
KINDS = {
    VGGDiscriminator: discriminator_loss,
    SpectrumDiscriminator: discriminator_loss,
    FrequencySeparatedDiscriminator: log_discriminator_loss,
}
ITERATIONS = 500
BLIND = {discriminator_loss: 0.25, log_discriminator_loss: float(np.log(2))}  # loss of one that cannot tell
FEWEST_ITERATIONS = 50  # of a row that trains anything
TELLS = 0.8  # of that loss: 0.2 of 0.25


def settings_of(stack: Sequence[str], options: dict[str, Any]) -> str | None:
    """What a training tells low-resolution images apart with, and how that is trained; None where nothing does."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / name) for name in stack])
    parser.update({**options, "bundle_root": str(BUNDLE), "scale_factor": list(SCALE_FACTOR), "seed": 0})
    if "@discriminators::low_res" not in json.dumps(parser.get("objective_def"), default=str):
        return None
    definition = parser.get("discriminators::low_res")
    names = [name for name in definition if name not in ("_requires_", "_target_", "seed")]
    found = {name: parser.get_parsed_content(f"discriminators::low_res::{name}") for name in names}
    used = ("architecture::low_res_size", "architecture::low_res_channels", "batch_size", "discriminator_learning_rate")
    kept = {name.rpartition("::")[2]: parser.get_parsed_content(name) for name in used}
    return json.dumps({"kind": definition["_target_"].rpartition(".")[2], "options": found, **kept})


def configurations() -> list[str]:
    """Each once: of train.yaml, of every method, and of every row of a matrix that has more than a few iterations."""
    trunk = "bundle/configs/train.yaml"
    methods = sorted(path.stem for path in (BUNDLE / "configs/methods").glob("*.yaml"))
    stacks = [([trunk], {}), ([trunk, "bundle/configs/recipes/fine_tuning.yaml"], {})]
    stacks += [([trunk, f"bundle/configs/methods/{name}.yaml"], {}) for name in methods]
    for path in sorted((ROOT / "experiments/benchmark/matrices").glob("*.yaml")):
        rows = read_matrix(path).rows
        trained = [row for row in rows if row.training.get("max_iterations", FEWEST_ITERATIONS) >= FEWEST_ITERATIONS]
        stacks += [(stage.configs, dict(row.training)) for row in trained for stage in row.stages()]
    found = {settings_of(stack, options) for stack, options in stacks if "network_def" not in _keys(stack[-1])}
    return sorted(found - {None})


def _keys(name: str) -> set[str]:
    return set(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def groups() -> dict[str, list[Tensor]]:
    """Truncated and truly degraded volumes (H, W, D) of subjects for training, and of others."""
    if not SCANS.is_dir():
        pytest.skip(f"needs the 60 scans of ds002748 in {SCANS}")
    read = Compose([LoadImage(image_only=True), EnsureChannelFirst(), Orientation("ARS", labels=None)])
    read = Compose([read, DivisiblePad((4, 4, 1))])

    def volumes(subjects: Sequence[str], acquisition: dict[str, Any]) -> list[Tensor]:
        degrade = Compose([KSpaceTruncate(SCALE_FACTOR, **acquisition), ScaleIntensityRobust()])
        paths = [SCANS / subject / "anat" / f"{subject}_T1w.nii.gz" for subject in subjects]
        return [degrade(read(path))[0].as_tensor() for path in paths]

    return {
        "real": volumes([f"sub-{number}" for number in range(21, 29)], UNKNOWN),
        "made": volumes([f"sub-{number:02d}" for number in range(1, 9)], {}),
        "real left out": volumes(LEFT_OUT, UNKNOWN),
        "made left out": volumes(LEFT_OUT, {}),
    }


def batch(volumes: Sequence[Tensor], size: Sequence[int], count: int, seed: Sequence[int]) -> Tensor:
    slabs = []
    for index in range(count):
        rng = np.random.default_rng((*seed, index))
        volume, cut = volumes[rng.integers(len(volumes))], Slabs((1, 1, 1), size[:2], size[2])
        slabs.append(cut.cut(volume, True, cut.draw(volume, True, rng)))
    return torch.stack(slabs)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", configurations())
def test_it_tells_truncation_from_a_degradation_that_nobody_modelled(configuration, groups):
    settings = json.loads(configuration)
    kinds = {kind.__name__: kind for kind in KINDS}
    loss = KINDS[kinds[settings["kind"]]]
    discriminator = kinds[settings["kind"]](**settings["options"])
    size = (settings["low_res_size"], settings["low_res_size"], settings["low_res_channels"])
    count = settings["batch_size"]
    optimizer = torch.optim.Adam(
        discriminator.parameters(), settings["discriminator_learning_rate"], betas=(0.9, 0.99), amsgrad=True
    )

    def compare(kind: str, *seed: int) -> Tensor:
        real, made = (
            batch(groups[name + kind], size, count, (number, *seed)) for number, name in enumerate(("real", "made"))
        )
        return loss(discriminator(real), discriminator(made))

    for iteration in range(ITERATIONS):
        optimizer.zero_grad()
        compare("", iteration).backward()
        torch.nn.utils.clip_grad_norm_(discriminator.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        left_out = float(torch.stack([compare(" left out", ITERATIONS + draw) for draw in range(12)]).mean())
    print(f"{configuration}: {left_out:.3f}, blind {BLIND[loss]:.3f}")
    assert left_out < TELLS * BLIND[loss]


def test_a_spectrum_has_no_phase():
    patch = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    discriminator = SpectrumDiscriminator(3, num_features=4)
    torch.testing.assert_close(discriminator(patch.rot90(2, (2, 3))), discriminator(patch), rtol=0, atol=1e-5)
    assert not torch.allclose(discriminator(2 * patch), discriminator(patch), atol=1e-3)
