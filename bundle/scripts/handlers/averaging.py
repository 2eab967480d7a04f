"""Averaging: the moving average of the weights that inference uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler

if TYPE_CHECKING:
    pass


class ResumableEMAHandler(EMAHandler):
    """Ignite's exponential moving average, whose warm-up goes on where a resumed engine stands.

    Ignite counts the warm-up's iterations anew in every run, so that a resumed run would average otherwise than one
    that was never stopped. Takes the arguments of ``ignite.handlers.EMAHandler``.
    """

    def attach(self, engine: Engine) -> None:
        super().attach(engine)
        if hasattr(self, "momentum_scheduler"):  # there is a warm-up
            engine.add_event_handler(Events.EPOCH_STARTED, self._align)

    def _align(self, engine: Engine) -> None:
        self.momentum_scheduler.event_index = engine.state.iteration


class AverageStartHandler:
    """Let a moving average begin with the weights that the model has when a training starts, such as those just loaded.

    To be attached after whatever loads weights, and before the first validation.

    Args:
        ema: the handler with the average and its model.
    """

    def __init__(self, ema: EMAHandler) -> None:
        self.ema = ema

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration == 0:
            self.ema.ema_model.load_state_dict(self.ema.model.state_dict())
