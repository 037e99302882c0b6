"""Golden cases: facts in, the rendered files as they are kept beside the case out; a review reads the difference.

``tests/golden/<kind>/cases.py`` holds ``CASES``: name → function that renders. ``python -m tests.golden`` rewrites the
folders ``tests/golden/<kind>/<case>/``; ``elements/NAME`` there holds the set elements, one a line.
"""

import importlib
import shutil
from pathlib import Path

FOLDER = Path(__file__).parent


def cases():
    """Return (kind, case, function) of every golden case."""
    found = []
    for path in sorted(FOLDER.glob("*/cases.py")):
        module = importlib.import_module(f"tests.golden.{path.parent.name}.cases")
        found += [(path.parent.name, name, render) for name, render in module.CASES.items()]
    return found


def texts(rendered):
    """Return what a case renders as path → text; a set without elements has no file."""
    files, elements = rendered
    content = {file.path: file.content for file in files}
    for element in elements:
        if element.items:
            content[f"elements/{element.name}"] = "".join(f"{item}\n" for item in element.items)
    return content


def kept(kind, case):
    """Return what is kept of a case as path → text."""
    folder = FOLDER / kind / case
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def rewrite():
    """Write all cases anew."""
    for kind, case, render in cases():
        folder = FOLDER / kind / case
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in texts(render()).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
