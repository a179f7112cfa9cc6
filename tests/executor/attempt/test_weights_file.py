"""Weights files: whole, resumable, and only tensors and numbers."""

import errno
import struct
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from executor.attempt import weights_file  # noqa: E402
from executor.attempt.weights_file import TrainingState, load_latest, save  # noqa: E402


def state(iteration=3, description="job"):
    """A small state with an optimizer that has one."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return TrainingState(
        iteration=iteration,
        description=description,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        random_state=torch.get_rng_state(),
        device_random_state=None,
        losses=(1.5, 0.1 + 0.2, float("nan")),
        plan='{"plan_id": null}',
    )


def test_what_is_saved_is_what_is_loaded(tmp_path):
    """Model, optimizer, random state, losses to the last bit"""
    saved = state()
    save(tmp_path, saved, attempt=1)
    found = load_latest(tmp_path, description="job")
    assert found.iteration == 3
    assert found.losses[:2] == saved.losses[:2]
    assert found.plan == saved.plan
    torch.testing.assert_close(found.model, saved.model, rtol=0, atol=0)
    assert torch.equal(found.random_state, saved.random_state)
    moments = found.optimizer["state"][0]["exp_avg"]
    assert torch.equal(moments, saved.optimizer["state"][0]["exp_avg"])


def test_a_later_attempt_replaces_the_files_of_earlier_ones(tmp_path):
    """One file is left, of the later attempt"""
    save(tmp_path, state(1), attempt=1)
    save(tmp_path, state(2), attempt=2)
    assert [path.name for path in tmp_path.iterdir()] == ["weights-000002.pt"]


def test_a_zombie_cannot_undo_what_its_successor_saved(tmp_path):
    """It writes a file of its own; the furthest one is resumed from"""
    save(tmp_path, state(9), attempt=2)
    save(tmp_path, state(4), attempt=1)
    assert load_latest(tmp_path, description="job").iteration == 9


def test_weights_of_another_job_are_not_loaded(tmp_path):
    """The folder may be shared"""
    save(tmp_path, state(description="another"), attempt=1)
    assert load_latest(tmp_path, description="job") is None


def test_a_torn_file_is_passed_over(tmp_path):
    """Half a file, or something else of that name, is no state"""
    whole = save(tmp_path, state(5), attempt=1).read_bytes()
    (tmp_path / "weights-000002.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "weights-000003.pt").write_bytes(b"")
    assert load_latest(tmp_path, description="job").iteration == 5


def test_a_damaged_file_is_passed_over_wherever_the_damage_is(tmp_path):
    """A wrong byte among the numbers, which torch would take, as well as what its reader fails over"""
    path = save(tmp_path, state(5), attempt=1)
    whole = path.read_bytes()
    another = whole.replace(struct.pack("<d", 1.5), struct.pack("<d", 1.25))  # a loss
    assert another != whole
    for damaged in (another, b"\x80\x02.", b"0\x86", b"1" * 64):
        path.write_bytes(damaged)
        assert load_latest(tmp_path, description="job") is None


class Code:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("this must never be printed",)


def test_a_file_that_carries_code_is_not_loaded(tmp_path, capsys):
    """weights_only=True refuses it"""
    torch.save({"format": 1, "model": Code()}, tmp_path / "weights-000001.pt")
    assert load_latest(tmp_path, description="job") is None
    assert capsys.readouterr().out == ""


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    """OSError, no partial file, the state before is still there"""
    save(tmp_path, state(1), attempt=1)

    def full(_record, stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights_file.torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, replace(state(2), iteration=2), attempt=1)
    assert load_latest(tmp_path, description="job").iteration == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]
