"""Searched parameters and fixed values that nothing reads, in some runs of a space or in all.

A search would spend trials on a number that changes no run, and learn from noise.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from optuna.distributions import CategoricalDistribution

from rkdsearch.config import TrainConfig
from rkdsearch.config.unread import Unread, unread
from rkdsearch.errors import SpaceError
from rkdsearch.space.space import SearchSpace


class Effects:
    """Searched parameters, or fixed values, and whether the runs that were added read them."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._read: set[str] = set()
        self._unread: dict[str, dict[Unread, None]] = defaultdict(dict)

    def add(self, config: TrainConfig, names: Iterable[str]) -> None:
        """Note which of these fields one run reads."""
        found = {one.name: one for one in unread(config)}
        for name in names:
            if name in found:
                self._unread[name][found[name]] = None
            else:
                self._read.add(name)

    def check(self) -> None:
        """Raise SpaceError for a parameter that no run reads."""
        for sentence in self.read_by_none("search"):
            raise SpaceError(sentence)

    def read_by_none(self, section: str) -> list[str]:
        """Sentences about fields of this section of the file that no run reads."""
        return [
            f"{section}.{name}: has no effect in any run: {self._reasons(reasons)}; leave it out"
            for name, reasons in self._unread.items()
            if name not in self._read
        ]

    def notices(self) -> list[str]:
        """Sentences about parameters that some runs do not read."""
        return [
            f"search.{name}: has no effect where {self._reasons(reasons)}: {self._remedy(reasons)}"
            for name, reasons in self._unread.items()
        ]

    def _reasons(self, reasons: Mapping[Unread, None]) -> str:
        grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
        for one in reasons:
            grouped[one.field, one.why].append(str(one.value))
        return ", and ".join(
            f"{field} is {' or '.join(sorted(values))}, {why}"
            for (field, why), values in grouped.items()
        )

    def _remedy(self, reasons: Mapping[Unread, None]) -> str:
        """The condition to add, where one field decides."""
        fields = {one.field for one in reasons}
        above = next((p for p in self._space.parameters if p.name in fields), None)
        if (
            len(fields) > 1
            or above is None
            or not isinstance(above.distribution, CategoricalDistribution)
        ):
            return "make it depend on that by `when`"
        void = {one.value for one in reasons}
        kept = ", ".join(str(choice) for choice in above.ends() if choice not in void)
        return f"add `when: {{{above.name}: [{kept}]}}`"
