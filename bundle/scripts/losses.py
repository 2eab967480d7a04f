"""Loss terms: pure functions of images, logits and embeddings, always computed in float32."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "absolute_error",
    "adaptation_loss",
    "adversarial_loss",
    "discriminator_loss",
    "info_nce",
    "least_squares_adversarial_loss",
    "log_adversarial_loss",
    "log_discriminator_loss",
    "patch_nce",
    "ssim_loss",
    "structural_similarity",
]


def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute a loss in float32 whatever autocast says: in bfloat16 the variances of SSIM turn negative."""

    @functools.wraps(function)
    def wrapper(*tensors: Tensor, **kwargs) -> Tensor:
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*(t if t.dtype == torch.float64 else t.float() for t in tensors), **kwargs)

    return wrapper


@in_float32
def absolute_error(x: Tensor, y: Tensor) -> Tensor:
    r"""$L_1$, the mean absolute error (UDEAN eq. 1)."""
    return F.l1_loss(x, y)


def _gaussian_band(size: int, reference: Tensor, window_size: int = 11, sigma: float = 1.5) -> Tensor:
    """Gaussian filtering with zero padding as a ``(size, size)`` band matrix."""
    offset = torch.arange(size, device=reference.device, dtype=reference.dtype)
    distance = offset[:, None] - offset[None, :]
    taps = torch.arange(window_size, dtype=torch.float64) - window_size // 2
    norm = float(torch.exp(-(taps**2) / (2 * sigma**2)).sum())
    return torch.exp(-(distance**2) / (2 * sigma**2)) / norm * (distance.abs() <= window_size // 2)


@in_float32
def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean 2-D SSIM over slices: Gaussian window 11 x 11, $\sigma = 1.5$, zero padding, data range 1.

    A window of 11 does not fit the few slices of a slab; the papers' authors compute SSIM slice by slice.

    Args:
        x: ``(B, S, H, W)``.
        y: ``(B, S, H, W)``.
    """
    c1, c2 = 0.01**2, 0.03**2
    rows, columns = _gaussian_band(x.shape[-2], x), _gaussian_band(x.shape[-1], x)

    def blur(image: Tensor) -> Tensor:
        return rows @ image @ columns

    mean_x, mean_y = blur(x), blur(y)
    variance_x = (blur(x * x) - mean_x**2).clamp(min=0)
    variance_y = (blur(y * y) - mean_y**2).clamp(min=0)
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)).mean()


def ssim_loss(x: Tensor, y: Tensor, form: str = "abs") -> Tensor:
    r"""Dissimilarity, in one of the three forms that the sources print or code.

    Args:
        x: ``(B, S, H, W)``.
        y: ``(B, S, H, W)``.
        form: ``"abs"`` for $|1 - SSIM|$ (UDEAN v2, eq. 2), ``"square"`` for $|1 - SSIM|^2$ (UDEAN v1),
            ``"one_minus_square"`` for $1 - SSIM^2$ (TS-RCAN's code).

    Raises:
        ValueError: when ``form`` is none of these.
    """
    similarity = structural_similarity(x, y)
    if form == "abs":
        return (1 - similarity).abs()
    if form == "square":
        return (1 - similarity) ** 2
    if form == "one_minus_square":
        return 1 - similarity**2
    raise ValueError(f'form must be "abs", "square" or "one_minus_square", got {form!r}.')


@in_float32
def adversarial_loss(logits: Tensor) -> Tensor:
    r"""$\frac{1}{N} \sum \sqrt{(D(x) - 1)^2}$ (UDEAN eq. 3, as printed; the text calls it least squares)."""
    return (logits - 1).abs().mean()


@in_float32
def least_squares_adversarial_loss(logits: Tensor) -> Tensor:
    r"""$(D(x) - 1)^2$, the generator's side of :func:`discriminator_loss` (LSGAN, https://arxiv.org/abs/1611.04076)."""
    return (logits - 1).square().mean()


@in_float32
def log_adversarial_loss(logits: Tensor) -> Tensor:
    r"""$-\log \sigma(D(x))$, the generator's side of :func:`log_discriminator_loss`."""
    return F.softplus(-logits).mean()


@in_float32
def log_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""$-\frac12 [\log \sigma(D(real)) + \log(1 - \sigma(D(fake)))]$: the original GAN, whose outputs are log-odds."""
    return 0.5 * (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean())


@in_float32
def adaptation_loss(logits: Tensor) -> Tensor:
    r"""$\frac{1}{N} \sum |D(x) - \frac12|$: half of UDEAN eq. 8 or 9, zero where the groups cannot be told apart."""
    return (logits - 0.5).abs().mean()


@in_float32
def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Least squares, $\frac12 [(D(real) - 1)^2 + D(fake)^2]$, whose optimum is the share of the real group.

    The papers are silent; with an absolute error the optimum would be a median and ½ would mean nothing.
    """
    return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())


@in_float32
def info_nce(u: Tensor, v: Tensor, temperature: float = 0.2) -> Tensor:
    r"""The papers' contrastive loss, with negatives from both views (arXiv 2310.15767, eq. 1-4; GRACE, 2006.04131).

    $\ell(u_i, v_i) = \log \frac{e^{\theta(u_i, v_i) / \tau}}{e^{\theta(u_i, v_i) / \tau}
    + \sum_{k \neq i} e^{\theta(u_i, v_k) / \tau} + \sum_{k \neq i} e^{\theta(u_i, u_k) / \tau}}$ with the cosine
    $\theta$, and the loss is $-\frac{1}{2N} \sum_i [\ell(u_i, v_i) + \ell(v_i, u_i)]$. Eq. 2 prints the sum over $i$,
    which is a misprint for $k$.

    Args:
        u: embeddings ``(N, F)`` of one view.
        v: embeddings ``(N, F)`` of the other view, row by row of the same samples.
        temperature: $\tau > 0$; 0.2 is the authors' default.

    Raises:
        ValueError: when the temperature is not positive or the views differ in shape.
    """
    _check_views(u, v, temperature)
    views = F.normalize(torch.cat([u, v]), dim=1)
    size = len(u)
    similarity = views @ views.T / temperature
    similarity = similarity.masked_fill(torch.eye(2 * size, dtype=torch.bool, device=u.device), -math.inf)
    positive = torch.arange(2 * size, device=u.device).roll(size)
    return F.cross_entropy(similarity, positive)


@in_float32
def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07) -> Tensor:
    r"""PatchNCE: each patch of an image is to be told from the other patches of that image (CUT, 2007.15651, eq. 3).

    $-\frac{1}{N} \sum_i \log \frac{e^{\theta(q_i, k_i) / \tau}}{\sum_j e^{\theta(q_i, k_j) / \tau}}$ with the cosine
    $\theta$, averaged over the images. Unlike :func:`info_nce` it has one direction, and negatives from the other view
    alone: the key is a constant, to which no gradient flows.

    Args:
        query: embeddings ``(B, N, F)`` of N patches of each of B images.
        key: embeddings ``(B, N, F)`` of the same patches in what the images should be like.
        temperature: $\tau > 0$; 0.07 is CUT's.

    Raises:
        ValueError: when the temperature is not positive or the views differ in shape.
    """
    _check_views(query, key, temperature)
    similarity = F.normalize(query, dim=2) @ F.normalize(key.detach(), dim=2).mT / temperature
    patch = torch.arange(query.shape[1], device=query.device).repeat(len(query))
    return F.cross_entropy(similarity.flatten(0, 1), patch)


def _check_views(u: Tensor, v: Tensor, temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    if u.shape != v.shape:
        raise ValueError(
            f"the two views must have the same shape (..., N, F), got {tuple(u.shape)} and {tuple(v.shape)}."
        )
