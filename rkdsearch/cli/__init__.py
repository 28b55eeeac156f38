"""The command line: one command a file, imported when it is called. The only floor that prints."""

from importlib.metadata import version

from cyclopts import App

app = App(
    name="rkdsearch",
    help="Find small networks that are accurate and robust.",
    version=lambda: version("rkdsearch"),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # main has a word to say
)
app.command(
    "rkdsearch.cli.tune:tune",
    name="tune",
    help="Search a space on a Ray cluster, or on this machine.",
)
app.command("rkdsearch.cli.train:train", name="train", help="One training run, without Ray.")
app.command(
    "rkdsearch.cli.evaluate:evaluate",
    name="evaluate",
    help="Examine a study's networks on test images: the only command that opens them.",
)
app.command("rkdsearch.cli.report:report", name="report", help="One offline HTML page of a study.")
app.command(
    "rkdsearch.cli.status:status",
    name="status",
    help="How a study stands, read-only, also while it runs.",
)
app.command("rkdsearch.cli.space:app", name="space", help="Check, show or sample a search space.")
app.command("rkdsearch.cli.teacher:app", name="teacher", help="Train, verify or convert a teacher.")
app.command(
    "rkdsearch.cli.export:export",
    name="export",
    help="A trial's network as safetensors, with its model card.",
)
