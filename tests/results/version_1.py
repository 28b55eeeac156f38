"""Studies as schema version 1 wrote them, for tests of their readers."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

OLD_NAMES = {
    "trials": {"hyperparameters": "sampled", "fidelity.validation_images": "metric.images"},
    "epochs": {"segment": "leg"},
    "rungs": {
        "epochs": "rung",
        "validation_attack_steps": "attack_steps",
        "validation_images": "images",
    },
    "evaluations": {"test_attack_steps": "steps", "warnings": "flags", "attack_seed": "seed"},
}
NO_ROWS = {"trials": 0, "epochs": 0, "rungs": 0, "evaluations": 0}


def rewrite(study: Path) -> dict[str, int]:
    """Rewrite a whole study in place as version 1; returns how many files of each table."""
    for table, names in OLD_NAMES.items():
        for file in (study / table).glob("*.parquet"):
            found = pq.ParquetFile(file).read()
            late = [n for n in found.column_names if n == "flags" or n.startswith("check.")]
            found = found.drop_columns(late)
            found = found.rename_columns([names.get(name, name) for name in found.column_names])
            if table == "trials":
                found = found.drop_columns(["config.validation.attack.objective"])
                origin = found["origin"]
                first = pc.if_else(pc.equal(origin, "baseline"), "first", origin)
                found = found.set_column(found.column_names.index("origin"), "origin", first)
            metadata = {"rkdsearch.table": table, "rkdsearch.schema_version": "1"}
            pq.write_table(found.replace_schema_metadata(metadata), file)
    for folder in (study / "checkpoints").glob("*/segment-*"):
        folder.rename(folder.with_name(folder.name.replace("segment", "leg")))
    description = study / "study.json"
    if description.exists():
        text = json.loads(description.read_text(encoding="utf-8"))
        text.pop("schema_version", None)
        renamed = {"validation_attack": "exam", "must_match": "laws"}
        text = {renamed.get(name, name): value for name, value in text.items()}
        text["exam"].pop("objective")
        description.write_text(json.dumps(text), encoding="utf-8")
    return {table: len(list((study / table).glob("*.parquet"))) for table in OLD_NAMES}


def write(
    folder: Path, table: str, name: str, columns: dict[str, list[object]], version: str = "1"
) -> None:
    """Write one file of version 1, or another, with these columns alone."""
    metadata = {"rkdsearch.table": table, "rkdsearch.schema_version": version}
    (folder / table).mkdir(parents=True, exist_ok=True)
    content = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(content, folder / table / f"{name}.parquet")
