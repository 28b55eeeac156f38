"""Decisions about the trials of a study at its rungs: made by the scheduler, kept in the ledger."""

from datetime import UTC, datetime

from rkdsearch.results.rows import DecisionRow
from rkdsearch.results.states import Decision, Origin
from rkdsearch.search.ledger import Ledger
from rkdsearch.search.longer import REPEATS
from rkdsearch.search.scheduler import Rung, Scheduler
from rkdsearch.search.shares import Shares
from rkdsearch.search.trial import Trial
from rkdsearch.space import check
from rkdsearch.space.space import SearchSpace


class Decisions:
    """Decisions of `scheduler` about the trials of `ledger`. Replicates are never decided about."""

    def __init__(
        self, ledger: Ledger, space: SearchSpace, scheduler: Scheduler, shares: Shares
    ) -> None:
        self.scheduler = scheduler
        self._shares = shares
        self._ledger = ledger
        self._objectives = space.objectives

    def rung_of(self, trial: Trial) -> Rung | None:
        """Rung at which the trial is now, if any."""
        epochs = trial.position[1]
        if trial.origin == Origin.REPLICATE or not trial.segment.has(epochs):
            return None
        return self.scheduler.at(epochs)

    def merits(self, trial: Trial, rung: Rung) -> tuple[float, ...] | None:
        """Values by which the trial is ranked on the rung; None where it was not reached."""
        return trial.merits_at(rung.epochs, self._objectives)

    def on_arrival(self, trial: Trial, rung: Rung) -> Decision:
        """Decide about a trial that has just reached the rung.

        Baselines always train on, and so do the best of a shorter full run.
        """
        if trial.trial_id in rung.promoted:
            # promoted before: a resumed trial reports the rung's epoch once more
            return Decision.CONTINUED
        values = self.merits(trial, rung)
        assert values is not None, "rungs are validated"
        self.rank(trial, rung, values)
        if _chosen(trial) is not None:
            rung.promoted.add(trial.trial_id)
        decision = self.scheduler.decide(rung, trial.trial_id)
        self.record(trial, rung, decision)
        return decision

    def rank(self, trial: Trial, rung: Rung, values: tuple[float, ...]) -> None:
        """Add the trial to the ranking of the rung.

        A baseline in its warm-up is left out: its values there mean nothing yet, and it would take
        the rank of a searched trial.
        """
        if trial.origin == Origin.SEARCH or rung.epochs > check.undecided_until(trial.config):
            # what always trains on takes no searched trial's place in its group
            group = self._shares.group(trial.config) if _chosen(trial) is None else None
            # among equals the cheaper one comes first, then the one that is right more often
            ties = (float(trial.config.attack.steps), -values[0])
            self.scheduler.record(rung, trial.trial_id, values, group, ties)

    def promote(self) -> Trial | None:
        """Promote the next paused trial, if any: it leaves its rung."""
        promotion = self.scheduler.next_promotion()
        if promotion is None:
            return None
        trial = self._ledger.trials[promotion.trial_id]
        promotion.rung.promoted.add(trial.trial_id)
        self.record(trial, promotion.rung, Decision.PROMOTED)
        trial.leave_rung()
        return trial

    def record(self, trial: Trial, rung: Rung, decision: Decision) -> None:
        """Write the decision, with the values that it was based on."""
        reached = trial.epoch_at(rung.epochs)
        assert reached is not None, "the trial is at the rung"
        best = reached.best
        assert best is not None, "rungs are validated"
        ranked = trial.trial_id in rung.values
        rank = self.scheduler.rank(rung, trial.trial_id) if ranked else None
        trial.decisions.append(
            DecisionRow(
                epochs=rung.epochs,
                decision=decision,
                rule=_chosen(trial) or self.scheduler.rule,
                decided=datetime.now(UTC),
                objectives={**best.accuracies, **trial.costs},
                best_epoch=best.epoch,
                rank=None if rank is None else rank.rank,
                of=None if rank is None else rank.of,
                training_attack_steps=reached.training_attack_steps,
                validation_attack_steps=reached.validation_attack_steps
                or trial.config.validation.attack.steps,
                validation_images=reached.images,
            )
        )
        self._ledger.write_decisions(trial)


def _chosen(trial: Trial) -> str | None:
    """The rule by which a trial always trains on; None where the scheduler decides."""
    if trial.origin == Origin.BASELINE:
        return "baseline: always full length"
    return "contender of a shorter full run: always full length" if REPEATS in trial.notes else None
