"""Beliefs replayed on recorded digits runs: what published settings are worth on real curves.

    python analysis/benchmarks/replay.py [--orders 30]

Nobody can propose what was not recorded. So a proposal near a published setting is the next run
that was recorded near it (five a method), and any other is the next of those that were drawn from
the whole space. All rules train the six published settings first, and are charged for them. Prints
the hypervolume after shares of the compute that random full-length search needs for half of the
whole space's runs, in those that it ends with: medians over orders, which alone differ from replay
to replay.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from believed import Believing, Given, Overrides
from curves import Curve, Recorded, number_of, read
from record import DIGITS, TABLE
from rules import FULL, RANDOM, RULES, WHOLE, quiet
from search import RANDOM_SEARCHES, median_with_interval
from simulation import Trial, search
from typing_extensions import override

from rkdsearch.results.beliefs import NOTE
from rkdsearch.results.states import ProposedBy
from rkdsearch.search.sampler import Proposal
from rkdsearch.space.settings import SamplerConfig, SchedulerConfig
from rkdsearch.space.space import SearchSpace

Row = tuple[Overrides, Curve]
CONFIDENCES = ("low", "medium", "high")
SHARES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Table:
    """Recorded runs by how they were drawn, in an order that `seed` shuffles."""

    searched: SearchSpace
    rows: Mapping[str, Sequence[Row]]
    seed: int

    @property
    def space(self) -> SearchSpace:
        """The space that the runs were drawn from."""
        return self.searched

    def given(self, ordinal: int) -> None:
        """Nothing: the rule chooses among what was recorded."""

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """Its recorded runs."""
        return next(
            curve for rows in self.rows.values() for known, curve in rows if known == overrides
        )

    @cached_property
    def published(self) -> list[Overrides]:
        """The published settings."""
        return [overrides for overrides, _ in self.rows["published"]]

    def drawn(self, kind: str) -> Iterator[Overrides]:
        """The runs that were drawn so, shuffled."""
        rows = self.rows[kind]
        order = np.random.default_rng(number_of(self.seed, kind)).permutation(len(rows))
        yield from (rows[i][0] for i in order)


class Told(Given):
    """Our rungs over the whole space, after the published settings."""

    def __init__(self, space: SearchSpace, table: Table) -> None:
        super().__init__(space, table.published)
        self._anywhere = table.drawn("space")

    @override
    def modelled(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """The next run of the whole space."""
        return next(self._anywhere), {}


class Believed(Believing):
    """The package's beliefs, whose proposals are runs that were recorded near a published one."""

    def __init__(self, space: SearchSpace, table: Table) -> None:
        super().__init__(space, table.published)
        self._anywhere, self._near = table.drawn("space"), list(table.drawn("near"))

    @override
    def modelled(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """The next run of the whole space."""
        return next(self._anywhere), {}

    @override
    def near(self, baseline: Any, ordinal: int, number: int) -> Proposal:
        """The next run near the baseline; one of the whole space where all of these are used."""
        method = self.published[baseline.ordinal]["method.name"]
        found = next((one for one in self._near if one["method.name"] == method), None)
        if found is None:
            found = next(self._anywhere)
        else:
            self._near.remove(found)
        return Proposal(dict(found), {NOTE: baseline.trial_id}, ProposedBy.BELIEF)


def main() -> None:
    """Print the hypervolumes of every rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=30)
    orders = parser.parse_args().orders
    quiet()
    space = SearchSpace.load(DIGITS)
    rows = {kind: read(TABLE, kind) for kind in ("space", "near", "published")}
    half = sum(curve.cost(FULL, 0, afresh=True) for _, curve in rows["space"]) / 2
    bar, cost = _bar(space, rows["space"], half)
    print(
        f"{len(rows['space'])} runs, half of them {half:.1f} full runs; n = {orders} orders;"
        f" hypervolume of random search's, after {', '.join(f'{s:.0%}' for s in SHARES)} of its"
        " compute [95 %]"
    )
    for name in ("told of the published settings", *(f"beliefs, {c}" for c in CONFIDENCES)):
        confidence = name.split()[-1] if name.startswith("beliefs") else "none"
        ours = replace(
            space,
            sampler=SamplerConfig(beliefs=confidence),  # type: ignore[arg-type]  # one of them
            scheduler=SchedulerConfig(),
            ladder=WHOLE,
        )
        tracks = []
        for seed in range(orders):
            table = Table(ours, rows, seed)
            rule = Told(ours, table) if confidence == "none" else Believed(ours, table)
            tracks.append(search(table, rule, budget=half, trials=len(rows["space"])))
        shares = (
            median_with_interval([track.at(share * cost) / bar for track in tracks])
            for share in SHARES
        )
        print(f"{name:32} {'   '.join(map(_said, shares))}", flush=True)


def _bar(space: SearchSpace, rows: Sequence[Row], half: float) -> tuple[float, float]:
    """Final hypervolume of random full-length search, and its compute: means over searches."""
    found = [
        search(
            Recorded(space, rows, seed),
            RULES[RANDOM](replace(space, seed=seed)),
            budget=half,
            trials=len(rows),
        )
        for seed in range(RANDOM_SEARCHES)
    ]
    return (
        float(np.mean([track.hypervolume[-1] for track in found])),
        float(np.mean([track.spent for track in found])),
    )


def _said(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


if __name__ == "__main__":
    main()
