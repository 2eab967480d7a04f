"""Checkpoints: the whole state of a training, complete on disk, and found again after any interruption."""

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

__all__ = ["AtomicCheckpointSaver", "ResumeHandler"]


LATEST = "latest"


class AtomicDiskSaver(DiskSaver):
    """Ignite's ``DiskSaver``, whose files are complete and readable for the group as the umask says.

    Args:
        dirname: folder of the files.
        filename: a fixed name instead of the one that is asked for.
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
    """MONAI's ``CheckpointSaver``, whose files are complete or absent, for an interval or the end of a training.

    Among the checkpoints of an interval, ``n_saved`` counts those that an earlier run left in the folder as well; the
    oldest goes first. A training that ends by an error writes no final file: half a training must not pass for a whole.

    Args:
        kwargs: those of the base class; ``key_metric`` ones are not supported.
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
        """Let the checkpoints that are there already be the oldest ones."""
        interval = self._interval_checkpoint
        items = [Checkpoint.Item(float("-inf"), path.name) for path in saved_checkpoints(self.save_dir)]
        interval._saved = items if interval.n_saved is None else items[-interval.n_saved :]

    def exception_raised(self, engine: Engine, e: Exception) -> None:
        """Leave the final file as it was."""
        raise e


class ResumeHandler(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` for a whole training; of the latest checkpoints, it takes the first that is intact.

    Args:
        resume: a checkpoint, or "latest" for the newest of ``ckpt_dir``; a damaged one is renamed, with a warning.
        ckpt_dir: folder of the checkpoints.
        load_dict: see the base class.
        map_location: see the base class.

    Raises:
        ValueError: when the engine starts, if there is no intact checkpoint or it is of another training.
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
                f"{self.load_path}: expected the state of a training of this config, got one without {missing}. "
                "Resume with the config that it was trained with."
            )
        super().__call__(engine)

    def _newest_intact(self) -> Mapping[str, Any]:
        faults = []
        for path in reversed(saved_checkpoints(self.ckpt_dir)):
            try:
                return self._read(path)
            except ValueError as error:
                faults.append(str(error))
                aside = path.with_name(f"{path.name}.damaged")
                path.replace(aside)
                self.logger.warning("%s Set aside as %s; going back to the one before it.", error, aside.name)
        raise ValueError(
            f"{self.ckpt_dir}: expected an intact checkpoint to resume from, got none"
            + "".join(f"; {fault}" for fault in faults)
            + ". Start anew without --resume."
        )

    def _read(self, path: Path) -> Mapping[str, Any]:
        if not path.is_file():
            raise ValueError(f"{path}: expected a checkpoint, but there is no such file. Check --resume.")
        content = read_checkpoint(path, remedy="Resume from another by --resume, or start anew.")
        self.load_path = str(path)
        return content


class FinalNetworks(AtomicCheckpointSaver):
    """Save what a finished training leaves behind.

    Args:
        output_dir: where to write.
        networks: by name; one called ``model`` alone is a plain state dictionary.
        filename: of the file.
    """

    def __init__(self, output_dir: PathLike, networks: Mapping[str, nn.Module], filename: str = "model.pt") -> None:
        super().__init__(save_dir=str(output_dir), save_dict=dict(networks), save_final=True, final_filename=filename)


class TrainingCheckpoints:
    """Save the whole state of a training once an epoch, the last two of them, and go on from one.

    Crops and noise follow from seed and iteration, so that they need no state.

    Args:
        directory: of the checkpoints.
        resume: a checkpoint, or "latest"; None starts anew.
        map_location: device to load to.
        state: what a run remembers beside what its trainer holds, by name; what is None is left out.
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
        AtomicCheckpointSaver(
            save_dir=str(self.directory), save_dict=state, save_interval=1, n_saved=2
        ).attach(engine)


def saved_checkpoints(folder: PathLike) -> list[Path]:
    """The checkpoints of a folder, the oldest first."""
    paths = [path for path in Path(folder).glob("*.pt") if not path.name.startswith(".")]
    return sorted(paths, key=lambda path: (os.stat(path).st_mtime_ns, path.name))


class BestModelHandler:
    """Keep the model with the best key metric, also across a resumed run.

    Attached to an evaluator, whose best metric then belongs to its ``state_dict``. The file is replaced at once, so
    that an interruption leaves the previous one.

    Args:
        model: network whose ``state_dict`` is saved, weights alone.
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
