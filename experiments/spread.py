"""Is the order of models more than chance between trainings?  ``python -m experiments.spread [RUNS_FOLDER ...]``.

The article trained each network once. Where some were trained several times, with other seeds, the spread of these
trainings tells how far apart networks lie that do not differ at all. An analysis of variance compares with it how far
the models of a group lie apart: p is how often they would lie at least so far apart if they did not differ, provided
that trainings of each model are normally distributed and spread alike. The rank correlation (Spearman's) is that of our
means with the published numbers: 1 if the models stand in the same order.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments import published
from invariance import results
from invariance.report import NAMES, share

RESULTS = Path(__file__).parent / "results"
# Name -> how the names of its models begin.
GROUPS = {"CNNs": ("cnn_",), "CNNs and capsule networks": ("cnn_", "capsnet_")}


def analysis(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The standard deviation within groups, and p of the hypothesis that they differ by chance only.

    Args:
        groups: a number for each training of each model; at least one model has two.
    """
    import numpy as np
    from scipy.stats import f_oneway

    freedom = sum(map(len, groups)) - len(groups)
    deviation = np.sqrt(sum(np.var(values) * len(values) for values in groups) / freedom)
    return float(deviation), float(f_oneway(*groups).pvalue)


def table(runs: Iterable[results.Run], profile: str = "standard") -> str:
    """The published networks for recognition of turned digits, on MNIST, as Markdown; without seeds only its head."""
    from scipy.stats import spearmanr

    models: dict[str, list[Mapping]] = {}
    for run in runs:
        metrics = run.metrics
        if (metrics["experiment"], metrics["dataset"], metrics["profile"]) == (
            "recognition_rotation",
            "mnist",
            profile,
        ):
            models.setdefault(metrics["model"], []).append(metrics)
    heads = ("models", "runs", "number", "means of the models", "between trainings", "p", "rank correlation")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, beginnings in GROUPS.items():
        group = [models[model] for model in published.RECOGNITION_ROTATION if model in models]
        group = [each for each in group if each[0]["model"].startswith(beginnings)]
        if not any(len(each) > 1 for each in group):
            continue
        for key, title in NAMES.items():
            values = [[metrics[key] for metrics in each] for each in group]
            deviation, p = analysis(values)
            means = [sum(each) / len(each) for each in values]
            texts = [f"{len(group)} {name}", str(sum(map(len, values))), title]
            printed = [published.RECOGNITION_ROTATION[each[0]["model"]][key] for each in group]
            texts += [f"{share(min(means))} to {share(max(means))}", share(deviation)]
            texts += [
                share(p) if p >= 1e-4 else "< .0001",
                f"{spearmanr(means, printed).statistic:.2f}".replace("-", "−"),
            ]
            lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(run for folder in sys.argv[1:] or [RESULTS] for run in results.find(Path(folder))[0]))
