"""Losses: terms as pure functions of images, logits and embeddings, in float32 also under autocast."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "SSIM_FORMS",
    "absolute_error",
    "adaptation_loss",
    "adversarial_loss",
    "discriminator_loss",
    "info_nce",
    "least_squares_adversarial_loss",
    "log_adversarial_loss",
    "log_discriminator_loss",
    "patch_nce",
    "relative_error",
    "ssim_loss",
    "structural_similarity",
]

SSIM_FORMS = ("abs", "square", "one_minus_square")
WINDOW_SIZE = 11  # pixels, of SSIM
SIGMA = 1.5  # pixels, standard deviation of that window
SMALLEST_ERROR = 0.002  # of an interpolation; below it there is nothing to learn, and a weight would grow without bound


def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute a loss in float32 under autocast, because the variances of SSIM become negative in bfloat16."""

    @functools.wraps(function)
    def wrapper(*tensors: Tensor, **kwargs) -> Tensor:
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*(t if t.dtype == torch.float64 else t.float() for t in tensors), **kwargs)

    return wrapper


@in_float32
def absolute_error(x: Tensor, y: Tensor) -> Tensor:
    r"""$L_1$, the mean absolute error (UDEAN eq. 1).

    Example:
        >>> absolute_error(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.0]))
        tensor(0.2500)
    """
    return F.l1_loss(x, y)


@in_float32
def relative_error(made: Tensor, given: Tensor, start: Tensor, weight: Tensor, power: int = 1) -> Tensor:
    r"""Mean over samples of $\sum w |\hat y - y|^p / \sum w |x - y|^p$: the share of an error that is left.

    Args:
        made: $\hat y$, ``(B, ...)``.
        given: $y$, which it should equal.
        start: $x$, whose error counts as 1. No gradient reaches it.
        weight: $w$, 0 where nothing counts.
        power: $p$, 1 or 2.

    Example:
        >>> start, given = torch.ones(2, 1, 4, 4, 4), torch.zeros(2, 1, 4, 4, 4)
        >>> float(relative_error(0.5 * start, given, start, torch.ones_like(start)))
        0.5
    """
    voxels = tuple(range(1, made.ndim))
    error, most = (((x - given).abs() ** power * weight).sum(voxels) for x in (made, start.detach()))
    least = SMALLEST_ERROR**power * weight.sum(voxels).clamp(min=1)
    return (error / torch.maximum(most, least)).mean()


def _gaussian_band(size: int, reference: Tensor) -> Tensor:
    """Gaussian filtering with zero padding as a ``(size, size)`` band matrix."""
    offset = torch.arange(size, device=reference.device, dtype=reference.dtype)
    distance = offset[:, None] - offset[None, :]
    taps = torch.arange(WINDOW_SIZE, dtype=torch.float64) - WINDOW_SIZE // 2
    norm = float(torch.exp(-(taps**2) / (2 * SIGMA**2)).sum())
    return torch.exp(-(distance**2) / (2 * SIGMA**2)) / norm * (distance.abs() <= WINDOW_SIZE // 2)


@in_float32
def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean 2-D SSIM over slices: Gaussian window 11 x 11, $\sigma = 1.5$, zero padding, data range 1.

    A 3-D window of 11 slices does not fit into a thin slab. The papers' authors compute SSIM slice by slice, too.

    Args:
        x: ``(B, S, H, W)``.
        y: ``(B, S, H, W)``.

    Example:
        >>> structural_similarity(torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16))
        tensor(1.)
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
    r"""Structural dissimilarity, in one of the three forms of the sources.

    Args:
        x: ``(B, S, H, W)``.
        y: ``(B, S, H, W)``.
        form: ``"abs"`` for $|1 - SSIM|$ (UDEAN v2, eq. 2), ``"square"`` for $|1 - SSIM|^2$ (UDEAN v1),
            ``"one_minus_square"`` for $1 - SSIM^2$ (TS-RCAN's code).

    Raises:
        ValueError: when ``form`` has another value.

    Example:
        >>> ssim_loss(torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)) > 0.9
        tensor(True)
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
    r"""$\frac{1}{N} \sum |D(x) - 1|$, UDEAN eq. 3 as printed. Its text calls it least squares.

    Example:
        >>> adversarial_loss(torch.tensor([1.0, 0.0]))
        tensor(0.5000)
    """
    return (logits - 1).abs().mean()


@in_float32
def least_squares_adversarial_loss(logits: Tensor) -> Tensor:
    r"""$(D(x) - 1)^2$, the generator's side of :func:`discriminator_loss` (LSGAN, https://arxiv.org/abs/1611.04076).

    Example:
        >>> least_squares_adversarial_loss(torch.tensor([1.0, 3.0]))
        tensor(2.)
    """
    return (logits - 1).square().mean()


@in_float32
def log_adversarial_loss(logits: Tensor) -> Tensor:
    r"""$-\log \sigma(D(x))$, the generator's side of :func:`log_discriminator_loss`.

    Example:
        >>> log_adversarial_loss(torch.tensor([0.0]))
        tensor(0.6931)
    """
    return F.softplus(-logits).mean()


@in_float32
def log_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""$-\frac12 [\log \sigma(D(real)) + \log(1 - \sigma(D(fake)))]$ of the original GAN, whose logits are log-odds.

    Example:
        >>> log_discriminator_loss(torch.tensor([0.0]), torch.tensor([0.0]))
        tensor(0.6931)
    """
    return 0.5 * (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean())


@in_float32
def adaptation_loss(logits: Tensor) -> Tensor:
    r"""$\frac{1}{N} \sum |D(x) - \frac12|$, half of UDEAN eq. 8 or 9. Zero where the groups are indistinguishable.

    Example:
        >>> adaptation_loss(torch.tensor([0.5, 1.5]))
        tensor(0.5000)
    """
    return (logits - 0.5).abs().mean()


@in_float32
def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Least squares, $\frac12 [(D(real) - 1)^2 + D(fake)^2]$. The optimal logit is the share of the real group.

    The papers do not state this loss. With an absolute error the optimum would be a median, and the ½ in
    :func:`adaptation_loss` would have no meaning.

    Example:
        >>> discriminator_loss(torch.tensor([1.0]), torch.tensor([1.0]))
        tensor(0.5000)
    """
    return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())


@in_float32
def hinge_adversarial_loss(logits: Tensor) -> Tensor:
    r"""$-D(x)$, the generator's side of :func:`hinge_discriminator_loss`.

    Example:
        >>> hinge_adversarial_loss(torch.tensor([1.0, 2.0]))
        tensor(-1.5000)
    """
    return -logits.mean()


@in_float32
def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""$\frac12 [\max(0, 1 - D(real)) + \max(0, 1 + D(fake))]$ (https://arxiv.org/abs/1705.02894). A blind one has 1.

    Example:
        >>> hinge_discriminator_loss(torch.tensor([2.0]), torch.tensor([0.0]))
        tensor(0.5000)
    """
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


@in_float32
def info_nce(u: Tensor, v: Tensor, temperature: float = 0.2) -> Tensor:
    r"""The paper's contrastive loss, with negatives from both views (arXiv 2310.15767, eq. 1-4; GRACE, 2006.04131).

    The loss is $-\frac{1}{2N} \sum_i [\ell(u_i, v_i) + \ell(v_i, u_i)]$. With the cosine $\theta$,
    $\ell(u_i, v_i) = \log \frac{e^{\theta(u_i, v_i) / \tau}}{e^{\theta(u_i, v_i) / \tau}
    + \sum_{k \neq i} e^{\theta(u_i, v_k) / \tau} + \sum_{k \neq i} e^{\theta(u_i, u_k) / \tau}}$.
    Eq. 2 prints the sum over $i$, a misprint for $k$.

    Args:
        u: embeddings ``(N, F)`` of one view.
        v: embeddings ``(N, F)`` of the other view, row by row of the same samples.
        temperature: $\tau > 0$. The authors take 0.2.

    Raises:
        ValueError: when the temperature is not positive or the views differ in shape.

    Example:
        >>> info_nce(torch.eye(2), torch.eye(2))  # log(1 + 2 exp(-5))
        tensor(0.0134)
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
    r"""PatchNCE: recognise each patch of an image among the patches of that image (CUT, arXiv 2007.15651, eq. 3).

    The loss is $-\frac{1}{N} \sum_i \log \frac{e^{\theta(q_i, k_i) / \tau}}{\sum_j e^{\theta(q_i, k_j) / \tau}}$ with
    the cosine $\theta$, averaged over the images. Unlike :func:`info_nce` it has one direction and takes negatives from
    the other view alone. No gradient flows to the key.

    Args:
        query: embeddings ``(B, N, F)`` of N patches of each of B images.
        key: embeddings ``(B, N, F)`` of the same patches in the images that the query should resemble.
        temperature: $\tau > 0$. CUT takes 0.07.

    Raises:
        ValueError: when the temperature is not positive or the views differ in shape.

    Example:
        >>> patch_nce(torch.eye(2)[None], torch.eye(2)[None], temperature=0.2)  # log(1 + exp(-5))
        tensor(0.0067)
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
