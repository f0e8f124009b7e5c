"""Is the order of models more than chance between trainings?  ``python -m experiments.article.model_order``.

The article trained each network once. Where some were trained several times, with other seeds, the spread of these
trainings tells how far apart networks lie that do not differ at all. An analysis of variance compares with it how far
the models of a group lie apart: p is how often they would lie at least so far apart if they did not differ, provided
that trainings of each model are normally distributed and spread alike. Shares P are compared by the logarithm of their
odds P / (1 - P), on which they do spread alike; of the shares themselves, those about .08 spread by far more than those
about .01. "Between trainings" is the factor that the odds of one model's trainings differ by (its logarithm is their
standard deviation).

The rank correlation (Spearman's) is that of our means with the published numbers: 1 if the models stand in the same
order; then the same without the constant that is in some of them (see `unrotated_images`).
"""

import re
from collections.abc import Iterable, Sequence
from math import exp
from pathlib import Path

from experiments import recognition_rotation
from experiments.article import unrotated_images
from invariance.report.statistics import pooled
from invariance.report.table import scaled, tables
from invariance.runs.find import Run, find
from invariance.tasks.columns import share

RESULTS = Path(__file__).parents[1] / "results"
# Name -> the names of its models, as a pattern. The pooled CNNs have a third of the others' epochs or less.
GROUPS = {
    "CNNs without pooling": r"cnn_(?!pool).*",
    "CNNs": r"cnn_.*",
    "CNNs and capsule networks": r"(cnn|capsnet)_.*",
}


def analysis(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The standard deviation within groups, and p of the hypothesis that they differ by chance only.

    Args:
        groups: a number for each training of each model; at least one model has two.
    """
    from scipy.stats import f_oneway

    return pooled(groups)[0], float(f_oneway(*groups).pvalue)


def table(runs: Iterable[Run], profile: str = "standard") -> str:
    """The published networks for recognition of turned digits, on MNIST, as Markdown; without seeds only its head."""
    from scipy.stats import spearmanr

    experiment = recognition_rotation.EXPERIMENT
    here = (experiment.name, "mnist", profile)
    all_tables = tables(runs, {experiment.name: experiment})
    found = [each for each in all_tables if (each.experiment, each.dataset, each.profile) == here]
    heads = ("models", "runs", "number", "means of the models", "between trainings", "p")
    heads += ("rank correlation", "without the constant")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, pattern in GROUPS.items():
        rows = [row for each in found for row in each.rows if row.model in experiment.published]
        rows = [row for row in rows if re.fullmatch(pattern, row.model)]
        if not any(len(row.seeds) > 1 for row in rows):
            continue
        for column in found[0].columns:
            cells = [row.cells[column.key] for row in rows]
            values = list(scaled(rows, column).values())
            deviation, p = analysis(values)
            means = [cell.ours for cell in cells]
            known = [cell.published for cell in cells]
            turned = [unrotated_images.turned(row.model)[column.key] for row in rows]
            texts = [f"{len(rows)} {name}", str(sum(map(len, values))), column.title]
            texts += [f"{share(min(means))} to {share(max(means))}", f"{exp(deviation):.3f}"]
            texts += [share(p) if p >= 1e-4 else "< .0001", _signed(spearmanr(means, known).statistic)]
            texts += ["—" if turned == known else _signed(spearmanr(means, turned).statistic)]
            lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _signed(number) -> str:
    return f"{number:.2f}".replace("-", "−")


if __name__ == "__main__":
    print(table(find(RESULTS)[0]))
