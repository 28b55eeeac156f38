"""The trainer: an iterator of epochs. The caller prints, reports, checkpoints or stops.

    for epoch in Trainer(config, folder).epochs():
        print(epoch.clean_accuracy, epoch.robust_accuracy)

The trainer knows Accelerate and not Ray. Every epoch is a pure function of (config, epoch, state at
its beginning): seeds derived from the run's seed and the epoch's number draw its batches,
augmentation and attack noise. So a checkpoint holds no random state. A run that was killed and
resumed equals the uninterrupted run, bit for bit on one CPU; on a GPU, which adds in any order, the
two differ by rounding.
"""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rkdsearch import data
from rkdsearch.accuracy import ImageResults, TeacherReliability
from rkdsearch.attacks import Noise
from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity, fidelity_at
from rkdsearch.errors import CheckpointError, NonFiniteLossError, OutOfMemoryError
from rkdsearch.local_path import local_path
from rkdsearch.pace import Pace
from rkdsearch.results.rows import Checks
from rkdsearch.teacher import load
from rkdsearch.training import microbatches, setup
from rkdsearch.training.attack_start import probe_start
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.epoch_losses import EpochLosses
from rkdsearch.training.precision import WEIGHT_DTYPES
from rkdsearch.training.run_checkpoints import RunCheckpoints
from rkdsearch.training.schedules import lr_factor
from rkdsearch.training.seeds import derived_seed, seed_generators
from rkdsearch.training.state import State
from rkdsearch.training.validation import Validator, with_validation


class Trainer:
    """One run of `config`, resumed from `folder` and saved there after every epoch.

    Without a `folder` nothing is saved. `splits` are images in memory (`data.splits_of`), where
    `data.name` is `arrays`. Each of the `fidelities` is trained and validated as it says, and ends
    with a validation; the run ends with the last one. `node` is the machine's name in rows. Raises
    ConfigError, DataError or TeacherError where the run cannot be set up, OutOfMemoryError where it
    does not fit.
    """

    @OutOfMemoryError.in_block(
        "before the first epoch",
        "the networks and the training images must fit; does another program use it?",
    )
    def __init__(
        self,
        config: TrainConfig,
        folder: str | Path | None = None,
        *,
        fidelities: Sequence[Fidelity] = (),
        splits: data.Splits | None = None,
        node: str | None = None,
    ) -> None:
        self.config, self.node = config, node or platform.node()
        self.folder = None if folder is None else local_path(folder)
        self._fidelities = tuple(fidelities)
        parts = setup.build_run(config, splits)
        self.accelerator, self.splits = parts.accelerator, parts.splits
        self.device = self.accelerator.device
        self.processes, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.student, self.size = parts.student, parts.size
        self.teachers, self.teacher_hashes = parts.teachers, parts.teacher_hashes
        self.objective, self.average = parts.objective, parts.average
        self.optimizers, self._own_schedules = parts.optimizers, parts.own_schedules
        self._trained = [
            p
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        ]
        self._state = State(self.objective, self.optimizers, self.average)
        probe_start(config, self.objective, self.splits)
        # The networks are on their device already. Accelerate would import half of
        # torch.distributed to find that out.
        self._forward = self.accelerator.prepare_model(self.objective, device_placement=False)
        self._batches = parts.batches
        self._validator = Validator(
            config,
            self.splits,
            self.accelerator,
            self.teachers.get("robust"),
            counts=[
                fidelity.validation(config.validation).images
                for fidelity in (Fidelity(epochs=config.training.epochs), *self._fidelities)
            ],
        )
        self._teacher_logits = setup.known_logits(config, self.splits, self.teachers)
        self._checkpoints = (
            None
            if self.folder is None
            else RunCheckpoints(
                self.folder, config, self.splits, self.teacher_hashes, self._fidelities
            )
        )
        self.history: list[EpochResult] = []

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return len(self._batches)

    @property
    def last(self) -> Path | None:
        """The checkpoint to resume from."""
        return None if self._checkpoints is None else self._checkpoints.last

    def epochs(self) -> Iterator[EpochResult]:
        """The epochs that are left to do.

        Raises NonFiniteLossError and OutOfMemoryError; the checkpoint of the epoch before stays.
        """
        self.resume()
        self._check_same_start()
        end = self._fidelities[-1].epochs if self._fidelities else self.config.training.epochs
        training = self.config.training
        remedy = (
            f"lower training.batch_size (now {training.batch_size}), raise training.microbatches"
            f" (now {training.microbatches}; BatchNorm then sees parts), or set training.precision"
            " to bf16; each of these begins the run anew, in a folder of its own"
        )
        for epoch in range(len(self.history), end):
            # The validation attack depends on none of these values: it splits its batches itself,
            # and raises its own sentence.
            with OutOfMemoryError.in_block(f"epoch {epoch + 1}", remedy):
                result = self._epoch(epoch)
            self.history.append(result)
            self._save()
            yield result

    def _epoch(self, epoch: int) -> EpochResult:
        started = time.perf_counter()
        training = self.config.training
        fidelity = fidelity_at(self._fidelities, epoch + 1)
        attack = fidelity.attack(self.config.attack)
        self.objective.attack = attack.build()
        losses = EpochLosses(self.accelerator)
        images, factor = self._train(epoch, losses)
        # The first read of any loss: until here nothing has waited for the device.
        self._check_finite(losses, epoch)
        loss, terms = losses.means()
        trained = time.perf_counter() - started
        # Where the validation protocol changed, best-epoch tracking restarts.
        last = fidelity_at(self._fidelities, epoch)
        comparable = fidelity.same_validation(
            last, self.config.validation, len(self.splits.validation)
        )
        before = self.history[-1] if self.history and comparable else None
        result = EpochResult(
            epoch=epoch + 1,
            epochs=training.epochs,
            loss=loss,
            terms=terms,
            lr=self.config.optimizer.lr * factor,
            seconds=trained,
            images_per_second=images / trained,
            training_attack_steps=attack.steps,
            processes=self.processes,
            node=self.node,
            best=before.best if before else None,
            robust_peak=before.robust_peak if before else None,
        )
        if (
            epoch + 1 in (training.epochs, *(known.epochs for known in self._fidelities))
            or (epoch + 1) % self.config.validation.every == 0
        ):
            result = self._validated(result, fidelity)
        if epoch + 1 == training.epochs and self.rank == 0:
            result = replace(result, checks=self._checks_of_best(result))
        return replace(result, seconds=time.perf_counter() - started, finished=time.time())

    def _train(self, epoch: int, losses: EpochLosses) -> tuple[int, float]:
        """Train one epoch's batches; returns the number of images and the last factor on the rate.

        Nothing waits for the device.
        """
        training = self.config.training
        # Each process has its own images and its own dropout.
        purpose = f"global {self.rank}" if self.rank else "global"
        seed_generators(self.device, derived_seed(training.seed, purpose, epoch))
        generator = torch.Generator(device=self.device)
        generator.manual_seed(derived_seed(training.seed, "attack", epoch))
        noise = Noise(generator, self.rank, self.processes)
        self.objective.train()
        images, steps, factor = 0, len(self._batches), 1.0
        pace = Pace(f"epoch {epoch + 1}: {{}} batches", steps)
        for step, batch in enumerate(self._batches.epoch(epoch)):
            factor = lr_factor(
                self.config.schedule,
                epoch=epoch,
                within=step / steps,
                step=1 / steps,
                epochs=training.epochs,
            )
            self._set_lr(factor, epoch)
            losses.add(*self._step(batch, noise, epoch, factor))
            images += len(batch.y) * self.processes
            if self.average is not None:
                self.average.after_step(self.student)
            pace.at(step + 1)
        self.config.method.end_epoch(
            self.objective.memory, epoch=epoch, epochs=training.epochs, lr_factor=factor
        )
        self._average_statistics(self.objective)
        if self.average is not None:
            self.average.after_epoch(self.student, epoch)
        return images, factor

    def _step(
        self, batch: data.Batch, noise: Noise, epoch: int, factor: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # `zero_grad` of the optimizers, without their profiling hooks.
        for parameter in self._trained:
            parameter.grad = None
        x = data.to_layout(batch.x, channels_last=self.config.training.channels_last)
        if x is not batch.x:  # `replace` is slow
            batch = replace(batch, x=x)
        if self.config.training.precision == "fp64":
            batch = replace(batch, x=batch.x.double())
        found: list[tuple[float, Tensor, dict[str, Tensor]]] = []
        parts = microbatches.parts(batch, self.config.training.microbatches)
        for number, (part, share) in enumerate(parts):
            teacher_logits = {
                role: table.index_select(0, part.index)
                for role, table in self._teacher_logits.items()
            }
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self._forward):
                total, terms = self._forward(
                    part,
                    noise,
                    epoch=epoch,
                    lr_factor=factor,
                    teacher_logits=teacher_logits,
                    share=share,
                    last_part=last,
                )
                self.accelerator.backward(total if share == 1 else total * share)
            found.append((share, total.detach(), terms))
        if self.config.optimizer.gradient_clip is not None:
            # Each optimizer by itself: no companion shortens the student's step.
            for optimizer in self.optimizers:
                mine = [p for group in optimizer.param_groups for p in group["params"]]
                self.accelerator.clip_grad_norm_(mine, self.config.optimizer.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return microbatches.together(found)

    def _set_lr(self, factor: float, epoch: int) -> None:
        for optimizer, own in zip(self.optimizers, self._own_schedules, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (
                    factor if own is None else own(epoch, self.config.training.epochs)
                )

    def _check_finite(self, losses: EpochLosses, epoch: int) -> None:
        """Raise NonFiniteLossError where a loss or weight is not finite; it is not saved."""
        fault = losses.non_finite(self.objective.parameters())
        if fault is None:
            return
        if epoch == 0:
            left = "no epoch was finished before"
        elif self.folder is None:
            left = "this run keeps no checkpoint"
        else:
            left = f"the checkpoint of epoch {epoch} is intact"
        raise NonFiniteLossError(
            f"epoch {epoch + 1}, {fault}; likely causes: optimizer.lr (now"
            f" {self.config.optimizer.lr:g}) too high, a method weight too large, or bf16 where"
            f" fp32 is needed; {left}"
        )

    # --------------------------------------------------------------------------------- validation

    def _validated(self, result: EpochResult, fidelity: Fidelity) -> EpochResult:
        images, reliability = self.validate(fidelity)
        return with_validation(
            result,
            images,
            reliability,
            select=self.config.validation.select,
            attack_steps=fidelity.validation(self.config.validation).attack.steps,
        )

    def validate(
        self, fidelity: Fidelity | None = None
    ) -> tuple[ImageResults, TeacherReliability | None]:
        """Results on validation images, of the average where there is one, else of the student.

        By the config's protocol, or as `fidelity` has it.
        """
        protocol = self.config.validation
        if fidelity is not None:
            protocol = fidelity.validation(protocol)
        network = self._delivered()
        network.eval()
        return self._validator.evaluate(network, protocol)

    def _checks_of_best(self, result: EpochResult) -> Checks | None:
        """The checks behind flags, of the best epoch's network; None where no file holds it."""
        assert result.best is not None, "the last epoch is validated"
        if result.best.epoch == result.epoch:
            network = self._network
        elif self._checkpoints is not None and self._checkpoints.best.exists():
            best, task = self._checkpoints.best, self.splits.train.task
            network = load(best, self.config.student, task)
            setup.place(network, self.config, self.device)
        else:
            return None
        return self._validator.check(network.eval())

    @property
    def _network(self) -> nn.Module:
        """The network to deliver: the average where there is one, else the student."""
        return self.student if self.average is None else self.average.network

    def _delivered(self) -> nn.Module:
        """The network to validate and deliver; an average gets new BatchNorm statistics."""
        if self.average is None:
            return self.student
        # Always the images of the first epoch: the average's accuracy must not depend on when it is
        # validated.
        training = self.config.training
        images = (
            data.to_layout(batch.x, channels_last=training.channels_last)
            for batch in self._batches.epoch(0)
        )
        dtype = WEIGHT_DTYPES[training.precision]
        self.average.reestimate_batchnorm(x.to(dtype) for x in images)
        self._average_statistics(self.average.network)
        return self.average.network

    def _average_statistics(self, network: nn.Module) -> None:
        """Set BatchNorm's running statistics to their means over the processes of the run."""
        if self.processes > 1:
            for name, buffer in network.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.copy_(self.accelerator.reduce(buffer, "mean"))

    # -------------------------------------------------------------------------------- checkpoints

    def _save(self) -> None:
        if self._checkpoints is not None and self.rank == 0:
            self._checkpoints.save(self._state, self._network, self.history)

    def resume(self) -> list[EpochResult]:
        """Restore the run in the folder, if there is one; returns its finished epochs.

        `epochs` calls it. Raises CheckpointError where the folder's checkpoint is damaged or
        belongs to another run.
        """
        if not self.history and self._checkpoints is not None:
            self.history = self._checkpoints.resume(self._state, writes=self.rank == 0)
        return self.history

    def _check_same_start(self) -> None:
        """Raise CheckpointError where processes would begin with different epochs.

        A process that does not see the first one's folder begins with the first epoch, and all
        processes would wait for each other for ever.
        """
        if self.processes > 1:
            # not by a reduction to the maximum: Accelerate sums instead before 1.14
            done = torch.tensor([len(self.history)], device=self.device)
            seen = self.accelerator.gather(done).tolist()
            if min(seen) != max(seen):
                raise CheckpointError(
                    f"{self.last}: some processes see {max(seen)} finished epochs and others"
                    f" {min(seen)}; put the folder where all see it"
                )
