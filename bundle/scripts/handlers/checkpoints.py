"""Checkpoints: the whole state of a training on disk. An interruption leaves complete files only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from monai.config import PathLike
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch import nn

from scripts.handlers.weights import read_checkpoint
from scripts.utils.atomic import write_atomically

__all__ = [
    "AtomicCheckpointSaver",
    "BestModelHandler",
    "FinalNetworks",
    "ResumeHandler",
    "TrainingCheckpoints",
    "saved_checkpoints",
]

LATEST = "latest"


class AtomicDiskSaver(DiskSaver):
    """Ignite's ``DiskSaver``. Its files are complete or absent, and their permissions follow the umask.

    Args:
        dirname: folder of the files.
        filename: a fixed name instead of the requested one.
    """

    def __init__(self, dirname: PathLike, filename: str | None = None) -> None:
        super().__init__(dirname, atomic=False, require_empty=False)
        self.filename = filename

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        super().__call__(checkpoint, self.filename or filename, metadata)

    def remove(self, filename: str) -> None:
        (self.dirname / (self.filename or filename)).unlink(missing_ok=True)

    def _save_func(self, checkpoint: Mapping, path: Path, func: Any) -> None:
        write_atomically(path, partial(func, checkpoint, **self.kwargs))


class AtomicCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for an interval or the end of a training. Its files are complete or absent.

    ``n_saved`` also counts the checkpoints that an earlier run left in the folder. The oldest goes first. A training
    that ends with an error writes no final file, so that half a training does not pass for a whole one.

    Args:
        kwargs: arguments of the base class, except those of ``key_metric``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self._interval_checkpoint is not None:
            self._interval_checkpoint.save_handler = AtomicDiskSaver(self.save_dir)
        if self._final_checkpoint is not None:
            self._final_checkpoint.save_handler = AtomicDiskSaver(self.save_dir, self._final_filename)

    def attach(self, engine: Engine) -> None:
        super().attach(engine)
        if self._interval_checkpoint is not None:
            engine.add_event_handler(Events.STARTED, self._count_earlier)

    def _count_earlier(self) -> None:
        """Count the checkpoints that are already in the folder as the oldest ones."""
        interval = self._interval_checkpoint
        items = [Checkpoint.Item(float("-inf"), path.name) for path in saved_checkpoints(self.save_dir)]
        interval._saved = items if interval.n_saved is None else items[-interval.n_saved :]

    def exception_raised(self, engine: Engine, e: Exception) -> None:
        """Keep the previous final file."""
        raise e


class ResumeHandler(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` for a whole training.

    Args:
        resume: a checkpoint, or "latest" for the newest intact one in ``ckpt_dir``. With "latest" a damaged checkpoint
            is renamed and a warning is logged.
        ckpt_dir: folder of the checkpoints.
        load_dict: see the base class.
        map_location: see the base class.

    Raises:
        ValueError: when the engine starts, if no checkpoint is intact, or the checkpoint is from another config or has
            more iterations than the budget.
    """

    def __init__(
        self, resume: PathLike, ckpt_dir: PathLike, load_dict: Mapping, map_location: torch.device | str = "cpu"
    ) -> None:
        super().__init__(load_path=str(resume), load_dict=dict(load_dict), map_location=map_location)
        self.resume = str(resume)
        self.ckpt_dir = Path(ckpt_dir)

    def __call__(self, engine: Engine) -> None:
        checkpoint = self._newest_intact() if self.resume == LATEST else self._read(Path(self.resume))
        missing = sorted(self.load_dict.keys() - checkpoint.keys())
        if missing:
            raise ValueError(
                f"{self.load_path}: expected a checkpoint of this config, got one without {missing}. "
                "Resume with the config files of the training that wrote it."
            )
        self._check_budget(engine, checkpoint)
        super().__call__(engine)

    def _check_budget(self, engine: Engine, checkpoint: Mapping[str, Any]) -> None:
        """Compare the checkpoint's iterations with the budget, which the engine counts in epochs."""
        trainer = next((checkpoint[name] for name, item in self.load_dict.items() if item is engine), {})
        length, done = trainer.get("epoch_length"), trainer.get("iteration", 0)
        if length is None or engine.state.epoch_length is None or engine.state.max_epochs is None:
            return
        if length != engine.state.epoch_length:
            raise ValueError(
                f"{self.load_path}: expected a checkpoint with the iterations_per_epoch of this run, "
                f"{engine.state.epoch_length}, got {length}. Set --iterations_per_epoch {length}."
            )
        if done > (budget := engine.state.max_epochs * length):
            raise ValueError(
                f"{self.load_path}: expected a checkpoint of at most max_iterations, {budget}, got one after {done}. "
                f"Set --max_iterations {done} or more, or start again without --resume in another --output_dir."
            )

    def _newest_intact(self) -> Mapping[str, Any]:
        faults = []
        for path in reversed(saved_checkpoints(self.ckpt_dir)):
            try:
                return self._read(path)
            except ValueError as error:
                faults.append(str(error))
                aside = path.with_name(f"{path.name}.damaged")
                path.replace(aside)
                self.logger.warning("%s Renamed it to %s; trying the checkpoint before it.", error, aside.name)
        raise ValueError(
            f"{self.ckpt_dir}: expected an intact checkpoint to resume from, got none"
            + "".join(f"; {fault}" for fault in faults)
            + ". Start again without --resume."
        )

    def _read(self, path: Path) -> Mapping[str, Any]:
        if not path.is_file():
            raise ValueError(f"{path}: expected a checkpoint, found no such file. Correct --resume.")
        content = read_checkpoint(path, remedy="Give another checkpoint with --resume, or start again without it.")
        self.load_path = str(path)
        return content


class FinalNetworks(AtomicCheckpointSaver):
    """Save the networks when a training finishes.

    Args:
        output_dir: folder to write to.
        networks: the networks by name. A single one gives a plain state dictionary.
        filename: name of the file.
    """

    def __init__(self, output_dir: PathLike, networks: Mapping[str, nn.Module], filename: str = "model.pt") -> None:
        super().__init__(save_dir=str(output_dir), save_dict=dict(networks), save_final=True, final_filename=filename)


class TrainingCheckpoints:
    """Save the whole state of a training after each epoch, keep the last two, and resume from one.

    The state holds the trainer's objective, optimisers, gradient scaler and iteration. Crops and noise need no state,
    because they depend on the seed and the iteration alone.

    Args:
        directory: folder of the checkpoints.
        resume: a checkpoint, or "latest". None starts a new training.
        map_location: device to load to.
        state: further state by name, such as schedulers. Entries that are None are left out.
    """

    def __init__(
        self,
        directory: PathLike,
        resume: PathLike | None = None,
        map_location: torch.device | str = "cpu",
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.resume = resume
        self.map_location = map_location
        self.state = dict(state or {})

    def attach(self, engine: Engine) -> None:
        held = {name: getattr(engine, name) for name in ("objective", "g_optimizer", "d_optimizer", "grad_scaler")}
        state = {**held, **self.state, "trainer": engine}
        state = {name: item for name, item in state.items() if item is not None}
        if self.resume is not None:
            ResumeHandler(self.resume, self.directory, state, self.map_location).attach(engine)
        AtomicCheckpointSaver(save_dir=str(self.directory), save_dict=state, save_interval=1, n_saved=2).attach(engine)


def saved_checkpoints(folder: PathLike) -> list[Path]:
    """The checkpoints of a folder, the oldest first."""
    paths = [path for path in Path(folder).glob("*.pt") if not path.name.startswith(".")]
    return sorted(paths, key=lambda path: (os.stat(path).st_mtime_ns, path.name))


class BestModelHandler:
    """Keep the model with the best key metric, also across a resumed run.

    Attach it to an evaluator. The best metric then belongs to the evaluator's ``state_dict``. The file is replaced in
    one step, so that an interruption leaves the previous file.

    Args:
        model: network whose ``state_dict`` is saved.
        path: file to write.
    """

    def __init__(self, model: nn.Module, path: str | os.PathLike) -> None:
        self.model = model
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        engine.state_dict_user_keys.extend(["best_metric", "best_metric_epoch"])
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch:
            write_atomically(self.path, lambda unfinished: torch.save(self.model.state_dict(), unfinished))
