"""The Markdown files do not drift from the program: snippets run, links and pictures exist, options are known."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.recognition_rotation import EXPERIMENT
from invariance import cli
from invariance.cli.run import parser

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    path
    for folder in (".", "experiments", "experiments/article", "experiments/results", "invariance")
    for path in sorted((REPOSITORY / folder).glob("*.md"))
    if not path.name.endswith(".template.md")
]
NAMES = [str(path.relative_to(REPOSITORY)) for path in DOCUMENTS]
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)

# What the snippets may load: a model and data of one's own.
OWN = """
import keras, numpy as np
from sklearn.datasets import load_digits
images, labels = load_digits(return_X_y=True)
images, labels = images[:300].reshape(-1, 8, 8, 1).astype("uint8") * 15, labels[:300]
np.savez("mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]).save("mine.keras")
"""


# What holds after the snippets of a document: the linear model cannot do much, but better than chance.
AFTER = {"invariance": "assert run.metrics['p_in'] > 1 / 8 and not unreadable"}


def snippets(document):
    return re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_there_are_documents_with_snippets():
    assert {"README.md", "experiments/README.md", "invariance/README.md"} <= set(NAMES)
    assert "experiments/article/FINDINGS.md" in NAMES and "experiments/results/README.md" in NAMES
    assert {name for name, path in zip(NAMES, DOCUMENTS, strict=True) if snippets(path)} >= {"invariance/README.md"}


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if snippets(path)], ids=lambda path: path.parent.name)
def test_snippets_run(document, tmp_path):
    """One after the other, in one namespace."""
    program = "\n".join([OWN, *snippets(document), AFTER.get(document.parent.name, "")])
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def anchor(heading):
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@documents
def test_links_and_pictures_exist(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, name = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if name:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert name in map(anchor, headings), link


@pytest.fixture(scope="module")
def known_options():
    """All options of the experiments and of `python -m invariance`."""
    helps = [parser(EXPERIMENT).format_help()]
    for command in ("report", "list", "evaluate", "bench", "notebooks"):
        with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
            cli.main([command, "--help"])
        helps.append(out.getvalue())
    return set(re.findall(r"--[a-z][a-z-]+", " ".join(helps)))


@documents
def test_options_exist(document, known_options):
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", document.read_text(encoding="utf-8")))
    assert used <= known_options


@documents
def test_targets_exist(document):
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*[a-z])\b(?=[`\s])", document.read_text(encoding="utf-8")))
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    experiments = {path.stem.replace("_", "-") for path in REPOSITORY.glob("experiments/*.py")}
    fixed = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {target for target in targets if "-" in target or target in fixed} <= experiments | fixed | {"its-name"}
