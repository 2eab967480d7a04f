"""Several processes: the first rank logs and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ignite.handlers import ProgressBar
from monai.handlers import MLFlowHandler, StatsHandler
from monai.handlers.tensorboard_handlers import TensorBoardHandler

from scripts.handlers.checkpoints import BestModelHandler
from scripts.utils.distributed import rank

__all__ = ["handlers_of_rank"]


# savers are absent, because they restrict writing to the first rank themselves
WRITERS = (StatsHandler, TensorBoardHandler, MLFlowHandler, ProgressBar, BestModelHandler)


def handlers_of_rank(handlers: Sequence[Any]) -> list[Any]:
    """All handlers on the first rank. The other ranks get those that neither log nor write."""
    return [one for one in handlers if rank() == 0 or not isinstance(one, WRITERS)]
