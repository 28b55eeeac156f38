"""The tables: their columns, and `docs/results.md`, which is `markdown()` of this module.

`rows` has every column. A column may be renamed with a new SCHEMA_VERSION and a mapping in
`versions.py`; see ADR 13.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rkdsearch.results.columns import Column, columns_of
from rkdsearch.results.flags import CHANCE, COUNTS, MEANINGS, TOLERATED
from rkdsearch.results.rows import (
    DecisionRow,
    EpochRow,
    EvaluationRow,
    OpeningRow,
    SubsetRow,
    TrialRow,
)

SCHEMA_VERSION = 3
CONFIG_GOES_AFTER = "notes"  # the `config.*` columns of `trials` stand behind this one

_TRIAL_ID = columns_of(TrialRow)[0]
TABLES: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "trials": columns_of(TrialRow),
        "epochs": (_TRIAL_ID, *columns_of(EpochRow)),
        "rungs": (_TRIAL_ID, *columns_of(DecisionRow)),
        "evaluations": columns_of(EvaluationRow),
        "subsets": columns_of(SubsetRow),
        "openings": columns_of(OpeningRow),
    }
)

_HEAD = """\
# The results of a study

<!-- generated: python -c 'from rkdsearch.results import tables; \
print(tables.markdown(), end="")' > docs/results.md -->

Schema version {version}. Every file has all columns of its table, and its metadata their units and
meanings: `pandas.read_parquet("studies/digits/trials")` needs nothing of ours. Files are replaced
whole: a reader sees the old row or the new one, also while the search runs. What was not measured
(NaN included) is null. Readers map older versions: see
[ADR 13](adr/0013-columns-may-be-renamed-before-1.0.md).
"""
_ABOUT = {
    "trials": (
        "One row a trial, in `trials/<trial_id>.parquet`, or, where more than a hundred trials\n"
        "rest, together in `trials/packed-*.parquet` (so too epochs and rungs). Behind `notes`\n"
        "stand the `config.*` columns: every leaf of the resolved run, null where the method has\n"
        "no such field."
    ),
    "epochs": "One row an epoch of each segment of a trial, in `epochs/<trial_id>.parquet`.",
    "rungs": "One row a decision of the scheduler, in `rungs/<trial_id>.parquet`.",
    "evaluations": (
        "One row a checkpoint, attack, attack seed and set of images: the only test results. The"
        " file is\n"
        "`evaluations/<trial_id>-<checkpoint>-<attack>-<seed>-<8 digits of subset_sha256>-<8 digits"
        " of the ball and the settings>.parquet`.\n"
        "Where a network was evaluated more than once, readers show its newest weights and, of\n"
        "each attack, the most images. They show rows of the network's own test images and ball;\n"
        "other images (`split` is other) and other radii (`own_ball` is false) are for whoever asks"
        " for them."
    ),
    "subsets": (
        "One row an image of an evaluated set, in `subsets/<16 digits of subset_sha256>.parquet`,"
        " in the\norder of the digits of `evaluations.per_image`."
    ),
    "openings": (
        "One row an opening of test images, in `openings/<opening>.parquet`, written before the"
        " first\nimage is attacked. Every result that is looked at can influence what is done"
        " next: their number\nbelongs to a claim."
    ),
}


def columns(table: str, config: Sequence[Column] = ()) -> tuple[Column, ...]:
    """The columns of a table in file order. `config` columns are put into `trials` alone."""
    fixed = TABLES[table]
    if table != "trials":
        return fixed
    at = next(i for i, column in enumerate(fixed) if column.name == CONFIG_GOES_AFTER) + 1
    return (*fixed[:at], *config, *fixed[at:])


def markdown() -> str:
    """The page `docs/results.md`."""
    lines = _HEAD.format(version=SCHEMA_VERSION).splitlines()
    for table, fixed in TABLES.items():
        lines += [
            "",
            f"## {table}",
            "",
            _ABOUT[table],
            "",
            "| column | type | unit | meaning | source |",
            "|---|---|---|---|---|",
        ]
        lines += [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} | {c.source} |" for c in fixed]
    return "\n".join([*lines, *_flags()]) + "\n"


def _flags() -> list[str]:
    """The section about the values of `flags`."""
    lines = [
        "",
        "## flags",
        "",
        "Values of `trials.flags` and `evaluations.flags`. A flag is raised where so many images",
        f"have less than {CHANCE:g} probability if the tolerated share were true (exact binomial);",
        "what was not looked at is null and called not checked. Gradients and `huge_eps` are",
        "counted of the images that are right, `one_class` of those of other classes, the rest of",
        "all; `more_steps_raise` and `more_steps_needed` are the surplus of one count over the",
        "other; `huge_eps` and `probabilities` are not raised beside `one_class`. Flags on",
        "validation images keep a trial off the front, but for a replicate whose seed failed",
        "(`one_class`, or at chance); those of `evaluations` move nothing. The last two compare",
        "two rows: readers raise them.",
        "",
        "| flag | meaning | count | tolerated |",
        "|---|---|---|---|",
    ]
    for flag, meaning in MEANINGS.items():
        count = f"`check.{COUNTS[flag]}`" if flag in COUNTS else "images of both rows"
        lines.append(f"| `{flag}` | {meaning} | {count} | {100 * TOLERATED[flag]:g} % |")
    return lines
