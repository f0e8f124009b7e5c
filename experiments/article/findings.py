"""FINDINGS.md from its template and the committed runs: ``python -m experiments.article.findings`` writes it."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from experiments import recognition_rotation
from experiments.article import committed, model_order, published, unrotated_images
from experiments.article.committed import Numbers, Text
from invariance import variations
from invariance.experiment import installed_experiments
from invariance.files import write_text
from invariance.report.table import markdown_table, tables
from invariance.runs.find import Run
from invariance.tasks.columns import share
from invariance.wording import join

FILE = Path(__file__).with_name("FINDINGS.md")

STANDARD = "recognition_rotation/mnist/standard"
TEMPLATE, FILE = (Path(__file__).with_name(name) for name in ("FINDINGS.template.md", "FINDINGS.md"))


def page() -> str:
    """The text of FINDINGS.md."""
    head, *sections = re.split(r"(?m)^(?=## )", TEMPLATE.read_text(encoding="utf-8"))
    folders = (
        STANDARD,
        "generation_rotation/mnist/standard",
        "generation_shift/mnist/standard",
        "recognition_rotation/mnist",
        "recognition_shift/mnist/standard",
        STANDARD,
    )
    values: tuple = (_order_of_models(), _wide_code(), {}, _constant(), {}, _transfer())
    return head + "".join(
        str(Text(section, folder, **each)) for section, folder, each in zip(sections, folders, values, strict=True)
    )


def _transfer() -> dict[str, Any]:
    def cosine(model: str) -> str:
        found = [run.metrics["learned"]["cosines"][0] for run in committed.runs_of(f"{STANDARD}/{model}")]
        return f"{min(found):.5f}".removeprefix("0") if found else "—"

    learned = [run.metrics["learned"] for run in committed.runs_of(f"{STANDARD}/generator_k0")]
    half_turns = [each["answers"]["restricted"]["half_period_error"] for each in learned]
    return {
        "k0_cosine": cosine("flow_k0"),
        "k1_cosine": cosine("flow"),
        "half_k0": f"{max(half_turns):.3f}".removeprefix("0") if half_turns else "—",
        "elsewhere": _rows(ELSEWHERE),
        "controls": _rows((STANDARD, model) for model in ("generator", "generator_k0", "p4cnn", "polar", "stn")),
    }


# Experiment, data and profile, and the model.
ELSEWHERE = tuple(
    (folder, model)
    for folder in (
        "recognition_shift/mnist/standard",
        "recognition_scaling/mnist/standard",
        "recognition_rotation/fashion_mnist/standard",
        "recognition_rotation_ideal/mnist/standard",
    )
    for model in ("baseline+unrestricted", "flow", "flow_k0")
)


def _rows(models: Iterable[tuple[str, str]]) -> str:
    """A table of what was measured so far of these models."""
    found = []
    for folder, model in models:
        runs = committed.runs_of(f"{folder}/{model}")
        if not runs:
            continue
        experiment, dataset, _ = folder.split("/")
        numbers = committed.numbers_of(f"{folder}/{model}").values
        told = variations.told(model, installed_experiments()[experiment].models[variations.base(model)], runs[0].task)
        shares = [share(numbers[key]) for key in ("p_test", "p_in", "p_out", "p_inv")]
        name = experiment if dataset == "mnist" else f"{experiment}, {dataset}"
        found.append([name, model, told, str(len(runs)), *shares])
    return markdown_table(("experiment", "model", "told", "runs", "P_test", "P_in", "P_out", "P_inv"), found)


def _order_of_models() -> dict[str, Any]:
    orders = {(each.group, each.metric): each for each in model_order.orders(committed.runs())}
    strided, everything = (orders[group, "p_inv"] for group in ("CNNs without pooling", "CNNs and capsule networks"))
    experiment = recognition_rotation.EXPERIMENT
    [pair] = [
        pair
        for table in tables(committed.runs_of(STANDARD), {experiment.name: experiment})
        for pair in table.pairs
        if pair.models == ("cnn_00", "cnn_bn_00")
    ]
    gain, by_chance, printed = ({key: each[part] for key, each in pair.differences.items()} for part in range(3))
    plain, normalised = (unrotated_images.rotated_only(model) for model in pair.models)
    return {
        "table": model_order.table(orders.values()),
        "p": model_order.p_text(strided.p),
        "count": len(strided.means),
        "low": share(min(strided.means.values())),
        "high": share(max(strided.means.values())),
        "between_seeds": f"{strided.between_seeds:.2f}",
        "significant": f"{everything.significant:.2f}",
        "em_seeds": join([share(run.metrics["p_inv"]) for run in committed.runs_of(f"{STANDARD}/capsnet_em")]),
        "gain": Numbers(gain),
        "by_chance": Numbers(by_chance),
        "published": Numbers(printed),
        "rotated": Numbers({key: normalised[key] - plain[key] for key in gain}),
        "times": Numbers({key: f"{printed[key] / gain[key]:.0f}" for key in gain}),
        "epochs": Numbers(_epochs("standard")),
    }


def _wide_code() -> dict[str, Any]:
    [run] = committed.runs_of("generation_rotation/mnist/standard/ae_rotation_z128+steps=24000")
    free = [error for digit, error in run.metrics["mse_out"].items() if int(digit) not in run.task.restricted]
    # Through JSON, which makes texts of digits, as in metrics.json.
    printed = json.loads(json.dumps(published.GENERATION_ROTATION))
    return {
        "lowest": share(min(free)),
        "highest": share(max(free)),
        "wide": Numbers(printed["ae_rotation_z128"]),
        "narrow": Numbers(printed["ae_rotation"]),
    }


def _constant() -> dict[str, Any]:
    count, unrotated, batch = unrotated_images.IMAGES, unrotated_images.UNROTATED, unrotated_images.BATCH
    drawn = {
        key: {model: numbers[key] for model, numbers in published.RECOGNITION_DRAWINGS.items()}
        for key in ("p_out", "p_inv")
    }
    square = {key: {model: unrotated_images.mean_square(*each) for model, each in drawn[key].items()} for key in drawn}
    excess = {model: square["p_out"][model] - drawn["p_out"][model][0] ** 2 for model in square["p_out"]}
    p_inv = {model: mean for model, (mean, _) in drawn["p_inv"].items()}
    ours = {model: committed.numbers_of(f"{STANDARD}/{model}").values["p_inv"] for model in p_inv}
    affected = [model for model in p_inv if unrotated_images.affected(model)]
    plain = [model for model in p_inv if model not in affected]
    pooled = [model for model in affected if model.startswith("cnn_pool")]
    return {
        "affected_p_inv": _span(p_inv, affected),
        "plain_p_inv": _span(p_inv, plain),
        "ours": _span(ours, [model for model in affected if model not in pooled]),
        "ours_plain": _span(ours, plain),
        "ours_pooled": join([share(ours[model]) for model in pooled]),
        "epochs": Numbers(_epochs("standard")),
        "paper_epochs": Numbers(_epochs("paper")),
        "affected_square": _span(square["p_inv"], affected),
        "images": count,
        "batch": batch,
        "full": count // batch,
        "unrotated": unrotated,
        "share": share(unrotated_images.SHARE),
        "table": unrotated_images.table(),
        "one": share(1 / count),
        "affected_excess": _span(excess, affected),
        "plain_excess": _span(excess, plain),
        "expected_excess": _span({model: _excess_of_unrotated(model) for model in affected}),
        # A variance over 1000 drawings has a relative standard error of sqrt(2 / 1000).
        "uncertainty": share(max(count * variance for _, variance in drawn["p_out"].values()) * sqrt(2 / 1000)),
        "plain_00": Numbers(published.RECOGNITION_ROTATION["cnn_00"]),
        "bn_00_printed": Numbers(published.RECOGNITION_ROTATION["cnn_bn_00"]),
        "bn_00": Numbers(unrotated_images.rotated_only("cnn_bn_00")),
        "dr": Numbers(published.RECOGNITION_ROTATION["capsnet_dr"]),
        "redrawn": redrawn(),
    }


def _epochs(profile: str) -> dict[str, str]:
    """Model -> how often it sees each of the 48,133 training images."""
    budgets = {model: entry.budgets[profile] for model, entry in recognition_rotation.MODELS.items()}
    return {model: f"{each.steps * each.batch_size / 48_133:.0f}" for model, each in budgets.items()}


def _excess_of_unrotated(model: str) -> float:
    """Mean square minus squared mean of P_out, if all rotated images are recognised with the same probability."""
    unrotated, numbers = unrotated_images.SHARE, published.RECOGNITION_ROTATION[model]
    rotated = unrotated_images.without_unrotated(model)["p_out"]
    return unrotated * numbers["p_in"] ** 2 + (1 - unrotated) * rotated**2 - numbers["p_out"] ** 2


def _span(values: Mapping[str, float], models: Iterable[str] | None = None) -> str:
    """The range of some models' numbers."""
    chosen = [values[model] for model in models or values]
    return " to ".join(("−" if value < 0 else "") + share(abs(value)) for value in (min(chosen), max(chosen)))


def redraws() -> Iterator[tuple[Run, int, dict]]:
    """(run, number of images left upright, metric -> mean and variance) for every redraws*.json of committed runs."""
    for run in committed.runs():
        for file in sorted(run.folder.path.glob("redraws*.json")):
            drawn = run.folder.json(file.name)
            # Earlier versions wrote no sections.
            evaluation, measured = drawn.get("evaluation", drawn), drawn.get("measured", drawn)
            yield run, evaluation["upright_last"], measured["redraws"]


def redrawn() -> str:
    """The published numbers of cnn_bn_00 and its redraws, as a Markdown table."""

    def row(name: str, upright: str, p_inv: Sequence[float], p_out: Sequence[float]) -> tuple[str, ...]:
        return name, upright, share(p_inv[0]), share(unrotated_images.mean_square(*p_inv)), share(p_out[0])

    known = published.RECOGNITION_DRAWINGS["cnn_bn_00"]
    rows = [row("published", "—", known["p_inv"], known["p_out"])]
    for run, upright, drawn in redraws():
        numbers = ((drawn[key]["mean"], drawn[key]["variance"]) for key in ("p_inv", "p_out"))
        rows.append(row(f"ours, seed {run.metrics['seed']}", str(upright), *numbers))
    return markdown_table(("cnn_bn_00", "images left upright", "P_inv", "mean square upside down", "P_out"), rows)


if __name__ == "__main__":
    write_text(FILE, page())
