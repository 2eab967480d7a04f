"""Checkpoints: complete, kept, found again; a damaged one is never loaded."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from scripts.handlers.checkpoints import AtomicCheckpointSaver, ResumeHandler, saved_checkpoints
from scripts.handlers.weights import read_checkpoint
from torch import nn


def run(
    folder: Path, epochs: int = 3, resume: str | None = None, fail_at: int | None = None, length: int = 1, **settings
) -> nn.Linear:
    """A training that adds one to its weights in each epoch, with a checkpoint after each."""
    network = nn.Linear(2, 2)
    nn.init.zeros_(network.weight)

    def step(engine: Engine, _batch: object) -> None:
        if engine.state.epoch == fail_at:
            raise ValueError("something broke")
        with torch.no_grad():
            network.weight += 1

    engine = Engine(step)
    engine.logger.disabled = True
    state = {"network": network, "trainer": engine}
    if resume:
        ResumeHandler(resume, folder, state).attach(engine)
    AtomicCheckpointSaver(
        save_dir=str(folder), save_dict=state, **{"save_interval": 1, "n_saved": 2, **settings}
    ).attach(engine)
    engine.state.max_epochs = epochs
    engine.state.epoch_length = length
    engine.run([0])
    return network


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_the_last_checkpoints_stay_also_across_a_resumed_run(tmp_path):
    run(tmp_path)
    assert names(tmp_path) == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"]
    network = run(tmp_path, epochs=4, resume="latest")
    assert names(tmp_path) == ["checkpoint_epoch=3.pt", "checkpoint_epoch=4.pt"]
    assert torch.equal(network.weight, torch.full((2, 2), 4.0))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(tmp_path, damage, caplog):
    run(tmp_path)
    last = tmp_path / "checkpoint_epoch=3.pt"
    content = last.read_bytes()
    if damage == "flipped":
        flip(last, content.index(torch.full((2, 2), 3.0).numpy().tobytes()))
    else:
        last.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    network = run(tmp_path, epochs=4, resume="latest")
    assert torch.equal(network.weight, torch.full((2, 2), 4.0))
    assert names(tmp_path) == ["checkpoint_epoch=3.pt", "checkpoint_epoch=3.pt.damaged", "checkpoint_epoch=4.pt"]


def test_a_checkpoint_that_is_named_must_be_intact(tmp_path):
    run(tmp_path)
    last = tmp_path / "checkpoint_epoch=3.pt"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"epoch=3\.pt: expected a checkpoint, but it cannot be read .* Give another"):
        run(tmp_path, epochs=4, resume=str(last))
    with pytest.raises(ValueError, match=r"none\.pt: expected a checkpoint, found no such file\. Correct --resume"):
        run(tmp_path, epochs=4, resume=str(tmp_path / "none.pt"))


def test_without_an_intact_checkpoint_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match=r"expected an intact checkpoint to resume from, got none\. Start again"):
        run(tmp_path, resume="latest")
    (tmp_path / "a.pt").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"got none; .*a\.pt: expected a checkpoint, but it cannot be read"):
        run(tmp_path, resume="latest")


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    torch.save({"network": nn.Linear(2, 2).state_dict()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: .* of this config, got one without \['trainer'\]\. Resume"):
        run(tmp_path, resume="latest")


def test_a_checkpoint_beyond_the_budget_or_of_other_epochs_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(
        ValueError, match=r"=3\.pt: .* at most max_iterations, 2, got one after 3\. Set --max_iterations 3"
    ):
        run(tmp_path, epochs=2, resume="latest", length=1)
    with pytest.raises(ValueError, match=r"iterations_per_epoch of this run, 2, got 1\. Set --iterations_per_epoch 1"):
        run(tmp_path, epochs=4, resume="latest", length=2)
    run(tmp_path, epochs=3, resume="latest", length=1)  # a finished one has nothing left to do


def test_a_failing_training_writes_no_final_file(tmp_path):
    settings = {"save_final": True, "final_filename": "model.pt", "save_interval": 0}
    run(tmp_path, **settings)
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(ValueError, match="something broke"):
        run(tmp_path, fail_at=2, **settings)
    assert (tmp_path / "model.pt").read_bytes() == before


def test_a_write_that_fails_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    def fails(content, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    run(tmp_path, epochs=2)
    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match=r"checkpoint_epoch=3\.pt: expected to write .*No space left"):
        run(tmp_path, epochs=3, resume="latest")
    monkeypatch.undo()
    assert names(tmp_path) == ["checkpoint_epoch=2.pt"]
    assert torch.equal(run(tmp_path, epochs=3, resume="latest").weight, torch.full((2, 2), 3.0))


def test_checkpoints_are_sorted_by_age(tmp_path):
    for age, name in enumerate(["checkpoint_epoch=10.pt", "checkpoint_epoch=9.pt", ".unfinished_1_a.pt", "b.txt"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert [path.name for path in saved_checkpoints(tmp_path)] == ["checkpoint_epoch=9.pt", "checkpoint_epoch=10.pt"]


def test_no_flipped_bit_goes_unseen(tmp_path):
    """torch.load alone reads four of five such files without a word."""
    expected = torch.rand(1000)
    torch.save({"weight": expected}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(100):
        (tmp_path / "a.pt").write_bytes(content)
        flip(tmp_path / "a.pt", draw.randrange(len(content)))
        try:
            assert torch.equal(read_checkpoint(tmp_path / "a.pt")["weight"], expected)  # padding holds no data
        except ValueError:
            refused += 1
    assert refused > 80


def test_nothing_in_a_file_of_weights_is_executed(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'harm'}",)

    torch.save({"weight": Harmful()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint, but it cannot be read \(UnpicklingError"):
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "harm").exists()
