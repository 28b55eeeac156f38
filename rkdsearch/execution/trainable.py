"""What Ray Tune calls: a trial that is stepped, one epoch a call, in a process that stays warm between trials."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from typing_extensions import override

from rkdsearch.errors import DiskError, RkdError, WorkerError
from rkdsearch.execution.trial import Gang, reports, told
from rkdsearch.training import checkpoint


class RayTrial(tune.Trainable):
    """Ray Tune's side of a trial. Its config is JSON text under `assignment`: Ray has nothing to merge, flatten or print."""

    _over = False  # whether this process has met what no later trial may meet

    @override
    def setup(self, config: dict[str, Any]) -> None:
        self._gang: Gang | None = None
        self._take(config)

    @override
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._assignment = json.loads(config["assignment"])
        self._epochs: Iterator[dict[str, Any]] | None = None

    @override
    def step(self) -> dict[str, Any]:
        if self._over:
            raise RuntimeError(
                "Tune lets go of an actor that raises; one whose trial was stopped, it would give"
                " the next trial"
            )
        try:
            if self._epochs is None:
                self._epochs = self._begin()
            return next(self._epochs)
        except ray.exceptions.RayTaskError as error:
            self.cleanup()  # the gang's other processes may wait for the one that raised
            return self._failure(error.cause)
        except ray.exceptions.RayError:
            # a worker or a node is gone: Ray starts the trial again, and it goes on from its
            # checkpoint
            raise
        except StopIteration:
            return self._failure(RkdError("the trial was asked for an epoch beyond its last"))
        except Exception as error:  # noqa: BLE001 - one method's bug must not end a search of many; it is recorded, not retried
            return self._failure(told(error))

    def _failure(self, error: RkdError) -> dict[str, Any]:
        """What ends the trial; or, where the disk is full, the whole search: nothing is wrong with the trial then."""
        self._epochs = None
        if isinstance(error, WorkerError):
            self._over = True
            self.cleanup()
        sentence = " ".join(str(error).split())
        return (
            {"disk": sentence}
            if isinstance(error, DiskError)
            else {"error": sentence, "failure": error.failure}
        )

    def _begin(self) -> Iterator[dict[str, Any]]:
        # Here, before any process of a gang looks: the first to find a damaged file would take it
        # from under the others.
        damage = checkpoint.put_aside(Path(self._assignment["folder"]) / "last.safetensors")
        said = {} if damage is None else {"notice": damage}
        for report in self._reports():
            yield report | said
            said = {}

    def _reports(self) -> Iterator[dict[str, Any]]:
        if self._assignment["processes"] == 1:
            return reports(self._assignment)
        if self._gang is None:
            self._gang = Gang(
                self._assignment["processes"], self._assignment["cpu"], self._assignment["gpu"]
            )
        return self._gang.reports(self._assignment)

    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own checkpoints, by its own name."""

    @override
    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: a trial finds its own checkpoints, by its own name."""

    @override
    def cleanup(self) -> None:
        if self._gang is not None:
            self._gang.close()
            self._gang = None
