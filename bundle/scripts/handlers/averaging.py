"""The moving average of the weights, which validation and inference use."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler

__all__ = ["AverageStartHandler", "ResumableEMAHandler"]


class ResumableEMAHandler(EMAHandler):
    """Ignite's exponential moving average. Its warm-up continues where a resumed engine stands.

    Ignite counts the warm-up from 0 in every run. A resumed run would then average differently from one that was never
    stopped. The arguments are those of ``ignite.handlers.EMAHandler``.

    Example:
        >>> from torch import nn
        >>> ResumableEMAHandler(nn.Linear(1, 1), momentum=0.002).ema_model
        Linear(in_features=1, out_features=1, bias=True)
    """

    def attach(self, engine: Engine) -> None:
        super().attach(engine)
        if hasattr(self, "momentum_scheduler"):  # there is a warm-up
            engine.add_event_handler(Events.EPOCH_STARTED, self._align)

    def _align(self, engine: Engine) -> None:
        self.momentum_scheduler.event_index = engine.state.iteration


class AverageStartHandler:
    """Start the moving average from the model's weights at the start of a training, such as those just loaded.

    Attach it after the handler that loads weights and before the first validation. A resumed training keeps its
    average.

    Args:
        ema: the handler that holds the average and its model.
    """

    def __init__(self, ema: EMAHandler) -> None:
        self.ema = ema

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration == 0:
            self.ema.ema_model.load_state_dict(self.ema.model.state_dict())
