"""Checkpoints of one run: `last` to resume from, `best` to deliver; both checked to be its own."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from rkdsearch.config import TrainConfig, flatten_tree, stored_identity
from rkdsearch.config.fidelity import Fidelity, fidelity_at
from rkdsearch.data import Splits
from rkdsearch.errors import CheckpointError
from rkdsearch.teacher import Role
from rkdsearch.training import checkpoint
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.state import State

# Parts of a run that its config does not pin, with the words of the error.
_PARTS = {
    "split_sha256": "other images",
    "pixels_sha256": "other pixels",
    "extra_sha256": "another data.extra",
    "teachers": "other teachers",
}
# Names that versions before schema 2 gave to the fields of a fidelity.
_FIDELITY_FIELDS = {
    "until": "epochs",
    "attack_steps": "training_attack_steps",
    "validation_steps": "validation_attack_steps",
}


class RunCheckpoints:
    """`last.safetensors` and `best.safetensors` in the folder of one run."""

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        splits: Splits,
        teacher_hashes: Mapping[Role, str],
        fidelities: Sequence[Fidelity],
    ) -> None:
        self.last = folder / "last.safetensors"
        self.best = folder / "best.safetensors"
        self._config = config
        self._splits = splits
        self._identity: dict[str, Any] = {
            "fingerprint": config.fingerprint(),
            "run": config.identity(),
            **splits.hashes,
            "teachers": dict(teacher_hashes),
            "fidelities": [fidelity.model_dump() for fidelity in fidelities],
        }

    def save(
        self,
        state: State,
        network: nn.Module,
        history: Sequence[EpochResult],
    ) -> None:
        """Save the state after the last epoch of `history`, and `network` if that epoch is best.

        Raises DiskError, and leaves the checkpoints of the epoch before.
        """
        result = history[-1]
        # fsync only when an epoch took longer than 1 s: a power cut costs a shorter one less than
        # fsync costs every epoch.
        sync = result.seconds > 1
        if result.best is not None and result.best.epoch == result.epoch:
            # Before `last`: a run that is killed in between repeats this epoch, on a GPU perhaps
            # with another result. So the best network of before is kept.
            described = {
                "config": self._config.to_dict(),
                "best": asdict(result.best),
                "split_sha256": self._splits.fingerprint,
                **self._splits.train.described,
            }
            checkpoint.write(self.best, network.state_dict(), described, keep=True, sync=sync)
        metadata = {
            **self._identity,
            "history": [asdict(epoch) for epoch in history],
            "averaged": state.averaged,
        }
        checkpoint.write(self.last, state.tensors(), metadata, sync=sync)
        checkpoint.kept(self.best).unlink(missing_ok=True)

    def resume(self, state: State, *, writes: bool) -> list[EpochResult]:
        """Restore `state` and return the finished epochs; none where there is no checkpoint.

        The one process that `writes` also removes half-written files. Raises CheckpointError where
        the checkpoint is damaged or belongs to another run.
        """
        if not self.last.exists():
            return []
        tensors, metadata = checkpoint.read(self.last)
        refuse_another(self.last, metadata, self._identity)
        state.restore(tensors, averaged=metadata["averaged"])
        history = [EpochResult.from_dict(epoch) for epoch in metadata["history"]]
        if writes:
            self._restore_best(len(history))
            checkpoint.sweep(self.last.parent)
        return history

    def _restore_best(self, epochs: int) -> None:
        """Take back the kept best network where the newer one is of an epoch that was not saved."""
        kept = checkpoint.kept(self.best)
        if kept.exists() and not (
            self.best.exists() and checkpoint.state_of(self.best)["best"]["epoch"] <= epochs
        ):
            kept.replace(self.best)


def refuse_another(file: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise CheckpointError where `there`, the metadata of `file`, is not of the run `here`.

    Fields that an earlier version did not write are not compared, except the config's fingerprint.
    """
    was_run = stored_identity(there["run"]) if "run" in there else None
    if there.get("fingerprint") != here["fingerprint"] and was_run != here["run"]:
        different = "" if was_run is None else _first_difference(was_run, here["run"])
        raise CheckpointError(
            f"{file}: belongs to a run with another config{different}; give this run its own"
            " folder, or delete that file"
        )
    for name, words in _PARTS.items():
        if (was := there.get(name, here[name])) != here[name]:
            raise CheckpointError(
                f"{file}: belongs to a run with {words}: {name} was {json.dumps(was)}, is"
                f" {json.dumps(here[name])}; put the right ones back, or give this run its own"
                " folder"
            )
    fidelities = there.get("fidelities", there.get("stages"))  # `stages` in earlier versions
    if fidelities is not None and not _same_so_far(
        _described(fidelities), here["fidelities"], len(there.get("history", ()))
    ):
        raise CheckpointError(
            f"{file}: belongs to a run with other fidelities; give this run its own folder, or"
            " delete that file"
        )


def _described(fidelities: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The fidelities' values by their present names."""
    return [
        {_FIDELITY_FIELDS.get(name, name): value for name, value in fidelity.items()}
        for fidelity in fidelities
    ]


def _same_so_far(
    there: Iterable[Mapping[str, Any]], here: Iterable[Mapping[str, Any]], epochs: int
) -> bool:
    """True where the finished epochs had the caps that they would have now.

    Where a rung was put between others, only the ends of the fidelities differ.
    """
    was, now = [Fidelity(**f) for f in there], [Fidelity(**f) for f in here]
    if was == now:
        return True
    return bool(was and now and epochs <= now[-1].epochs) and all(
        fidelity_at(was, epoch).model_dump(exclude={"epochs"})
        == fidelity_at(now, epoch).model_dump(exclude={"epochs"})
        for epoch in range(1, epochs + 1)
    )


def _first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """`: optimizer.lr was 0.1, is 0.2`, of the first field in which two runs differ.

    Empty where all values agree and another version added a field.
    """
    was, now = flatten_tree(there), flatten_tree(here)
    different = [name for name in dict.fromkeys((*now, *was)) if was.get(name) != now.get(name)]
    return "".join(
        f": {name} was {json.dumps(was.get(name))}, is {json.dumps(now.get(name))}"
        for name in different[:1]
    )
