"""Does the order of the models exceed chance?  ``python -m experiments.article.model_order``.

The article trained each network once. Here some were trained with several seeds, whose variance tells how far apart
networks lie that do not differ at all. An analysis of variance compares it with the distances between the models of a
group: p is the probability of distances at least this large if the models did not differ, assuming that the seeds of
every model are normally distributed with the same variance. Accuracies P are compared by their log-odds
log(P / (1 - P)), whose variance between seeds is alike for all models; that of the accuracies themselves is far larger
at .08 than at .01. "Between seeds" is the factor by which the odds of one model vary (the exponential of the standard
deviation of the log-odds).

The rank correlation (Spearman) compares our means with the published numbers: it is 1 if the order is the same. It is
also given for published numbers without the constant that some of them contain (see `unrotated_images`).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp

from experiments import recognition_rotation
from experiments.article import committed, unrotated_images
from invariance.report.statistics import pooled
from invariance.report.table import markdown_table, scaled, tables
from invariance.runs.find import Run
from invariance.tasks.columns import share

# Name -> a pattern of its models' names. The pooled CNNs are trained for a third of the others' epochs or less.
GROUPS = {
    "CNNs without pooling": r"cnn_(?!pool).*",
    "CNNs": r"cnn_.*",
    "CNNs and capsule networks": r"(cnn|capsnet)_.*",
}


@dataclass(frozen=True)
class Order:
    """How far the models of a group lie apart in one number.

    Attributes:
        group: a key of `GROUPS`.
        metric, title: of the number.
        means: model -> mean over its seeds.
        runs: number of runs.
        between_seeds: the factor by which the odds of one model vary between seeds.
        significant: the factor between the odds of two single-seed models from which on they differ (95 %).
        p: the probability of distances this large by chance.
        correlation: Spearman's, with the published numbers.
        correlation_rotated: the same without the unrotated images; None if the group's numbers contain none.
    """

    group: str
    metric: str
    title: str
    means: dict[str, float]
    runs: int
    between_seeds: float
    significant: float
    p: float
    correlation: float
    correlation_rotated: float | None


def variance_analysis(groups: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """One-way analysis of variance.

    Args:
        groups: a number for each run of each model; at least one model has two.

    Returns:
        Standard deviation within groups, the least significant difference of two single numbers (95 %), and p of the
        hypothesis that the groups do not differ.
    """
    from scipy.stats import f_oneway

    return *pooled(groups), float(f_oneway(*groups).pvalue)


def orders(runs: Iterable[Run], profile: str = "standard") -> list[Order]:
    """The order of the published networks in each number, on MNIST; of groups in which a model has several seeds."""
    from scipy.stats import spearmanr

    experiment = recognition_rotation.EXPERIMENT
    here = (experiment.name, "mnist", profile)
    all_tables = tables(runs, {experiment.name: experiment})
    found = [table for table in all_tables if (table.experiment, table.dataset, table.profile) == here]
    result = []
    for group, pattern in GROUPS.items():
        rows = [row for table in found for row in table.rows if row.model in experiment.published]
        rows = [row for row in rows if re.fullmatch(pattern, row.model)]
        if not any(len(row.seeds) > 1 for row in rows):
            continue
        # Only published numbers have an order to compare with.
        columns = [each for each in found[0].columns if all(row.cells[each.key].published is not None for row in rows)]
        for column in columns:
            means = {row.model: row.cells[column.key].ours for row in rows}
            published = [row.cells[column.key].published for row in rows]
            rotated = [unrotated_images.rotated_only(model)[column.key] for model in means]
            values = list(scaled(rows, column).values())
            deviation, least, p = variance_analysis(values)
            correlations = [
                float(spearmanr(list(means.values()), numbers).statistic) for numbers in (published, rotated)
            ]
            result.append(
                Order(
                    group,
                    column.key,
                    column.title,
                    means,
                    sum(map(len, values)),
                    exp(deviation),
                    exp(least),
                    p,
                    correlations[0],
                    None if rotated == published else correlations[1],
                )
            )
    return result


def table(found: Iterable[Order]) -> str:
    """The orders as Markdown."""
    heads = ("models", "runs", "number", "means of the models", "between seeds", "p")
    heads += ("rank correlation", "without the constant")
    rows = []
    for order in found:
        means = order.means.values()
        texts = [f"{len(means)} {order.group}", str(order.runs), order.title]
        texts += [f"{share(min(means))} to {share(max(means))}", f"{order.between_seeds:.3f}", p_text(order.p)]
        texts += map(_signed, (order.correlation, order.correlation_rotated))
        rows.append(texts)
    return markdown_table(heads, rows)


def p_text(p: float) -> str:
    """A p-value as text."""
    return share(p) if p >= 1e-4 else f"< {share(1e-4)}"


def _signed(number: float | None) -> str:
    return "—" if number is None else f"{number:.2f}".replace("-", "−")


if __name__ == "__main__":
    print(table(orders(committed.runs())))
