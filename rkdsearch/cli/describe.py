"""`rkdsearch describe METHOD`: a method's paper, min-max, teachers and fields."""

from rkdsearch.cli.options import AllowImport


def describe(method: str, *, allow_import: AllowImport = ()) -> None:
    """Print a method: its paper and min-max problem, its teachers and attack, and its fields.

    Parameters
    ----------
    method
        A built-in method, or the dotted path of your own, such as my_lab.soft_at.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.methods.describe import describe as described

    plugins.allow_import(*allow_import)
    say(described(method))
