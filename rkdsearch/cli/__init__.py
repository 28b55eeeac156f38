"""The command line: a module per command, imported when it is called. No other package prints."""

from importlib.metadata import version

from cyclopts import App

app = App(
    name="rkdsearch",
    help="Find small networks that are accurate and robust.",
    version=lambda: version("rkdsearch"),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` handles it
)
app.command(
    "rkdsearch.cli.tune:tune",
    name="tune",
    help="Search a space, on this machine or on a Ray cluster.",
)
app.command(
    "rkdsearch.cli.enqueue:enqueue",
    name="enqueue",
    help="Add a configuration to a running or finished search.",
)
app.command("rkdsearch.cli.train:train", name="train", help="Train one run, without Ray.")
app.command(
    "rkdsearch.cli.evaluate:evaluate",
    name="evaluate",
    help="Evaluate a study's networks on test images, which no other command reads.",
)
app.command(
    "rkdsearch.cli.report:report", name="report", help="Write an offline HTML page about a study."
)
app.command(
    "rkdsearch.cli.status:status",
    name="status",
    help="Print the state of a study, also while it runs; nothing is written.",
)
app.command(
    "rkdsearch.cli.describe:describe",
    name="describe",
    help="Print a method's paper, min-max problem and fields; your own too.",
)
app.command(
    "rkdsearch.cli.doctor:doctor",
    name="doctor",
    help="Look for what would stop a search, here or on every node of a cluster.",
)
app.command(
    "rkdsearch.cli.cluster:app",
    name="cluster",
    help="Print files that start a Ray cluster: AWS, Slurm, Kubernetes.",
)
app.command("rkdsearch.cli.space:app", name="space", help="Check, show or sample a search space.")
app.command("rkdsearch.cli.teacher:app", name="teacher", help="Train, verify or convert a teacher.")
app.command(
    "rkdsearch.cli.export:export",
    name="export",
    help="Export a trial's network as safetensors, with a model card.",
)
app.command(
    "rkdsearch.cli.reproduce:reproduce",
    name="reproduce",
    help="Train a trial again and compare it, bit for bit.",
)
