"""Evaluation jobs: a network under an attack with a seed, and their rows."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from rkdsearch.attacks import BALLS, Norm
from rkdsearch.errors import ConfigError
from rkdsearch.evaluation.attacks import PlannedAttack
from rkdsearch.evaluation.blocks import BlockResult, EvaluationJob
from rkdsearch.evaluation.images import EvaluatedImages
from rkdsearch.evaluation.targets import EvaluationTarget, Targets, without
from rkdsearch.provenance import Provenance
from rkdsearch.results.columns import cells_of
from rkdsearch.results.flags import raised
from rkdsearch.results.intervals import wilson
from rkdsearch.results.rows import Checks, EvaluationRow, EvaluationRun
from rkdsearch.results.states import EvaluationAttack

# Teachers are attacked, so that a student can be compared with its teacher, but by no attack that
# takes hours, or is made on themselves.
_FOR_STUDENTS = ("autoattack", "transfer")


def evaluation_jobs(
    targets: Targets,
    attacks: Sequence[EvaluationAttack],
    *,
    seeds: int = 1,
    eps: Sequence[float] = (),
    norm: Norm | None = None,
) -> list[EvaluationJob]:
    """One job per network, attack, radius and seed.

    Clean images need one seed. Teachers skip AutoAttack and transfer. Without `eps`: each
    network's own ball. Raises ConfigError for a radius that no ball of this norm has.
    """
    return [
        EvaluationJob(
            target, attack, seed, without(targets.sources, target) if attack.sources else ()
        )
        for target in targets.networks
        for name in dict.fromkeys(attacks)
        if not (target.role is not None and name in _FOR_STUDENTS)
        for attack in planned(name, target, targets.sources, eps, norm)
        for seed in range(1 if name == "clean" else seeds)
    ]


def planned(
    name: EvaluationAttack,
    target: EvaluationTarget,
    sources: Sequence[EvaluationTarget],
    eps: Sequence[float],
    norm: Norm | None,
) -> list[PlannedAttack]:
    """The attack of this name on this target, once for each radius."""
    if name == "clean":
        return [PlannedAttack("clean")]
    own = target.config.validation.attack
    chosen = norm or own.norm
    if chosen != own.norm and not eps:
        raise ConfigError(
            f"--norm {chosen}: {target.trial_id} has a radius of {own.eps:g} in {own.norm}, which"
            f" says nothing about {chosen}; give --eps too"
        )
    largest = BALLS[chosen].largest_eps
    for radius in eps:
        if not 0 < radius <= largest:
            raise ConfigError(
                f"--eps must be > 0 and <= {largest:g} in {chosen} (pixels of [0, 1]; 8/255 is"
                f" 0.0314), got {radius:g}"
            )
    made_on = tuple(s.short_name for s in without(sources, target)) if name == "transfer" else ()
    if name == "transfer" and not made_on:
        raise ConfigError(
            f"--attacks transfer: there is no other network to attack {target.trial_id} from: it"
            " needs a teacher or another member of the front; leave transfer out"
        )
    return [
        PlannedAttack(name, chosen, radius, own.restarts, own.relative_step_size or 0.25, made_on)
        for radius in dict.fromkeys(eps or (own.eps,))
    ]


def key_of(job: EvaluationJob) -> tuple[object, ...]:
    """All that a job's result depends on besides the images."""
    attack = job.attack
    settings = attack.settings(job.target.task.classes)
    return (
        job.target.trial_id,
        job.target.sha256,
        job.target.config_sha256,
        attack.name,
        attack.norm,
        attack.eps,
        settings,
        job.seed,
    )


def known_keys(rows: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """The keys of rows of `evaluations/`."""
    return [
        (
            row["trial_id"],
            row["weights_sha256"],
            row["config_sha256"],
            row["attack"],
            row["norm"],
            row["eps"],
            json.loads(row["attack_settings"] or "null"),
            row["attack_seed"],
        )
        for row in rows
    ]


def row_of(
    job: EvaluationJob,
    blocks: Sequence[BlockResult],
    checks: Checks | None,
    images: EvaluatedImages,
    opening: str,
    code: Provenance,
) -> dict[str, object]:
    """The job's row in `evaluations/`, from its blocks in their order, and the network's checks."""
    right, y = np.concatenate([block.right for block in blocks]), images.pixels.labels
    target, attack, own = job.target, job.attack, job.target.config.validation.attack
    estimate = wilson(int(right.sum()), len(right))
    per_class = {
        images.classes[k]: [int(right[y == k].sum()), int((y == k).sum())] for k in np.unique(y)
    }
    parts = dict.fromkeys(name for block in blocks for name in block.survivors)
    row = EvaluationRow(
        trial_id=target.trial_id,
        label=target.label,
        training_seed=target.config.training.seed if target.role is None else None,
        checkpoint="best",
        split=images.split,
        dataset=images.name,
        attack=attack.name,
        attack_settings=attack.settings(target.task.classes),
        norm=attack.norm,
        eps=attack.eps,
        own_ball=attack.norm is None or (attack.norm, attack.eps) == (own.norm, own.eps),
        test_attack_steps=attack.steps,
        attack_seed=job.seed,
        images=len(right),
        of_images=images.of_images,
        correct=int(right.sum()),
        accuracy=float(right.mean()),
        low=estimate.low,
        high=estimate.high,
        worst_class_accuracy=min(correct / of for correct, of in per_class.values()),
        per_class=per_class,
        survivors={name: sum(block.survivors[name] for block in blocks) for name in parts},
        seconds=sum(block.seconds for block in blocks),
        flags=None if checks is None else raised(checks),
        check=checks,
        warnings=sorted({text for block in blocks for text in block.warnings}),
        seen=images.seen or None,
        per_image="".join("1" if r else "0" for r in right),
        subset_sha256=images.sha256,
        weights_sha256=target.sha256,
        config_sha256=target.config_sha256,
        opening=opening,
        evaluated=datetime.now(UTC),
        run=EvaluationRun(
            torch=blocks[0].torch,
            device=blocks[0].device,
            threads=blocks[0].threads,
            version=version("rkdsearch"),
            versions=code.versions,
            git_commit=code.git_commit,
            git_diff_sha256=code.git_diff_sha256,
            command=code.command,
        ),
    )
    return cells_of(row)
