"""Losses: literal values, fixed points, invariances, and the values that known mistakes would give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scripts.losses import (
    absolute_error,
    adaptation_loss,
    adversarial_loss,
    discriminator_loss,
    info_nce,
    patch_nce,
    ssim_loss,
    structural_similarity,
)
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Two slabs of three slices in [0, 1], dark for ten voxels around."""
    slab = torch.rand((2, 3, 28, 32), generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.pad(slab, [10] * 4)


# InfoNCE


def info_nce_by_the_formula(u: Tensor, v: Tensor, tau: float) -> float:
    """Eq. 1-4 of arXiv 2310.15767 term by term, the sums over k."""

    def theta(a: Tensor, b: Tensor) -> float:
        return math.exp(float(torch.dot(a, b) / (a.norm() * b.norm())) / tau)

    def ell(x: Tensor, y: Tensor, i: int) -> float:
        others = [k for k in range(len(x)) if k != i]
        negatives = sum(theta(x[i], y[k]) for k in others) + sum(theta(x[i], x[k]) for k in others)
        return math.log(theta(x[i], y[i]) / (theta(x[i], y[i]) + negatives))

    return -sum(ell(u, v, i) + ell(v, u, i) for i in range(len(u))) / (2 * len(u))


@pytest.mark.parametrize("tau", [0.07, 0.2, 0.5])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_contrastive_loss_is_the_papers_formula(size, tau):
    u, v = normal(size, 5, seed=1), normal(size, 5, seed=2)
    assert info_nce(u, v, temperature=tau).item() == pytest.approx(info_nce_by_the_formula(u, v, tau), abs=1e-12)


@pytest.mark.parametrize(("size", "expected"), [(8, 2.70805), (4, 1.94591), (2, 1.09861)])
@pytest.mark.parametrize("tau", [0.07, 0.2, 0.5])
def test_embeddings_that_are_all_equal_cost_log_2n_minus_1(size, expected, tau):
    same = normal(1, 16).expand(size, 16)
    assert info_nce(same, same, temperature=tau).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("tau", "expected"), [(0.2, 0.090143), (0.5, 1.062879), (0.07, 8.742e-6)])
def test_identical_positives_among_orthogonal_negatives_cost_the_known_value(tau, expected):
    orthogonal = torch.eye(8, 16, dtype=torch.float64)
    loss = info_nce(orthogonal, orthogonal, temperature=tau).item()
    assert loss == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert loss == pytest.approx(math.log1p(14 * math.exp(-1 / tau)), abs=1e-12)


def test_the_simplex_is_better_than_orthogonality():
    simplex = torch.eye(8, dtype=torch.float64) - 1 / 8
    assert info_nce(simplex, simplex, temperature=0.2).item() == pytest.approx(0.045145, abs=1e-6)


def test_a_single_sample_has_nothing_to_be_told_apart_from():
    u, v = (normal(1, 16, seed=seed).requires_grad_() for seed in (0, 1))
    loss = info_nce(u, v)
    loss.backward()
    assert loss.item() == 0
    assert not u.grad.any()
    assert not v.grad.any()


def test_the_views_may_be_exchanged():
    u, v = normal(8, 16, seed=1), normal(8, 16, seed=2)
    torch.testing.assert_close(info_nce(u, v), info_nce(v, u), rtol=0, atol=1e-12)


def test_samples_may_be_permuted_together_but_not_in_one_view_alone():
    u = normal(8, 16, seed=1)
    v = u + 0.3 * normal(8, 16, seed=2)
    order = [3, 0, 7, 1, 6, 2, 5, 4]
    torch.testing.assert_close(info_nce(u[order], v[order]), info_nce(u, v), rtol=0, atol=1e-12)
    assert info_nce(u, v[order]) > info_nce(u, v) + 1


def test_the_length_of_an_embedding_does_not_count():
    u, v = normal(8, 16, seed=1), normal(8, 16, seed=2)
    lengths = torch.linspace(0.1, 10, 8, dtype=torch.float64)[:, None]
    torch.testing.assert_close(info_nce(lengths * u, v / lengths), info_nce(u, v), rtol=0, atol=1e-12)


def test_the_loss_falls_as_the_positives_align():
    u, noise = normal(8, 16, seed=1), normal(8, 16, seed=2)
    losses = [info_nce(u, u + share * noise).item() for share in (4.0, 1.0, 0.25, 0.0)]
    assert losses == sorted(losses, reverse=True)


def test_a_sample_is_not_its_own_negative():
    """With theta(u_i, u_i) in the denominator no value below log 2 can be reached."""
    orthogonal = torch.eye(8, 16, dtype=torch.float64)
    assert 0 < info_nce(orthogonal, orthogonal) < math.log(2)


def test_negatives_come_from_both_views():
    """The inter-view negatives alone would give log N for equal embeddings."""
    same = torch.ones(8, 4, dtype=torch.float64)
    assert info_nce(same, same).item() > math.log(8) + 0.5


def test_the_sum_runs_over_candidates_not_over_anchors():
    """Eq. 2 as printed sums over i: a softmax over the columns, which differs as soon as v is not u."""
    u, v = normal(4, 6, seed=1), normal(4, 6, seed=2)
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in (u, v))
    inter, intra = (a @ b.T / 0.2).exp(), (a @ a.T / 0.2).exp().fill_diagonal_(0)
    over_anchors = -(inter.diag() / (inter.sum(0) + intra.sum(0))).log().mean()
    over_candidates = -(inter.diag() / (inter.sum(1) + intra.sum(1))).log().mean()
    assert abs(over_anchors - over_candidates) > 1e-2
    inter_back, intra_back = (b @ a.T / 0.2).exp(), (b @ b.T / 0.2).exp().fill_diagonal_(0)
    back = -(inter_back.diag() / (inter_back.sum(1) + intra_back.sum(1))).log().mean()
    torch.testing.assert_close(info_nce(u, v), (over_candidates + back) / 2)


@pytest.mark.parametrize("temperature", [0, -0.2])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        info_nce(normal(2, 3), normal(2, 3), temperature=temperature)


def test_views_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"same shape \(..., N, F\), got \(2, 3\) and \(3, 3\)"):
        info_nce(normal(2, 3), normal(3, 3))


# PatchNCE


def test_the_patch_wise_loss_is_cut_s_formula():
    query, key = normal(2, 5, 3, seed=1), normal(2, 5, 3, seed=2)
    expected = 0.0
    for q, k in zip(query, key, strict=True):
        theta = [[float(torch.cosine_similarity(a, b, dim=0)) for b in k] for a in q]
        expected -= sum(
            math.log(math.exp(row[i] / 0.3) / sum(math.exp(t / 0.3) for t in row)) for i, row in enumerate(theta)
        )
    assert patch_nce(query, key, temperature=0.3).item() == pytest.approx(expected / 10, abs=1e-12)


@pytest.mark.parametrize(("size", "expected"), [(1, 0.0), (2, 0.69315), (8, 2.07944), (256, 5.54518)])
def test_patches_that_all_look_alike_cost_log_n(size, expected):
    same = normal(1, 1, 16).expand(3, size, 16)
    assert patch_nce(same, same).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("tau", "expected"), [(0.07, 4.372e-6), (0.2, 0.046090), (0.5, 0.666623)])
def test_orthogonal_patches_cost_the_known_value(tau, expected):
    orthogonal = torch.eye(8, 16, dtype=torch.float64).expand(2, 8, 16)
    loss = patch_nce(orthogonal, orthogonal, temperature=tau).item()
    assert loss == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert loss == pytest.approx(math.log1p(7 * math.exp(-1 / tau)), abs=1e-12)


def test_the_key_is_a_constant():
    query, key = (normal(2, 4, 3, seed=seed).requires_grad_() for seed in (1, 2))
    patch_nce(query, key).backward()
    assert query.grad.abs().max() > 1e-3
    assert key.grad is None


def test_negatives_are_patches_of_the_same_image():
    query, key = normal(3, 5, 4, seed=1), normal(3, 5, 4, seed=2)
    alone = torch.stack([patch_nce(query[i : i + 1], key[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(patch_nce(query, key), alone.mean(), rtol=0, atol=1e-12)


def test_patches_may_be_permuted_together_but_not_in_one_view_alone():
    key = normal(2, 6, 8, seed=1)
    query = key + 0.1 * normal(2, 6, 8, seed=2)
    order = [3, 0, 1, 5, 2, 4]
    torch.testing.assert_close(patch_nce(query[:, order], key[:, order]), patch_nce(query, key), rtol=0, atol=1e-12)
    assert patch_nce(query[:, order], key) > patch_nce(query, key) + 1


def test_patches_of_another_number_or_a_temperature_of_zero_are_refused():
    with pytest.raises(ValueError, match=r"same shape \(..., N, F\), got \(1, 2, 3\) and \(1, 3, 3\)"):
        patch_nce(normal(1, 2, 3), normal(1, 3, 3))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        patch_nce(normal(1, 2, 3), normal(1, 2, 3), temperature=0)


# SSIM


def test_ssim_is_that_of_scikit_image():
    """Inside a dark margin, where zero padding and scikit-image's reflection agree."""
    x = images(0, torch.float64)
    y = 0.7 * x + 0.3 * images(1, torch.float64)
    slices = zip(x.flatten(0, 1).numpy(), y.flatten(0, 1).numpy(), strict=True)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = np.mean([skimage_ssim(a, b, full=True, **settings)[1].mean() for a, b in slices])
    assert structural_similarity(x, y).item() == pytest.approx(expected, abs=1e-9)


def test_ssim_pads_with_zeros():
    """As the authors' convolution with padding 5: the border counts, darkened alike in both images."""
    x, y = (torch.rand((2, 1, 20, 16), generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = (torch.outer(taps, taps) / taps.sum() ** 2)[None, None]
    mx, my, xx, yy, xy = (torch.conv2d(z, window, padding=5) for z in (x, y, x * x, y * y, x * y))
    structure = (2 * (xy - mx * my) + 0.03**2) / (xx - mx**2 + yy - my**2 + 0.03**2)
    expected = (structure * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)).mean()
    torch.testing.assert_close(structural_similarity(x, y), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["abs", "square", "one_minus_square"])
def test_ssim_loss_of_an_image_with_itself_is_zero_with_a_finite_gradient(form):
    x = images().requires_grad_()
    loss = ssim_loss(x, x.detach(), form=form)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() < 1e-4


def test_ssim_of_a_constant_image_has_a_finite_gradient():
    x = torch.zeros((1, 3, 16, 16), requires_grad=True)
    ssim_loss(x, torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))).backward()
    assert torch.isfinite(x.grad).all()


def test_ssim_looks_at_each_slice_by_itself():
    x, y = images(0), images(1)
    order = [2, 0, 1]
    torch.testing.assert_close(structural_similarity(x[:, order], y[:, order]), structural_similarity(x, y))
    apart = torch.stack([structural_similarity(x[:, [i]], y[:, [i]]) for i in range(3)]).mean()
    torch.testing.assert_close(apart, structural_similarity(x, y))


def test_ssim_is_symmetric_and_at_most_one():
    x, y = images(0), images(1)
    torch.testing.assert_close(structural_similarity(x, y), structural_similarity(y, x))
    assert structural_similarity(x, y) < structural_similarity(x, 0.9 * x + 0.1 * y) < 1


def test_the_three_printed_forms_are_functions_of_one_similarity():
    x = images(0, torch.float64)
    y = 0.9 * x + 0.1 * images(1, torch.float64)
    similarity = structural_similarity(x, y).item()
    forms = {form: ssim_loss(x, y, form=form).item() for form in ("abs", "square", "one_minus_square")}
    assert forms == pytest.approx(
        {"abs": 1 - similarity, "square": (1 - similarity) ** 2, "one_minus_square": 1 - similarity**2}
    )
    assert ssim_loss(x, y).item() == forms["abs"]


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match='form must be "abs", "square" or "one_minus_square", got \'sq\''):
        ssim_loss(images(), images(), form="sq")


# Errors and logits


def test_the_absolute_error_is_a_mean():
    assert absolute_error(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([1.0, 1.0, 2.0])).item() == 1.0


@pytest.mark.parametrize(("logits", "expected"), [([1.0, 1.0], 0.0), ([-1.0, 3.0], 2.0), ([0.5, 0.5], 0.5)])
def test_the_adversarial_loss_is_the_distance_to_one(logits, expected):
    assert adversarial_loss(torch.tensor(logits)).item() == expected


@pytest.mark.parametrize(("logits", "expected"), [([0.5, 0.5], 0.0), ([0.0, 1.0], 0.5), ([2.5, -1.5], 2.0)])
def test_the_adaptation_loss_is_the_distance_to_one_half(logits, expected):
    assert adaptation_loss(torch.tensor(logits)).item() == expected


def test_both_halves_of_the_adaptation_are_one_where_the_groups_are_told_apart():
    assert (adaptation_loss(torch.ones(4, 1)) + adaptation_loss(torch.zeros(4, 1))).item() == 1.0


@pytest.mark.parametrize(
    ("real", "fake", "expected"), [(1.0, 0.0, 0.0), (0.5, 0.5, 0.25), (0.0, 1.0, 1.0), (3.0, -1.0, 2.5)]
)
def test_the_discriminator_loss_is_least_squares(real, fake, expected):
    assert discriminator_loss(torch.full((4, 1), real), torch.full((4, 1), fake)).item() == expected


def test_the_best_discriminator_is_the_share_of_the_real_group():
    """One place holds 6 real and 4 fake samples, another 4 and 6; with absolute errors it would say 1 and 0."""
    logits = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        discriminator_loss(logits[[0] * 6 + [1] * 4], logits[[0] * 4 + [1] * 6]).backward()
        optimizer.step()
    torch.testing.assert_close(logits.detach(), torch.tensor([0.6, 0.4]), atol=1e-5, rtol=0)


# Precision

LOSSES = {
    "absolute_error": lambda x, y: absolute_error(x, y),
    "structural_similarity": lambda x, y: structural_similarity(x, y),
    "ssim_loss": lambda x, y: ssim_loss(x, y),
    "adversarial_loss": lambda x, _: adversarial_loss(x),
    "adaptation_loss": lambda x, _: adaptation_loss(x),
    "discriminator_loss": lambda x, y: discriminator_loss(x, y),
    "info_nce": lambda x, y: info_nce(x.flatten(0, 1).flatten(1), y.flatten(0, 1).flatten(1)),
    "patch_nce": lambda x, y: patch_nce(x.flatten(2), y.flatten(2)),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_are_float32_under_autocast(loss):
    x, y = images(0), images(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = loss(x, y)
        rounded = loss(x.bfloat16(), y.bfloat16())
    assert reduced.dtype == rounded.dtype == torch.float32
    assert torch.equal(reduced, loss(x, y))
    assert torch.equal(rounded, loss(x.bfloat16().float(), y.bfloat16().float()))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_double_precision_is_kept(loss):
    assert loss(images(0).double(), images(1).double()).dtype == torch.float64
