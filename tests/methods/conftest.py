"""Options of the contract tests, for third-party methods too.

`pytest tests/methods --method my_lab.soft_at --allow-import my_lab`
"""

import pytest

from rkdsearch import methods


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--method",
        action="append",
        metavar="NAME",
        help="check the contract of this method alone: a name, or a module's dotted path",
    )
    parser.addoption(
        "--allow-import",
        action="append",
        metavar="PREFIX",
        help="packages from which --method may import",
    )


def pytest_configure(config: pytest.Config) -> None:
    methods.allow_import(*(config.getoption("--allow-import", None) or ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--method", None):
        items[:] = [item for item in items if item.path.name == "test_contract.py"]
