"""The trainer: an iterator of epochs. Whoever iterates prints, reports, checkpoints or stops.

    for epoch in Trainer(config, folder).epochs():
        print(epoch.clean_accuracy, epoch.robust_accuracy)

It knows Accelerate and nothing of Ray. Every epoch is a pure function of (config, epoch, state at
its beginning): batches, augmentation and attack noise are drawn from seeds derived from the run's
seed and the epoch's number. So a checkpoint holds no random state, and a run that was killed and
resumed is, bit for bit on one CPU, the run that never stopped; on a GPU, whose sums come in any
order, it is as good a run.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rkdsearch import data, models
from rkdsearch.accuracy import ImageResults, TeacherReliability, evaluate_accuracy
from rkdsearch.attacks import Noise
from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.config.fidelity import Fidelity, fidelity_at
from rkdsearch.data.splits import stratified_subset
from rkdsearch.errors import CheckpointError, ConfigError, NonFiniteLossError, OutOfMemoryError
from rkdsearch.methods import Method
from rkdsearch.pace import Pace
from rkdsearch.teacher import Role, fingerprint
from rkdsearch.training import checkpoint, microbatches
from rkdsearch.training.averaging import Average
from rkdsearch.training.epoch import Best, EpochResult
from rkdsearch.training.objective import TrainingObjective
from rkdsearch.training.optimizers import build_optimizers
from rkdsearch.training.process_cache import (
    DTYPES,
    accelerator_for,
    answers_of,
    frozen_teacher,
    loaded_teacher,
    version_of,
)
from rkdsearch.training.schedules import lr_factor
from rkdsearch.training.state import State
from rkdsearch.training.student import build_student

# one exam for all: every epoch of every trial meets the same random starts
VALIDATION_SEED = 20_210_600


class Trainer:
    """One run of `config`; with a `folder`, it keeps `last.safetensors` and `best.safetensors` there and resumes from the former.

    With `fidelities`, each is trained and judged as it says and ends with a validation; the run ends
    with the last one.
    """

    @OutOfMemoryError.told(
        "before the first epoch",
        "the networks and the training images must fit; does another program use it?",
    )
    def __init__(
        self,
        config: TrainConfig,
        folder: str | Path | None = None,
        *,
        fidelities: Sequence[Fidelity] = (),
    ) -> None:
        training = config.training
        self.config = config
        self.folder = None if folder is None else Path(folder)
        self._fidelities = tuple(fidelities)
        self.accelerator = accelerator_for(config)
        self.device = self.accelerator.device
        self.processes, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.splits = data.load_training(config.data)
        torch.manual_seed(training.seed)
        train = self.splits.train
        self.student = build_student(config, train)
        self.size = models.size_of(config.student, train.task)
        if self.processes > 1 and training.batchnorm_across == "synchronised":
            if self.device.type != "cuda":
                raise ConfigError(
                    "training.batchnorm_across must be 'averaged' on CPU, got 'synchronised':"
                    " torch's SyncBatchNorm needs GPUs"
                )
            self.student = nn.SyncBatchNorm.convert_sync_batchnorm(self.student)  # type: ignore[no-untyped-call]
        self.teachers = {role: self._teacher(role) for role in config.asked_teachers}
        self.teacher_hashes = {role: self._sha256(role) for role in self.teachers}
        self._place(self.student)
        example = torch.zeros(1, *train.task.shape, dtype=DTYPES[training.precision])
        companions = config.method.companions(
            self.student, self._unfolded_teachers(), example.to(self.device)
        )
        for companion in companions.values():
            self._place(companion.module)
        modules = {name: companion.module for name, companion in companions.items()}
        self.objective = TrainingObjective(
            config, self.student, modules, self.teachers, self.processes
        )
        self.optimizers = build_optimizers(config.optimizer, self.student, companions)
        self._trained = [
            p
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        ]
        self._own_schedules = [None, *(c.schedule for c in companions.values() if c.own_optimizer)]
        self.average = (
            None
            if config.averaging.name == "none"
            else Average(config.averaging, self.student, training.epochs)
        )
        self._state = State(self.objective, self.optimizers, self.average)
        self._forward = self.accelerator.prepare(self.objective)
        self._batches = data.Batches(
            train,
            batch_size=training.batch_size,
            seed=training.seed,
            augment=config.data.augment,
            extra=self.splits.extra,
            extra_fraction=config.data.extra_fraction,
            device=self.device,
            rank=self.rank,
            processes=self.processes,
        )
        self._validation: dict[int | None, tuple[data.FloatImages, Tensor]] = {}
        # A number of images that is impossible is refused before any training.
        for fidelity in (Fidelity(epochs=training.epochs), *self._fidelities):
            self._validation_images(fidelity.validation(config.validation).images)
        self._answers = self._clean_answers()
        self.history: list[EpochResult] = []

    @property
    def batches(self) -> int:
        """How many an epoch has."""
        return len(self._batches)

    # ------------------------------------------------------------------------------------------------------------ the loop

    def epochs(self) -> Iterator[EpochResult]:
        """The epochs that are left to do. Raises NonFiniteLossError and OutOfMemoryError; the last good checkpoint stays."""
        self.resume()
        self._agree_where_to_begin()
        end = self._fidelities[-1].epochs if self._fidelities else self.config.training.epochs
        training = self.config.training
        remedy = (
            f"lower training.batch_size (now {training.batch_size}), raise training.microbatches"
            f" (now {training.microbatches}; BatchNorm then sees parts), or set training.precision"
            " to bf16; each of these begins the run anew, in a folder of its own"
        )
        for epoch in range(len(self.history), end):
            # The exam, which none of these values touches, has its own way with memory, and its own
            # sentence.
            with OutOfMemoryError.told(f"epoch {epoch + 1}", remedy):
                result = self._epoch(epoch)
            self.history.append(result)
            self._save(result)
            yield result

    def _epoch(self, epoch: int) -> EpochResult:
        training, schedule, started = (
            self.config.training,
            self.config.schedule,
            time.perf_counter(),
        )
        fidelity = fidelity_at(self._fidelities, epoch + 1)
        attack = fidelity.attack(self.config.attack)
        self.objective.attack = attack.build()
        # Each process has its own images, and its own dropout.
        _seed(
            self.device,
            _derive(training.seed, f"global {self.rank}" if self.rank else "global", epoch),
        )
        noise = Noise(
            torch.Generator(device=self.device).manual_seed(
                _derive(training.seed, "attack", epoch)
            ),
            self.rank,
            self.processes,
        )
        self.objective.train()
        losses: list[Tensor] = []
        terms: dict[str, list[Tensor]] = {}
        images, steps, factor = 0, len(self._batches), 1.0
        pace = Pace(f"epoch {epoch + 1}: {{}} batches", steps)
        for step, batch in enumerate(self._batches.epoch(epoch)):
            factor = lr_factor(
                schedule, epoch=epoch, within=step / steps, step=1 / steps, epochs=training.epochs
            )
            self._set_lr(factor, epoch)
            loss, found = self._step(batch, noise, epoch, factor)
            losses.append(loss)
            for name, value in found.items():
                terms.setdefault(name, []).append(value)
            images += len(batch.y) * self.processes
            if self.average is not None:
                self.average.after_step(self.student)
            pace.at(step + 1)
        self.config.method.end_epoch(
            self.objective.memory, epoch=epoch, epochs=training.epochs, lr_factor=factor
        )
        self._average_batchnorm(self.objective)
        if self.average is not None:
            self.average.after_epoch(self.student, epoch)
        # The first look at any loss: until here nothing has waited for the device.
        self._all_finite(losses, epoch)
        loss_of_epoch, terms_of_epoch = self._means(losses, terms)
        trained = time.perf_counter() - started
        # What another protocol measured is no measure here: the best epoch is looked for anew.
        before = (
            self.history[-1]
            if self.history and fidelity.same_validation(fidelity_at(self._fidelities, epoch))
            else None
        )
        result = EpochResult(
            epoch=epoch + 1,
            epochs=training.epochs,
            loss=loss_of_epoch,
            terms=terms_of_epoch,
            lr=self.config.optimizer.lr * factor,
            seconds=trained,
            images_per_second=images / trained,
            training_attack_steps=attack.steps,
            processes=self.processes,
            best=before.best if before else None,
            robust_peak=before.robust_peak if before else None,
        )
        if (
            epoch + 1 in (training.epochs, *(known.epochs for known in self._fidelities))
            or (epoch + 1) % self.config.validation.every == 0
        ):
            result = self._validated(result, fidelity)
        return replace(result, seconds=time.perf_counter() - started, finished=time.time())

    def _step(
        self, batch: data.Batch, noise: Noise, epoch: int, factor: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        for parameter in self._trained:  # `zero_grad` of optimizers, without their profiling hooks
            parameter.grad = None
        # `replace` is slow
        if (
            x := data.to_layout(batch.x, channels_last=self.config.training.channels_last)
        ) is not batch.x:
            batch = replace(batch, x=x)
        if self.config.training.precision == "fp64":
            batch = replace(batch, x=batch.x.double())
        found: list[tuple[float, Tensor, dict[str, Tensor]]] = []
        parts = microbatches.parts(batch, self.config.training.microbatches)
        for number, (part, share) in enumerate(parts):
            answers = {
                role: table.index_select(0, part.index) for role, table in self._answers.items()
            }
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self._forward):
                total, terms = self._forward(
                    part,
                    noise,
                    epoch=epoch,
                    lr_factor=factor,
                    answers=answers,
                    share=share,
                    last_part=last,
                )
                self.accelerator.backward(total if share == 1 else total * share)
            found.append((share, total.detach(), terms))
        if self.config.optimizer.gradient_clip is not None:
            # a companion with its own is no business of the student's
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

    def _means(
        self, losses: list[Tensor], terms: Mapping[str, list[Tensor]]
    ) -> tuple[float, dict[str, float]]:
        """Loss and terms of the epoch: means over its batches and over all processes."""
        names = sorted(terms)
        means = torch.stack(
            [
                torch.stack(values).double().mean()
                for values in (losses, *(terms[name] for name in names))
            ]
        )
        if self.processes > 1:
            means = self.accelerator.reduce(means, "mean")
        loss, *values = means.tolist()
        return loss, dict(zip(names, values, strict=True))

    def _all_finite(self, losses: list[Tensor], epoch: int) -> None:
        """Raise NonFiniteLossError, on every process alike, where a loss or a weight is not a finite number: such a state is never saved."""
        steps = torch.stack(losses)
        weights = torch.stack(
            [p.detach().isfinite().all() for p in self.objective.parameters()]
        ).all()
        bad = torch.cat([steps.isfinite().logical_not(), weights.logical_not()[None]]).int()
        if self.processes > 1:
            bad = self.accelerator.reduce(bad, "sum")
        found = bad.nonzero().flatten().tolist()
        if not found:
            return
        place = min(found[0], len(losses) - 1)
        if found[0] == len(losses):
            what = "the weights are not finite after its step"
        else:
            what = (
                "the loss of another process is not finite"
                if steps[place].isfinite()
                else f"the loss is {float(steps[place])}"
            )
        left = (
            "this run keeps no checkpoint"
            if self.folder is None
            else f"the checkpoint of epoch {epoch} is intact"
        )
        raise NonFiniteLossError(
            f"epoch {epoch + 1}, batch {place + 1}: {what}; likely causes: optimizer.lr (now"
            f" {self.config.optimizer.lr:g}) too high, a method weight too large, or bf16 where"
            f" fp32 is needed; {left if epoch else 'no epoch was finished before'}"
        )

    # ------------------------------------------------------------------------------------------------------------ judging

    def _validated(self, result: EpochResult, fidelity: Fidelity) -> EpochResult:
        verdict, reliability = self.validate(fidelity)
        best = Best(
            result.epoch,
            verdict.clean_accuracy,
            verdict.robust_accuracy,
            verdict.worst_class_accuracy,
        )
        select = self.config.validation.select
        if result.best is not None and result.best.merit(select) >= best.merit(select):
            best = result.best
        return replace(
            result,
            clean_accuracy=verdict.clean_accuracy,
            robust_accuracy=verdict.robust_accuracy,
            worst_class_accuracy=verdict.worst_class_accuracy,
            reliability=reliability,
            best=best,
            robust_peak=max(result.robust_peak or 0.0, verdict.robust_accuracy),
            images=len(verdict.y),
            validation_attack_steps=fidelity.validation(self.config.validation).attack.steps,
        )

    def validate(
        self, fidelity: Fidelity | None = None
    ) -> tuple[ImageResults, TeacherReliability | None]:
        """The exam on validation images, as the config or a stage of it has it, of the average where there is one, else of the student."""
        network = self._delivered()
        network.eval()
        judged = (
            self.config.validation
            if fidelity is None
            else fidelity.validation(self.config.validation)
        )
        x, y = self._validation_images(judged.images)
        exam = judged.attack
        folded = models.fold(network)
        return evaluate_accuracy(
            folded,
            x,
            y,
            exam.build(),
            restarts=exam.restarts,
            seed=VALIDATION_SEED,
            teacher=self.teachers.get("robust"),
            rank=self.rank,
            processes=self.processes,
            sum_over_processes=lambda counts: (
                self.accelerator.reduce(counts) if self.processes > 1 else counts
            ),
        )

    def _delivered(self) -> nn.Module:
        if self.average is None:
            return self.student
        # Always the same images: what an average is worth must not depend on when it is asked.
        training = self.config.training
        images = (
            data.to_layout(batch.x, channels_last=training.channels_last)
            for batch in self._batches.epoch(0)
        )
        self.average.reestimate_batchnorm(x.to(DTYPES[training.precision]) for x in images)
        self._average_batchnorm(self.average.network)
        return self.average.network

    def _average_batchnorm(self, network: nn.Module) -> None:
        """All processes take the mean of their running statistics: the network that is judged is one network."""
        if self.processes > 1:
            for name, buffer in network.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.copy_(self.accelerator.reduce(buffer, "mean"))

    # ------------------------------------------------------------------------------------------------------------ checkpoints

    @property
    def last(self) -> Path | None:
        """The checkpoint to resume from."""
        return None if self.folder is None else self.folder / "last.safetensors"

    @property
    def _best(self) -> Path:
        assert self.folder is not None
        return self.folder / "best.safetensors"

    def _save(self, result: EpochResult) -> None:
        if self.folder is None or self.last is None or self.rank > 0:
            return
        # what a short epoch costs is less than to make sure, epoch after epoch, that a power cut
        # spares it
        lasting = result.seconds > 1
        if result.best is not None and result.best.epoch == result.epoch:
            delivered = self.student if self.average is None else self.average.network
            # Before `last`: killed in between, this epoch is repeated, and on a GPU it may be
            # another one. So the best of before is kept.
            described = {
                "config": self.config.to_dict(),
                "best": asdict(result.best),
                "split_sha256": self.splits.fingerprint,
            }
            checkpoint.write(self._best, delivered.state_dict(), described, keep=True, sync=lasting)
        state = {
            **self._identity,
            "history": [asdict(epoch) for epoch in self.history],
            "averaged": 0 if self.average is None else self.average.count,
        }
        checkpoint.write(self.last, self._state.tensors(), state, sync=lasting)
        checkpoint.kept(self._best).unlink(missing_ok=True)

    @property
    def _identity(self) -> dict[str, Any]:
        """By what a checkpoint is known as this run's."""
        return {
            "fingerprint": self.config.fingerprint(),
            "run": self.config.identity(),
            **self.splits.hashes,
            "teachers": self.teacher_hashes,
            "fidelities": [fidelity.model_dump() for fidelity in self._fidelities],
        }

    def resume(self) -> list[EpochResult]:
        """Take up the run in the folder, if there is one; returns its finished epochs. `epochs` does this by itself."""
        if self.history or self.last is None or not self.last.exists():
            return self.history
        tensors, state = checkpoint.read(self.last)
        checkpoint.refuse_another(self.last, state, self._identity)
        self._state.restore(tensors, averaged=state["averaged"])
        self.history = [EpochResult.from_dict(epoch) for epoch in state["history"]]
        if self.rank == 0:
            old = checkpoint.kept(self._best)
            if old.exists() and not (
                self._best.exists()
                and checkpoint.state_of(self._best)["best"]["epoch"] <= len(self.history)
            ):
                old.replace(self._best)  # the newer one is of an epoch that was not saved
            checkpoint.sweep(self.last.parent)
        return self.history

    def _agree_where_to_begin(self) -> None:
        """A process that does not see the folder of the first would train other epochs than the rest, and all would wait for ever."""
        if self.processes > 1:
            done = len(self.history)
            most = self.accelerator.reduce(
                torch.tensor([done, -done], device=self.device), "max"
            ).tolist()
            if most != [done, -done]:
                raise CheckpointError(
                    f"{self.last}: some processes see {most[0]} finished epochs and others"
                    f" {-most[1]}; put the folder where all see it"
                )

    # ------------------------------------------------------------------------------------------------------------ setting up

    def _place(self, network: nn.Module) -> None:
        network.to(self.device, DTYPES[self.config.training.precision])
        if self.config.training.channels_last:
            network.to(memory_format=torch.channels_last)

    def _teacher(self, role: Role) -> nn.Module:
        config: TeacherConfig = self.config.teachers.of(role)
        if config.path is None:
            raise ConfigError(
                f"teachers.{role} has a recipe and no path: `rkdsearch teacher train` makes the"
                " file, and so does `tune`"
            )
        training, version = self.config.training, version_of(Path(config.path))
        return frozen_teacher(
            config,
            version,
            self.splits.train.task,
            training.precision,
            str(self.device),
            training.channels_last,
        )

    def _sha256(self, role: Role) -> str:
        config: TeacherConfig = self.config.teachers.of(role)
        return config.sha256 or fingerprint(Path(str(config.path)))

    def _unfolded_teachers(self) -> dict[str, nn.Module]:
        """The teachers with their BatchNorm, read anew and kept by nobody but the companions that copy them; none where no method looks."""
        if type(self.config.method).companions is Method.companions:
            return {}
        task, precision = self.splits.train.task, self.config.training.precision
        return {
            role: loaded_teacher(self.config.teachers.of(role), task, precision, str(self.device))
            for role in self.teachers
        }

    def _validation_images(self, count: int | None) -> tuple[data.FloatImages, Tensor]:
        """So many of all classes: a file's first ones may be of one class. Laid out channels last, as bytes are."""
        if count not in self._validation:
            images = self.splits.validation
            rows = stratified_subset(
                images.labels.numpy(),
                count,
                seed=self.config.data.split_seed,
                field="validation.images",
            )
            chosen = images.take(torch.from_numpy(rows)).to(self.device)
            training = self.config.training
            x = data.FloatImages(
                chosen, self.device, DTYPES[training.precision], training.channels_last
            )
            self._validation[count] = x, chosen.labels.to(self.device)
        return self._validation[count]

    @torch.no_grad()
    def _clean_answers(self) -> dict[str, Tensor]:
        """Each teacher's logits for every training image, where images come back unchanged every epoch."""
        if self.config.data.augment != "none" or self.splits.extra is not None:
            return {}
        # The network itself stands for its file, precision, device and memory layout.
        key = (self.config.data.name, self.config.data.root, self.splits.fingerprint)
        train, channels_last = self.splits.train, self.config.training.channels_last
        return {
            role: answers_of(network, key, train, channels_last)
            for role, network in self.teachers.items()
        }


def _seed(device: torch.device, seed: int) -> None:
    """As `torch.manual_seed`, which formats a stack for every kind of device that is not there: more time than a small network's batch takes."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _derive(seed: int, purpose: str, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {epoch}".encode()).digest()[:7], "big")
