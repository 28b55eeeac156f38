"""Tune's side of a trial: an actor that trains one epoch a call, and stays for the next trial."""

import os
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune
from typing_extensions import override

from rkdsearch.errors import RkdError, WorkerError
from rkdsearch.execution import messages
from rkdsearch.execution.failures import as_rkd_error
from rkdsearch.execution.gang import Gang
from rkdsearch.execution.messages import Answer, EpochReport, Notice, WorkOrder
from rkdsearch.execution.trial import run_order
from rkdsearch.training import checkpoint


class RayTrial(tune.Trainable):
    """A trial as Ray Tune steps it. Its config is a packed `WorkOrder`."""

    # True after an error that makes this process unusable.
    _unusable = False

    @override
    def __init__(self, *given: Any, **named: Any) -> None:
        # Trials stay in the folder in which the command was given: data and teachers may have
        # relative paths.
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
        super().__init__(*given, **named)

    @override
    def setup(self, config: dict[str, Any]) -> None:
        self._gang: Gang | None = None
        self._take(config)

    @override
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._config = config
        self._answers: Iterator[Answer] | None = None

    @override
    def step(self) -> dict[str, Any]:
        return messages.packed(self._next())

    def _next(self) -> Answer:
        if self._unusable:
            raise RuntimeError(
                "Tune ends an actor that raises; an actor whose trial was stopped would be given"
                " the next trial"
            )
        try:
            if self._answers is None:
                # Unpacked here, where a package that cannot be imported is the trial's failure.
                self._answers = self._begin(messages.unpacked(self._config))
            return next(self._answers)
        except ray.exceptions.RayTaskError as error:
            failure = as_rkd_error(error.cause)
            # The others only notice that their peer is gone: it is Ray's business, as below.
            lost = (
                self._gang.loss()
                if isinstance(failure, WorkerError) and self._gang is not None
                else None
            )
            self.cleanup()  # the gang's other processes may wait for the one that raised
            if lost is not None:  # as Ray says it: a preempted node is no failure of the trial
                raise lost from error
            return self._failure(failure)
        except ray.exceptions.RayError:
            # A worker or a node is gone: Ray starts the trial again, from its checkpoint.
            raise
        except StopIteration:
            return self._failure(RkdError("the trial was asked for an epoch beyond its last"))
        # One method's bug must not end a search of many: it is recorded, and not retried.
        except Exception as error:  # noqa: BLE001
            return self._failure(as_rkd_error(error))

    def _failure(self, error: RkdError) -> Answer:
        self._answers = None
        if isinstance(error, WorkerError):
            self._unusable = True
            self.cleanup()
        return messages.failure(error)

    def _begin(self, order: WorkOrder) -> Iterator[Answer]:
        # Before any process of a gang reads the checkpoint: the first that found it damaged would
        # move it while the others read.
        damage = checkpoint.put_aside(order.assignment.folder / "last.safetensors")
        if damage is not None:
            yield Notice(f"{damage}; its run is trained afresh")
        yield from self._reports(order)

    def _reports(self, order: WorkOrder) -> Iterator[EpochReport]:
        if order.resources.processes == 1:
            return run_order(order)
        if self._gang is None:
            self._gang = Gang(order.resources)
        return self._gang.run(order)

    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: the trainer writes its own checkpoints."""

    @override
    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Do nothing: the trainer finds its own checkpoints."""

    @override
    def cleanup(self) -> None:
        if self._gang is not None:
            self._gang.close()
            self._gang = None
