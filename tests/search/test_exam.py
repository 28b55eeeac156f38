import ast
from pathlib import Path

import rkdsearch


def test_only_the_exam_and_the_teachers_check_open_the_test_set() -> None:
    root = Path(rkdsearch.__file__).parent
    opened = set()
    for file in root.rglob("*.py"):
        names = {
            n.attr if isinstance(n, ast.Attribute) else n.id
            for n in ast.walk(ast.parse(file.read_text()))
            if isinstance(n, ast.Attribute | ast.Name)
        }
        if "load_test" in names:
            opened.add(file.relative_to(root).as_posix())
    assert "search/exam.py" in opened
    assert opened <= {"search/exam.py", "data/__init__.py", "training/verify.py", "training/teacher.py", "cli/teacher.py"}
