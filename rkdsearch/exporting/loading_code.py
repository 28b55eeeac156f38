"""Python code in a model card that loads the exported network."""

from rkdsearch.exporting.exported_network import WEIGHTS, ExportedNetwork, own_packages


def loading_code(d: ExportedNetwork) -> str:
    """Python code that loads the network, to be run in the folder of the weights.

    Two more lines allow the import of a user's own network.
    """
    given = ", ".join(
        f"{name}={value!r}"
        for name, value in d.config.student.model_dump().items()
        if value is not None
    )
    own = own_packages(d.config.student.name)
    return "\n".join(
        [
            "from pathlib import Path",
            *(["from rkdsearch import plugins"] if own else []),
            "from rkdsearch.models import ImageTask, ModelConfig",
            "from rkdsearch.teacher import load",
            *(
                f"plugins.allow_import({package!r})  # its folder must be on PYTHONPATH"
                for package in own
            ),
            "network = load(",
            f"    Path({WEIGHTS!r}),",
            f"    ModelConfig({given}),",
            f"    {d.task!r},",
            f"    sha256={d.sha256!r},  # another file is refused",
            ")",
            (
                f"logits = network(x)  # x: (N, {', '.join(map(str, d.task.shape))}), pixels of"
                " [0, 1]"
            ),
        ]
    )
