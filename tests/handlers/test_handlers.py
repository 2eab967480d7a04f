"""Handlers, called as Ignite calls them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from scripts.handlers.averaging import ResumableEMAHandler
from scripts.handlers.checkpoints import BestModelHandler
from scripts.handlers.contrastive import ContrastiveHandler
from scripts.handlers.gradients import GradientClippingHandler, TermGradientHandler
from scripts.handlers.monitors import DegradationMonitorHandler, FeatureNormHandler, MetricGainHandler
from scripts.losses import info_nce
from scripts.networks import DegradationNet
from scripts.physics.kspace import truncate, zero_fill
from torch import Tensor, nn

SPATIAL = (-3, -2, -1)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# ContrastiveHandler


class FakeTrainer(Engine):
    """An engine that does nothing, with what a handler may ask of an ObjectiveTrainer."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(lambda _engine, _batch: None)
        self.g_optimizer = torch.optim.SGD(parameters, lr=1.0)
        self.declared: dict[str, float] = {}
        self.register_events("GENERATOR_LOSS_COMPLETED")

    def declare_terms(self, weights: dict[str, float]) -> None:
        self.declared.update(weights)


def published(**images: Tensor) -> SimpleNamespace:
    return SimpleNamespace(state=SimpleNamespace(output=images, terms={}, iteration=1))


def contrastive(head: nn.Module | None = None, **kwargs) -> ContrastiveHandler:
    settings = {"pairs": {"contrast": ["image", "made", "reals"]}, "weights": {"contrast": 0.1}, **kwargs}
    return ContrastiveHandler(nn.ModuleDict({"image": head or nn.Flatten()}), **settings)


@pytest.mark.parametrize(("temperature", "expected"), [(0.2, 0.090143), (0.5, 1.062879)])
def test_the_contrastive_term_has_the_papers_value(temperature, expected):
    orthogonal = torch.eye(8).reshape(8, 2, 2, 2)
    engine = published(made=orthogonal, reals=orthogonal)
    contrastive(temperature=temperature)(engine)
    assert engine.state.terms["contrast"].item() == pytest.approx(expected, abs=1e-6)


def test_both_views_pass_the_head_in_one_batch():
    sizes = []

    class Head(nn.Flatten):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x)

    made, reals = uniform(3, 2, 4, 4), uniform(3, 2, 4, 4, seed=1)
    engine = published(made=made, reals=reals)
    contrastive(Head())(engine)
    assert sizes == [6]
    torch.testing.assert_close(engine.state.terms["contrast"], info_nce(made.flatten(1), reals.flatten(1)))


def test_views_that_differ_in_brightness_alone_differ_after_normalisation():
    """A head that normalised each view by itself would not see it."""
    head = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten())
    made = uniform(4, 2, 4, 4)
    losses = []
    for offset in (0.0, 5.0):
        engine = published(made=made, reals=made + offset)
        contrastive(head)(engine)
        losses.append(engine.state.terms["contrast"].item())
    assert losses[1] > losses[0] + 1


def test_the_contrastive_weights_are_declared_on_attachment():
    head = nn.Linear(2, 2)
    trainer = FakeTrainer(head.parameters())
    contrastive(head).attach(trainer)
    assert trainer.declared == {"contrast": 0.1}


@pytest.mark.parametrize(
    "kwargs", [{"weights": {}}, {"weights": {"contrast": 0.1, "other": 0.1}}, {"pairs": {"other": ["image", "a", "b"]}}]
)
def test_contrastive_terms_without_a_pair_or_a_weight_are_refused(kwargs):
    with pytest.raises(ValueError, match="each contrastive term needs a pair and a weight, got"):
        contrastive(**kwargs)


def test_an_unknown_head_is_refused_at_the_start():
    handler = contrastive(pairs={"contrast": ["features", "made", "reals"]})
    with pytest.raises(ValueError, match=r"must name projection heads of \['image'\], got \['features'\]"):
        handler.check(FakeTrainer([nn.Parameter(torch.zeros(1))]))


def test_heads_that_no_optimiser_holds_are_refused_at_the_start():
    head = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="g_optimizer must hold the projection heads' parameters"):
        contrastive(head).check(FakeTrainer([nn.Parameter(torch.zeros(1))]))
    contrastive(head).check(FakeTrainer(head.parameters()))


def test_images_that_no_objective_publishes_are_named():
    engine = published(made=uniform(2, 1, 2, 2))
    with pytest.raises(ValueError, match=r"contrast must compare two of the images \['made'\], got 'reals'"):
        contrastive()(engine)


# GradientClippingHandler


def group(*gradients: list[float]) -> dict:
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return {"params": parameters}


def test_each_group_is_clipped_by_its_own_norm():
    groups = [group([3.0], [4.0]), group([0.0, 0.3])]
    engine = SimpleNamespace(g_optimizer=torch.optim.SGD(groups, lr=1.0), state=SimpleNamespace(gradient_norms=[]))
    GradientClippingHandler(max_norm=1.0)(engine, "g_optimizer")
    large, small = ([p.grad for p in g["params"]] for g in engine.g_optimizer.param_groups)
    torch.testing.assert_close(torch.cat(large), torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)
    assert torch.equal(small[0], torch.tensor([0.0, 0.3]))
    torch.testing.assert_close(torch.stack(engine.state.gradient_norms), torch.tensor([5.0, 0.3]))


# ResumableEMAHandler


def momenta(handler: type[EMAHandler], start: int) -> list[float]:
    """The momentum of iterations ``start`` + 1 to 6 of a run of two iterations per epoch."""
    recorded: list[float] = []
    engine = Engine(lambda _engine, _batch: None)
    ema = handler(nn.Linear(1, 1), momentum=0.1, momentum_warmup=0.5, warmup_iters=5)
    ema.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: recorded.append(round(e.state.ema_momentum, 6)))
    engine.load_state_dict({"iteration": start, "epoch_length": 2, "max_epochs": 3})
    engine.run(range(2))
    return recorded


def test_the_warm_up_of_the_average_goes_on_where_the_engine_stands():
    assert momenta(ResumableEMAHandler, 0) == momenta(EMAHandler, 0) == [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    assert momenta(ResumableEMAHandler, 2) == [0.3, 0.2, 0.1, 0.1]
    assert momenta(ResumableEMAHandler, 4) == [0.1, 0.1]


def test_an_average_without_a_warm_up_has_one_momentum():
    engine = Engine(lambda _engine, _batch: None)
    network = nn.Linear(1, 1)
    ema = ResumableEMAHandler(network, momentum=0.25)
    ema.attach(engine)
    with torch.no_grad():
        network.weight.fill_(1.0)
        ema.ema_model.weight.fill_(0.0)
    engine.run(range(2))
    assert ema.ema_model.weight.item() == pytest.approx(1 - 0.75**2)


# MetricGainHandler and BestModelHandler


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"psnr": 31.5, "zero_filling": 30.0}, {"psnr": 31.5, "zero_filling": 30.0, "gain": 1.5}),
        ({"psnr": 3.0}, {"psnr": 3.0}),
    ],
)
def test_the_gain_is_a_difference_of_metrics_where_both_are_there(metrics, expected):
    engine = SimpleNamespace(state=SimpleNamespace(metrics=dict(metrics)))
    MetricGainHandler("gain", metric="psnr", baseline="zero_filling")(engine)
    assert engine.state.metrics == expected


def evaluator(*handlers) -> SupervisedEvaluator:
    data = [{"image": torch.zeros(1, 1), "label": torch.zeros(1, 1)}]
    return SupervisedEvaluator("cpu", data, network=nn.Identity(), inferer=SimpleInferer(), val_handlers=list(handlers))


def test_the_best_model_is_the_one_of_the_best_epoch(tmp_path):
    model, path = nn.Linear(1, 1, bias=False), tmp_path / "models" / "best.pt"
    handler = BestModelHandler(model, path)
    kept = []
    for epoch, best_epoch in [(0, 0), (1, 1), (2, 1), (3, 3)]:
        nn.init.constant_(model.weight, float(epoch))
        handler(SimpleNamespace(state=SimpleNamespace(epoch=epoch, best_metric_epoch=best_epoch)))
        kept.append(torch.load(path, weights_only=True)["weight"].item())
    assert kept == [0.0, 1.0, 1.0, 3.0]
    assert [file.name for file in path.parent.iterdir()] == ["best.pt"]


def test_the_best_metric_so_far_belongs_to_what_a_run_remembers(tmp_path):
    first, resumed = (evaluator(BestModelHandler(nn.Linear(1, 1), tmp_path / "best.pt")) for _ in range(2))
    first.state.best_metric, first.state.best_metric_epoch = 31.0, 4
    resumed.load_state_dict({**first.state_dict(), "iteration": 0, "epoch_length": 1, "max_epochs": 5})
    assert (resumed.state.best_metric, resumed.state.best_metric_epoch) == (31.0, 4)


# DegradationMonitorHandler


class KnownDegradation(nn.Module):
    """k-space truncation, a Gaussian blur of known standard deviation along each axis, a gain and a shift."""

    factors = (2, 2, 2)

    def __init__(self, sigma: Sequence[float] = (0.0, 0.0, 0.0), gain: float = 1.0, shift: int = 0) -> None:
        super().__init__()
        self.sigma, self.shift = sigma, shift
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        x = self.gain * truncate(x, [size // 2 for size in x.shape[2:]], SPATIAL).roll(self.shift, dims=2)
        for axis, sigma in zip(SPATIAL, self.sigma, strict=True):
            transfer = gaussian_transfer(torch.fft.rfftfreq(x.shape[axis]), sigma).movedim(0, -1)
            spectrum = torch.fft.rfft(x.movedim(axis, -1)) * transfer
            x = torch.fft.irfft(spectrum, n=x.shape[axis]).movedim(-1, axis)
        return x


def gaussian_transfer(frequency: Tensor | float, sigma: float) -> Tensor:
    """Modulation transfer of a Gaussian; frequency in cycles per voxel, standard deviation in voxels."""
    return torch.exp(-0.5 * (2 * math.pi * sigma * torch.as_tensor(frequency)) ** 2)


def rough_volume(seed: int = 0) -> Tensor:
    """A volume (1, H, W, D) with detail at every frequency, bright on the whole."""
    return 0.5 + 0.3 * uniform(1, 64, 80, 48, seed=seed)


def watch(degradation: nn.Module, label: Tensor | None = None, **item: Tensor) -> dict[str, float]:
    """The monitor's metrics after an epoch of one volume, whose image is the plain truncation."""
    label = rough_volume() if label is None else label
    image = truncate(label, [size // 2 for size in label.shape[1:]], SPATIAL)
    monitor = DegradationMonitorHandler(degradation, source_volumes=[label[0]], target_volumes=[image[0]])
    engine = SimpleNamespace(state=SimpleNamespace(batch=[{"image": image, "label": label, **item}], metrics={}))
    monitor.reset()
    monitor(engine)
    monitor.summarise(engine)
    return engine.state.metrics


NAMES = ["psnr", "gain", "shift", "mtf_0", "mtf_1", "mtf_2", "spectral_distance"]


def test_the_true_degradation_is_recognised():
    metrics = watch(KnownDegradation())
    assert list(metrics) == [f"degradation_{name}" for name in NAMES]
    assert metrics["degradation_psnr"] > 100
    assert metrics["degradation_gain"] == pytest.approx(1, abs=1e-6)
    assert metrics["degradation_shift"] == pytest.approx(0, abs=1e-3)
    assert [metrics[f"degradation_mtf_{axis}"] for axis in range(3)] == pytest.approx([1, 1, 1], abs=0.02)
    assert metrics["degradation_spectral_distance"] == pytest.approx(0, abs=1e-3)


def test_gain_and_shift_are_recovered():
    metrics = watch(KnownDegradation(gain=1.1, shift=1))
    assert metrics["degradation_gain"] == pytest.approx(1.1, abs=1e-4)
    assert metrics["degradation_shift"] == pytest.approx(1, abs=1e-3)


def test_the_modulation_transfer_of_a_known_blur_is_recovered_along_each_axis():
    sigma = (0.3, 0.5, 0.8)
    metrics = watch(KnownDegradation(sigma))
    expected = [gaussian_transfer(0.25, s).item() for s in sigma]
    assert [metrics[f"degradation_mtf_{axis}"] for axis in range(3)] == pytest.approx(expected, abs=0.03)
    assert metrics["degradation_spectral_distance"] > 1


@pytest.mark.parametrize("slab_size", [3, 5])
def test_the_untrained_degradation_with_skip_neither_scales_nor_shifts(slab_size):
    smooth = zero_fill(uniform(1, 15, 19, 13), [60, 72, 48], SPATIAL) + 1
    degradation = DegradationNet(
        slab_size=slab_size, num_features=16, reduction=4, num_groups=1, num_blocks=1, skip=True
    )
    metrics = watch(degradation, smooth)
    assert metrics["degradation_gain"] == pytest.approx(1, abs=2e-3)
    assert metrics["degradation_shift"] < 0.03
    assert metrics["degradation_psnr"] > 35


def test_the_whole_transfer_is_kept_beside_that_of_the_true_degradation(tmp_path):
    sigma, label = (0.3, 0.5, 0.8), rough_volume()
    image = truncate(label, [32, 40, 24], SPATIAL)
    path = tmp_path / "mtf.csv"
    monitor = DegradationMonitorHandler(KnownDegradation(sigma), [label[0]], [image[0]], transfer_path=path)
    engine = SimpleNamespace(state=SimpleNamespace(batch=[{"image": image, "label": label}], metrics={}))
    monitor.reset()
    monitor(engine)
    monitor.summarise(engine)
    header, *lines = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
    assert header == ["axis", "frequency", "learned", "true"]
    assert len(lines) == 3 * 24
    for axis, frequency, learned, true in lines:
        expected = gaussian_transfer(float(frequency), sigma[int(axis)]).item()
        if 0.1 < float(frequency) < 0.4:  # smoothing is one-sided at the ends
            assert float(learned) == pytest.approx(expected, abs=0.05)
        assert float(true) == pytest.approx(1, abs=0.02)


# FeatureNormHandler


def test_the_feature_norm_is_the_root_mean_square_over_an_evaluation():
    encoder = nn.Identity()
    handler = FeatureNormHandler(encoder)
    engine = Engine(lambda _, batch: encoder(batch))
    handler.attach(engine)
    for expected in (5.0, 10.0):  # anew at each evaluation
        engine.run([torch.full((2, 3), 0.6 * expected * 2**0.5), torch.full((2, 3), 0.8 * expected * 2**0.5)])
        assert engine.state.metrics["feature_norm"] == pytest.approx(expected)
    assert not encoder._forward_hooks


def test_the_degradation_stays_in_its_mode_and_unmoved():
    degradation = KnownDegradation().train()
    watch(degradation)
    assert degradation.training
    assert degradation.gain.grad is None


def test_volumes_without_a_reference_still_have_a_spectral_distance():
    image = rough_volume()
    monitor = DegradationMonitorHandler(
        KnownDegradation(), [rough_volume()[0]], [truncate(image[0], [32, 40, 24], SPATIAL)]
    )
    engine = SimpleNamespace(state=SimpleNamespace(batch=[{"image": image}], metrics={}))
    monitor.reset()
    monitor(engine)
    monitor.summarise(engine)
    assert list(engine.state.metrics) == ["degradation_spectral_distance"]


def test_source_volumes_are_cut_to_multiples_of_the_scale_factor():
    odd = rough_volume()[:, :63, :79, :47]
    monitor = DegradationMonitorHandler(KnownDegradation(), [odd[0]], [uniform(31, 39, 23)])
    engine = SimpleNamespace(state=SimpleNamespace(batch=[], metrics={}))
    monitor.summarise(engine)
    assert math.isfinite(engine.state.metrics["degradation_spectral_distance"])


def test_metrics_are_means_over_the_volumes_since_the_last_reset():
    labels = [rough_volume(seed) for seed in (0, 1)]
    images = [truncate(gain * x, [32, 40, 24], SPATIAL) for gain, x in zip((1.0, 0.5), labels, strict=True)]
    monitor = DegradationMonitorHandler(KnownDegradation(), [labels[0][0]], [images[0][0]])
    items = [{"image": i, "label": x} for i, x in zip(images, labels, strict=True)]
    engine = SimpleNamespace(state=SimpleNamespace(batch=items, metrics={}))
    monitor.reset()
    monitor(engine)
    monitor.summarise(engine)
    assert engine.state.metrics["degradation_gain"] == pytest.approx(1.5, abs=1e-4)
    monitor.reset()
    engine.state.batch = items[:1]
    monitor(engine)
    monitor.summarise(engine)
    assert engine.state.metrics["degradation_gain"] == pytest.approx(1.0, abs=1e-4)


# TermGradientHandler


class Writer:
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))


def test_the_gradient_of_each_term_is_logged_with_its_weight_every_so_many_iterations():
    network, other, writer = nn.Linear(2, 1, bias=False), nn.Linear(2, 1), Writer()
    handler = TermGradientHandler(network, writer, interval=10)
    x = torch.tensor([3.0, 4.0])
    terms = {"pulls": network(x).sum(), "passes_by": other(x).sum(), "constant": torch.ones(())}
    weights = {"pulls": 0.1, "passes_by": 1.0, "constant": 1.0}
    state = SimpleNamespace(terms=terms, iteration=0)
    for state.iteration in range(1, 13):
        handler(SimpleNamespace(state=state, objective=SimpleNamespace(weights=weights)))
    assert [step for _, _, step in writer.scalars] == [1, 1, 1, 11, 11, 11]
    assert {tag: round(value, 6) for tag, value, _ in writer.scalars} == {
        "gradient_pulls": 0.5,
        "gradient_passes_by": 0.0,
        "gradient_constant": 0.0,
    }
    assert network.weight.grad is None
