"""Shared fixtures: phantoms as NIfTI files, tiny networks and objectives, and the training config at a tiny size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from monai.bundle import ConfigParser, ConfigWorkflow
from scripts.networks import DegradationNet, ProjectionHead, SuperResolutionNet, VGGDiscriminator
from scripts.objectives import UDEAN
from scripts.physics.kspace import truncate
from torch import Tensor, nn

# the same cases in every run; `make test-reliability` takes the thorough profile
for profile, count in ("representative", 40), ("thorough", 1000):
    settings.register_profile(
        profile, max_examples=count, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")  # not into the working directory

REPOSITORY = Path(__file__).parents[1]
BUNDLE = REPOSITORY / "bundle"
CONFIGS = BUNDLE / "configs"
EXAMPLE = REPOSITORY / "example"  # one real scan, sub-03
SHARED = REPOSITORY.parent / "shared"  # real scans, where they are at hand
HIGH_RES_SHAPE = (24, 72, 68)  # axes R, A, S: room for a slab of 5 x 32 x 32 low-resolution voxels


def pytest_configure(config: pytest.Config) -> None:
    """Workers of xdist load this file after the option, which stays in force."""
    if config.getoption("hypothesis_profile", None) is None:
        settings.load_profile("representative")


TINY_NETWORK = {"num_features": 16, "reduction": 4, "num_groups": 1, "num_blocks": 1}

# the smallest training that train.yaml describes, on the phantoms' groups
TINY_TRAINING = {
    "device": "$torch.device('cpu')",
    "amp_dtype": None,
    "batch_size": 2,
    "last_axes": [2],
    "groups": None,
    "init_weights": None,
    "report": False,
    "architecture::num_features": 16,
    "architecture::num_groups": 1,
    "architecture::num_blocks": 1,
    "architecture::discriminator_features": 4,
    "max_iterations": 2,
    "iterations_per_epoch": 2,
    "train::warmup_iterations": 1,
    "validate::inferer::inferer::roi_size": [40, 40, -1],
}


def tiny_samples(overlays: Sequence[str]) -> dict[str, Any]:
    """The size of the samples that the phantoms have room for."""
    if "networks/slabs.yaml" in overlays:
        return {"patch_size": [32, 32], "architecture::slab_size": 5}
    return {"crop_size": [24] * 3 if "methods/any_acquisition.yaml" in overlays else [64, 64, 10]}


def requires(name: str) -> list[str | list[str]]:
    """What must stand before a config (its name below configs/, without ending); nothing for a trunk."""
    return ConfigParser.load_config_file(CONFIGS / f"{name}.yaml").get("requires", [])


def stack(name: str, trunk: str | None = None) -> list[str]:
    """The shortest right stack that ends with a config; ``trunk`` chooses among several."""
    found: list[str] = []
    trunk = next((one for one in requires(name) if one in ("train", "inference", "evaluate")), trunk)
    for needed in requires(name):
        one = needed if isinstance(needed, str) else trunk if trunk in needed else needed[0]
        found += [other for other in stack(one, trunk) if other not in found]
    return [*found, name]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Bit-identity and timings must not depend on the machine's number of cores."""
    torch.set_num_threads(1)


def head_phantom(seed: int, shape: Sequence[int] = HIGH_RES_SHAPE) -> Tensor:
    """A head of nested, tilted ellipsoids with sharp borders, in arbitrary units, surrounded by dark air."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    volume = np.zeros(shape)
    for radius in (0.9, 0.75, 0.6, 0.45, 0.3, 0.2):
        centre = rng.uniform(-0.1, 0.1, (3, 1, 1, 1))
        axes = radius * rng.uniform(0.9, 1.1, (3, 1, 1, 1))
        volume[(((grid - centre) / axes) ** 2).sum(0) < 1] = rng.uniform(200, 1000)
    return torch.from_numpy(volume + rng.uniform(0, 20, shape)).float()


def head_like(seed: int = 0, shape: tuple[int, int, int] = (192, 160, 176)) -> torch.Tensor:
    """A random field whose power falls like that of a head, 30 dB per decade of frequency along an axis."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = [torch.fft.fftfreq(n).reshape([-1 if a == b else 1 for b in range(3)]) for a, n in enumerate(shape)]
    return torch.fft.ifftn(torch.fft.fftn(noise) * (sum(u**2 for u in axes) + 1e-6) ** -0.75).real


def write_scan(path: Path, volume: Tensor, spacing: Sequence[float]) -> Path:
    """Write a volume whose axes point right, anterior and superior."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-11.0, -40.0, -25.0)
    nib.save(nib.Nifti1Image(volume.numpy().astype(np.float32), affine), path)
    return path


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory) -> Callable[[Sequence[int]], Path]:
    """Makes, once per scale factor along (A, S, R), a folder source/, target/ and validation/ of disjoint subjects."""
    folders: dict[tuple[int, ...], Path] = {}

    def make(scale_factor: Sequence[int] = (2, 2, 2)) -> Path:
        key = tuple(scale_factor)
        if key not in folders:
            root = folders[key] = tmp_path_factory.mktemp("phantoms")
            factors = (key[2], key[0], key[1])
            for seed, group in enumerate(["source", "source", "target", "target", "validation"]):
                volume, spacing = head_phantom(seed), (1.0, 1.0, 1.0)
                if group == "target":
                    matrix = [n // s for n, s in zip(HIGH_RES_SHAPE, factors, strict=True)]
                    volume, spacing = truncate(volume, matrix, (0, 1, 2)), factors
                write_scan(root / group / f"sub-{seed:02d}_T1w.nii.gz", volume, spacing)
        return folders[key]

    return make


@pytest.fixture(scope="session")
def phantom_bids_dataset(tmp_path_factory) -> Path:
    """A BIDS dataset of four subjects with a high-resolution scan each."""
    root = tmp_path_factory.mktemp("bids")
    for seed in range(4):
        write_scan(
            root / f"sub-{seed:02d}" / "anat" / f"sub-{seed:02d}_T1w.nii.gz", head_phantom(seed), (1.0, 1.0, 1.0)
        )
    return root


@pytest.fixture
def train_stack(phantom_dataset, phantom_bids_dataset, tmp_path) -> Callable[..., ConfigWorkflow]:
    """Makes the workflow of train.yaml and overlays (names below configs/) on phantoms, at the size of a test.

    Where the pipeline degrades the target group, all phantoms are of high resolution.
    """

    def make(*overlays: str, scale_factor: Sequence[int] = (2, 2, 2), **overrides) -> ConfigWorkflow:
        settings = {
            **TINY_TRAINING,
            **tiny_samples(overlays),
            "bundle_root": str(BUNDLE),
            "output_dir": str(tmp_path),
            "scale_factor": list(scale_factor),
            **overrides,
        }
        workflow = ConfigWorkflow(
            config_file=[str(BUNDLE / "configs" / name) for name in ("train.yaml", *overlays)],
            logging_file=False,
            workflow_type="train",
            run_id="training",
            **settings,
        )
        high_res = workflow.parser["degrade_target"] or "cohort" in workflow.parser
        dataset = phantom_bids_dataset if high_res else phantom_dataset(scale_factor)
        workflow.parser["dataset_dir"] = str(dataset)
        if "cohort" in workflow.parser:
            workflow.parser["cohort::dataset_dir"] = str(dataset)  # instead of subjects that take a minute to generate
        return workflow

    return make


@pytest.fixture(scope="session")
def tiny_udean() -> Callable[..., UDEAN]:
    """Makes a UDEAN of tiny networks for slabs of three slices, 32 x 32 low-resolution voxels."""

    def make(scale_factor: Sequence[int] = (2, 2, 2), skip: bool = False, seed: int = 0, **weights: float) -> UDEAN:
        geometry = {"scale_factor": scale_factor, "slab_size": 3, "skip": skip, **TINY_NETWORK}
        terms = (*UDEAN.generator_terms, *UDEAN.discriminator_terms)
        return UDEAN(
            weights={**dict.fromkeys(terms, 1.0), **weights},
            generators={
                "network": SuperResolutionNet(**geometry, seed=seed),
                "degradation": DegradationNet(**geometry, seed=seed + 10),
            },
            discriminators={
                "high_res_discriminator": VGGDiscriminator(3 * scale_factor[2], scale_factor[0], 4, seed=seed + 20),
                "low_res_discriminator": VGGDiscriminator(3, 1, 4, seed=seed + 30),
                "feature_discriminator": VGGDiscriminator(16, 1, 4, seed=seed + 40),
            },
            ssim_form="abs",
            image_adaptation=True,
            cycle_to_degradation=True,
        )

    return make


@pytest.fixture(scope="session")
def tiny_heads() -> Callable[..., nn.ModuleDict]:
    """Makes the projection heads that go with ``tiny_udean``."""

    def make(through_plane: int = 2, seed: int = 0) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "feature": ProjectionHead(16, embedding_dim=8, num_features=4, seed=seed + 50),
                "image": ProjectionHead(3 * through_plane, embedding_dim=8, num_features=4, seed=seed + 60),
            }
        )

    return make


@pytest.fixture(scope="session")
def unpaired_batch() -> Callable[..., dict]:
    """Makes a batch of noise slabs that goes with ``tiny_udean``, reproducibly."""

    def make(through_plane: int = 2, batch_size: int = 2, seed: int = 0) -> dict:
        generator = torch.Generator().manual_seed(seed)
        return {
            "image": torch.rand((batch_size, 3, 32, 32), generator=generator),
            "reals": torch.rand((batch_size, 3 * through_plane, 64, 64), generator=generator),
            "image_subject": [f"target-{i}" for i in range(batch_size)],
            "reals_subject": [f"source-{i}" for i in range(batch_size)],
        }

    return make
