"""Contrastive negatives of several processes: loss and gradients are those of one process with the joined batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scripts.losses import info_nce
from scripts.utils.distributed import gather_batch
from torch import Tensor

WORLD_SIZE, SHARE, FEATURES = 2, 3, 5


def views() -> tuple[Tensor, Tensor]:
    """Embeddings of the joined batch in both views."""
    joined = torch.randn((2, WORLD_SIZE * SHARE, FEATURES), generator=torch.Generator().manual_seed(0))
    u, v = joined.double()
    return u.requires_grad_(), v.requires_grad_()


def own_share(rank: int, folder: str) -> None:
    """One rank: the loss of the gathered batch, and the gradients at its own embeddings."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD_SIZE)
    u, v = (view.detach().chunk(WORLD_SIZE)[rank].clone().requires_grad_() for view in views())
    loss = info_nce(gather_batch(u), gather_batch(v))
    loss.backward()
    torch.save([loss.detach(), u.grad, v.grad], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(own_share, args=(str(folder),), nprocs=WORLD_SIZE)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD_SIZE)]


def test_every_rank_has_the_loss_of_the_joined_batch(ranks):
    expected = info_nce(*views()).detach()
    for loss, _, _ in ranks:
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)


def test_the_average_over_the_ranks_is_the_gradient_of_the_joined_batch(ranks):
    """An embedding belongs to one rank, so that the average of its gradients is its own divided by their number."""
    u, v = views()
    info_nce(u, v).backward()
    for index, view in enumerate((u, v), start=1):
        gathered = torch.cat([rank[index] for rank in ranks]) / WORLD_SIZE
        torch.testing.assert_close(gathered, view.grad, atol=1e-12, rtol=0)
        assert gathered.abs().max() > 1e-3


def test_negatives_of_the_own_share_alone_would_be_another_loss(ranks):
    shares = zip(*(view.chunk(WORLD_SIZE) for view in views()), strict=True)
    alone = torch.stack([info_nce(u, v) for u, v in shares]).mean()
    assert abs(alone - ranks[0][0]) > 0.1


def test_a_single_process_gets_back_what_it_gave():
    share = torch.rand(4, 3)
    assert gather_batch(share) is share
