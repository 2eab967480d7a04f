"""The engine: who moves when, what fails before the first iteration, and which runs equal each other bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver, LrScheduleHandler
from monai.optimizers import WarmupCosineSchedule
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from scripts.data.samplers import IterationSampler
from scripts.engines.trainer import ObjectiveTrainer, whole_epochs
from scripts.handlers.averaging import ResumableEMAHandler
from scripts.handlers.contrastive import ContrastiveHandler
from scripts.handlers.gradients import GradientClippingHandler
from scripts.objectives.base import Objective
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

PAIRS = {
    "contrastive_feature": ("feature", "cycled_features", "features"),
    "contrastive_consistency": ("image", "reconstructed", "reals"),
    "contrastive_cycle": ("image", "cycled", "reals"),
}


class Toy(Objective):
    """One linear generator, which adds noise, against one linear discriminator or none."""

    generator_terms = ("fidelity", "adversarial")
    discriminator_terms = ("criticism",)

    def __init__(self, weights: Mapping[str, float] | None = None, adversarial: bool = True) -> None:
        critic = {"critic": nn.Linear(4, 1)}
        self.discriminator_names, self.fixed_names = (("critic",), ()) if adversarial else ((), ("critic",))
        super().__init__(
            weights or {"fidelity": 1.0, "adversarial": 0.1, "criticism": 1.0},
            generators={"network": nn.Linear(4, 4)},
            **{"discriminators" if adversarial else "fixed": critic},
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        return {"image": image, "pred": self.network(image + torch.randn_like(image))}

    def generator_loss(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "fidelity": (images["pred"] - images["image"]).square().mean(),
            "adversarial": (self.critic(images["pred"]) - 1).abs().mean(),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        real, fake = self.critic(images["image"]), self.critic(images["pred"])
        return {"criticism": (real - 1).square().mean() + fake.square().mean()}


class Samples(Dataset):
    """A budget of reproducible samples, of which each is a function of its index."""

    batch_size = 2

    def __init__(self, make: Mapping[str, tuple[int, ...]], num_iterations: int = 4) -> None:
        self.shapes, self.num_iterations = make, num_iterations

    def __len__(self) -> int:
        return self.batch_size * self.num_iterations

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        sample = {key: torch.rand(shape, generator=generator) for key, shape in self.shapes.items()}
        return {**sample, "image_subject": f"sub-{index:02d}"}


def loader(shapes: Mapping[str, tuple[int, ...]] | None = None, num_workers: int = 0) -> DataLoader:
    dataset = Samples(shapes or {"image": (4,)})
    return DataLoader(dataset, batch_size=2, sampler=IterationSampler(dataset), num_workers=num_workers)


def make_trainer(objective: Objective, data: DataLoader | None = None, **kwargs) -> ObjectiveTrainer:
    settings = {"g_optimizer": torch.optim.Adam(objective.generators.parameters(), lr=1e-2), **kwargs}
    if len(objective.discriminators):
        settings = {"d_optimizer": torch.optim.Adam(objective.discriminators.parameters(), lr=1e-2), **settings}
    settings = {"max_epochs": 2, "epoch_length": 2, **settings}
    return ObjectiveTrainer(device="cpu", objective=objective, train_data_loader=data or loader(), **settings)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# One iteration


def fired_events(trainer: ObjectiveTrainer) -> list[str]:
    """The names of all events of a run's iterations, in their order."""
    fired: list[str] = []
    iteration_events = (Events.ITERATION_STARTED, IterationEvents.MODEL_COMPLETED, Events.ITERATION_COMPLETED)
    for event in (*AdversarialEvents, *iteration_events):
        trainer.add_event_handler(event, lambda _engine, name=event.name: fired.append(name))
    trainer.run()
    return fired


def test_events_fire_in_the_documented_order():
    assert fired_events(make_trainer(Toy(), max_epochs=1, epoch_length=1)) == [
        "ITERATION_STARTED",
        "GENERATOR_FORWARD_COMPLETED",
        "DISCRIMINATOR_LOSS_COMPLETED",
        "DISCRIMINATOR_BACKWARD_COMPLETED",
        "DISCRIMINATOR_MODEL_COMPLETED",
        "GENERATOR_LOSS_COMPLETED",
        "GENERATOR_BACKWARD_COMPLETED",
        "GENERATOR_MODEL_COMPLETED",
        "MODEL_COMPLETED",
        "ITERATION_COMPLETED",
    ]


def test_without_discriminators_there_is_no_discriminator_step():
    trainer = make_trainer(Toy(adversarial=False), max_epochs=1, epoch_length=1)
    assert fired_events(trainer) == [
        "ITERATION_STARTED",
        "GENERATOR_FORWARD_COMPLETED",
        "GENERATOR_LOSS_COMPLETED",
        "GENERATOR_BACKWARD_COMPLETED",
        "GENERATOR_MODEL_COMPLETED",
        "MODEL_COMPLETED",
        "ITERATION_COMPLETED",
    ]
    assert trainer.state.output["discriminator_loss"].item() == 0


def test_each_step_moves_its_own_networks_and_leaves_the_others_bit_identical(tiny_udean):
    udean = tiny_udean()
    trainer = make_trainer(udean, loader({"image": (3, 32, 32), "reals": (6, 64, 64)}), max_epochs=1, epoch_length=1)
    parameters: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def remember(_engine, moment: str) -> None:
        both = udean.generators, udean.discriminators
        parameters[moment] = tuple([p.detach().clone() for p in networks.parameters()] for networks in both)

    trainer.add_event_handler(AdversarialEvents.GENERATOR_FORWARD_COMPLETED, remember, "start")
    trainer.add_event_handler(AdversarialEvents.DISCRIMINATOR_MODEL_COMPLETED, remember, "between")
    trainer.add_event_handler(AdversarialEvents.GENERATOR_MODEL_COMPLETED, remember, "end")
    trainer.run()

    def changed(before: str, after: str, networks: int) -> list[bool]:
        pairs = zip(parameters[before][networks], parameters[after][networks], strict=True)
        return [not torch.equal(a, b) for a, b in pairs]

    generators, discriminators = 0, 1
    assert not any(changed("start", "between", generators))
    assert all(changed("start", "between", discriminators))
    assert all(changed("between", "end", generators))
    assert not any(changed("between", "end", discriminators))


def test_the_generator_step_computes_no_gradient_of_the_discriminators():
    toy = Toy()
    trainer = make_trainer(toy, max_epochs=1, epoch_length=1)
    gradients = []
    for event in (AdversarialEvents.DISCRIMINATOR_BACKWARD_COMPLETED, AdversarialEvents.GENERATOR_BACKWARD_COMPLETED):
        trainer.add_event_handler(event, lambda _engine: gradients.append(toy.critic.weight.grad.clone()))
    trainer.run()
    assert torch.equal(*gradients)
    assert toy.critic.weight.requires_grad


def test_an_iteration_is_the_loop_that_one_would_write_by_hand():
    trainer = make_trainer(Toy(), seed=3)
    trainer.run()
    toy = Toy()
    d_optimizer = torch.optim.Adam(toy.critic.parameters(), lr=1e-2)
    g_optimizer = torch.optim.Adam(toy.network.parameters(), lr=1e-2)
    for iteration, batch in enumerate(loader(), start=1):
        torch.manual_seed(3 * 1_000_003 + iteration)
        image = batch["image"]
        pred = toy.network(image + torch.randn_like(image))
        d_optimizer.zero_grad()
        ((toy.critic(image) - 1).square().mean() + toy.critic(pred.detach()).square().mean()).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        ((pred - image).square().mean() + 0.1 * (toy.critic(pred) - 1).abs().mean()).backward()
        g_optimizer.step()
    assert equal(snapshot(trainer.objective), snapshot(toy))


def test_the_output_holds_images_terms_and_losses_without_their_graphs():
    trainer = make_trainer(Toy(), max_epochs=1, epoch_length=1)
    trainer.run()
    output = trainer.state.output
    assert set(output) == {"image", "pred", "terms", "loss", "discriminator_loss"}
    assert list(output["terms"]) == ["fidelity", "adversarial", "criticism"]
    tensors = [*output["terms"].values(), *(value for key, value in output.items() if key != "terms")]
    assert not any(tensor.requires_grad for tensor in tensors)
    terms = {name: term.item() for name, term in output["terms"].items()}
    assert output["loss"].item() == pytest.approx(terms["fidelity"] + 0.1 * terms["adversarial"])
    assert output["discriminator_loss"].item() == pytest.approx(terms["criticism"])


@pytest.mark.parametrize("amp_dtype", ["bfloat16", None])
def test_networks_compute_in_the_chosen_type_and_terms_in_float32(tiny_udean, amp_dtype):
    trainer = make_trainer(
        tiny_udean(),
        loader({"image": (3, 32, 32), "reals": (6, 64, 64)}),
        max_epochs=1,
        epoch_length=1,
        amp_dtype=amp_dtype,
    )
    trainer.run()
    output = trainer.state.output
    assert output["cycled"].dtype == (torch.bfloat16 if amp_dtype else torch.float32)
    assert {term.dtype for term in output["terms"].values()} == {torch.float32}
    assert all(torch.isfinite(term) for term in output["terms"].values())


# What fails


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        (
            {"g_optimizer": torch.optim.Adam([nn.Parameter(torch.zeros(1))])},
            r"g_optimizer must hold .* lacks 2, first 'network\.weight'",
        ),
        (
            {"d_optimizer": None},
            r"d_optimizer must hold every parameter of \['critic'\], but lacks 2, first 'critic\.weight'",
        ),
    ],
)
def test_optimisers_that_miss_a_network_are_refused_before_the_first_iteration(optimizers, message):
    trainer = make_trainer(Toy(), **optimizers)
    with pytest.raises(ValueError, match=message):
        trainer.run()
    assert trainer.state.iteration == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"fidelity": 1.0, "criticism": 1.0}, r"no weight for \['adversarial'\], no term for \[\]"),
        (
            {"fidelity": 1.0, "adversarial": 1.0, "criticism": 1.0, "cycle": 1.0},
            r"no weight for \[\], no term for \['cycle'\]",
        ),
    ],
)
def test_names_that_do_not_match_are_refused_before_the_first_iteration(weights, message):
    trainer = make_trainer(Toy(weights))
    with pytest.raises(ValueError, match=message):
        trainer.run()
    assert trainer.state.iteration == 0


def test_a_declared_term_without_a_handler_that_computes_it_is_left_out():
    trainer = make_trainer(Toy(), max_epochs=1, epoch_length=1)
    trainer.declare_terms({"contrast": 0.1})
    trainer.run()
    assert "contrast" not in trainer.state.output["terms"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_term_and_the_subjects(value):
    objective = Toy()
    trainer = make_trainer(objective)

    @trainer.on(AdversarialEvents.GENERATOR_LOSS_COMPLETED)
    def spoil(engine) -> None:
        if engine.state.iteration == 2:
            engine.state.terms["adversarial"] = engine.state.terms["adversarial"] * value

    with pytest.raises(ValueError, match=r"\['adversarial'\] is not at iteration 2 .*\['sub-02', 'sub-03'\].*look at"):
        trainer.run()
    assert all(torch.isfinite(p).all() for p in objective.parameters())


@pytest.mark.parametrize("optimizer", ["g_optimizer", "d_optimizer"])
def test_a_gradient_that_is_not_finite_stops_before_the_step(optimizer):
    """Such as that of a norm at zero: the loss is finite, the parameters would not be."""
    objective = Toy()
    network = objective.network if optimizer == "g_optimizer" else objective.critic
    trainer = make_trainer(objective, train_handlers=[GradientClippingHandler(1.0)])

    @trainer.on(AdversarialEvents.GENERATOR_FORWARD_COMPLETED)
    def spoil(engine) -> None:
        if engine.state.iteration == 2:
            network.weight.register_hook(lambda gradient: gradient * float("nan"))

    message = (
        rf"the gradient of {optimizer} must be finite, but is not at iteration 2 .*\['sub-02', 'sub-03'\].*look at"
    )
    with pytest.raises(ValueError, match=message):
        trainer.run()
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"amp_dtype must be .* got 'half'"):
        make_trainer(Toy(), amp_dtype="half")


# Runs that equal others


def contrastive_run(tiny_udean, tiny_heads, contrastive_weight: float | None = 0.1, **kwargs):
    """A contrastive UDEAN on four batches in two epochs, with schedules, clipping and an EMA; its parts by name."""
    udean = tiny_udean(skip=True)
    heads = tiny_heads() if contrastive_weight is not None else nn.ModuleDict()
    groups = [{"params": udean.generators.parameters()}, {"params": heads.parameters()}]
    g_optimizer = torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.99), amsgrad=True)
    d_optimizer = torch.optim.Adam(udean.discriminators.parameters(), lr=1e-3, betas=(0.9, 0.99), amsgrad=True)
    schedulers = [WarmupCosineSchedule(o, warmup_steps=1, t_total=4, end_lr=1e-8) for o in (g_optimizer, d_optimizer)]
    handlers = [LrScheduleHandler(s, epoch_level=False, print_lr=False) for s in schedulers]
    handlers.append(GradientClippingHandler(1.0))
    if contrastive_weight is not None:
        handlers.append(ContrastiveHandler(heads, PAIRS, dict.fromkeys(PAIRS, contrastive_weight)))
    data = kwargs.pop("data", None) or loader({"image": (3, 32, 32), "reals": (6, 64, 64)})
    trainer = make_trainer(
        udean, data, g_optimizer=g_optimizer, d_optimizer=d_optimizer, train_handlers=handlers, **kwargs
    )
    ema = ResumableEMAHandler(udean.network, momentum=0.002, momentum_warmup=0.5, warmup_iters=4)
    ema.attach(trainer)
    return {
        "objective": udean,
        "heads": heads,
        "ema": ema.ema_model,
        "g_optimizer": g_optimizer,
        "d_optimizer": d_optimizer,
        "g_scheduler": schedulers[0],
        "d_scheduler": schedulers[1],
        "trainer": trainer,
    }


def assert_same(a, b, path: str = "") -> None:
    """Nested states are equal, bit for bit."""
    if isinstance(a, Mapping):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{index}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def assert_same_runs(a: Mapping, b: Mapping) -> None:
    assert_same(*({name: part.state_dict() for name, part in run.items()} for run in (a, b)))


def test_a_resumed_run_equals_one_that_was_never_stopped(tiny_udean, tiny_heads, tmp_path):
    uninterrupted = contrastive_run(tiny_udean, tiny_heads)
    uninterrupted["trainer"].run()

    stopped = contrastive_run(tiny_udean, tiny_heads, max_epochs=1)
    CheckpointSaver(str(tmp_path), stopped, save_interval=1).attach(stopped["trainer"])
    stopped["trainer"].run()
    (checkpoint,) = tmp_path.glob("*.pt")

    torch.manual_seed(99)
    resumed = contrastive_run(tiny_udean, tiny_heads)
    for parameter in [*resumed["objective"].parameters(), *resumed["heads"].parameters()]:
        nn.init.ones_(parameter)
    CheckpointLoader(str(checkpoint), resumed).attach(resumed["trainer"])
    resumed["trainer"].run()
    assert resumed["trainer"].state.iteration == 4
    assert_same_runs(resumed, uninterrupted)


def test_the_number_of_workers_changes_nothing(tiny_udean, tiny_heads):
    shapes = {"image": (3, 32, 32), "reals": (6, 64, 64)}
    runs = [contrastive_run(tiny_udean, tiny_heads, data=loader(shapes, num_workers=n)) for n in (0, 2)]
    for run in runs:
        run["trainer"].run()
    assert_same_runs(*runs)


def test_what_else_draws_random_numbers_changes_nothing():
    runs = []
    for draws in (0, 5):
        trainer = make_trainer(Toy())
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _engine, n=draws: torch.randn(n))
        trainer.run()
        runs.append(snapshot(trainer.objective))
    assert equal(*runs)


def test_the_seed_changes_the_randomness_inside_an_iteration():
    runs = []
    for seed in (0, 1):
        trainer = make_trainer(Toy(), seed=seed)
        trainer.run()
        runs.append(snapshot(trainer.objective))
    assert not equal(*runs)


def test_a_contrastive_weight_of_zero_is_the_run_without_the_handler(tiny_udean, tiny_heads):
    runs = [contrastive_run(tiny_udean, tiny_heads, contrastive_weight=weight) for weight in (0.0, None, 0.1)]
    for run in runs:
        run["trainer"].run()
    networks = [{name: run[name].state_dict() for name in ("objective", "ema")} for run in runs]
    assert_same(networks[0], networks[1])
    assert not equal(networks[0]["ema"], networks[2]["ema"])


@pytest.mark.parametrize(
    ("budget", "epoch", "message"),
    [
        (50, 100, r"at least iterations_per_epoch, got 50 and 100\. Set --iterations_per_epoch 50"),
        (250, 100, r"a multiple of iterations_per_epoch, got 250 and 100\. Set --max_iterations 200 or 300"),
        (0, 100, r"max_iterations must be a whole number of at least 1, got 0\. Correct --max_iterations"),
        (100, 0, r"iterations_per_epoch must be a whole number of at least 1, got 0"),
        (1e3, 100, r"max_iterations must be a whole number of at least 1, got 1000\.0"),
        ("many", 100, r"got 'many'"),
    ],
)
def test_a_budget_that_is_no_number_of_whole_epochs_is_refused(budget, epoch, message):
    with pytest.raises(ValueError, match=message):
        whole_epochs(budget, epoch)
