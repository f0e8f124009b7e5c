"""README.md from its template and the committed runs: ``python -m experiments.article.readme`` writes it."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from experiments import generation_rotation, generation_shift, recognition_rotation
from experiments.article import committed, repository_claims, unrotated_images
from experiments.article.claims import CLAIMS
from experiments.article.committed import Text
from invariance.experiment import comparable
from invariance.files import write_text
from invariance.report import claims
from invariance.report.claims import Claim
from invariance.report.table import Table, tables
from invariance.tasks.columns import percent
from invariance.wording import join

TEMPLATE = Path(__file__).with_name("README.template.md")
FILE = Path(__file__).resolve().parents[2] / "README.md"
STANDARD = "recognition_rotation/mnist/standard"
PICTURE = f"{STANDARD}/cnn_00/seed-0/accuracy_by_angle.png"

# What the table shows: a row a model; what is in range, out of range, farthest out of range.
ACCURACY = ("p_in", "p_out", "p_inv")
ROWS = (
    ("recognition_rotation", "cnn_00", "CNN", ACCURACY),
    ("recognition_rotation", "capsnet_dr", "CapsNet", ACCURACY),
    ("recognition_rotation", "capsnet_em", "matrix capsules", ACCURACY),
    ("recognition_rotation", "baseline+unrestricted", "CNN", ACCURACY),
    ("recognition_rotation", "flow_k0", "CNN, learnt flow", ACCURACY),
    ("recognition_rotation", "flow", "CNN, learnt flow", ACCURACY),
    ("generation_rotation", "ae_rotation", "autoencoder, 4", ("mse_in_4", "mse_out_4")),
    ("generation_shift", "ae_shift", "shift, 4", ("mse_in_4", "mse_out_4")),
)


def page() -> str:
    """The text of README.md."""
    experiments = {
        module.EXPERIMENT.name: module.EXPERIMENT
        for module in (recognition_rotation, generation_rotation, generation_shift)
    }
    made = [table for table in tables(committed.runs(), experiments) if comparable(table.profile)]
    judged = [cell.inside for table in made for row in table.rows for cell in row.cells.values()]
    text = Text(
        TEMPLATE.read_text(encoding="utf-8"),
        STANDARD,
        picture=f"experiments/results/{PICTURE}",
        table=_table(made),
        inside=judged.count(True),
        judged=judged.count(True) + judged.count(False),
        verdicts=_verdicts(CLAIMS),
        their=_verdicts(repository_claims.CLAIMS),
        unrotated=unrotated_images.UNROTATED,
        transferred=percent(committed.numbers_of(f"{STANDARD}/flow_k0").values["p_inv"]),
        upside_down=percent(committed.numbers_of(f"{STANDARD}/cnn_00").values["p_inv"]),
        most=percent(
            max(
                run.metrics["p_inv"]
                for run in committed.runs_of(STANDARD)
                if run.metrics["model"] in recognition_rotation.MODELS
            )
        ),
        chance=percent(committed.numbers_of(STANDARD).values["chance"]),
    )
    return str(text)


def _verdicts(declared: Iterable[Claim]) -> str:
    """How many claims have each verdict, in words."""
    verdicts = Counter(each.verdict for each in claims.judge(declared, committed.runs()))
    return join(f"{number} {verdict}" for verdict, number in verdicts.items())


def _table(made: list[Table]) -> str:
    """The rows of `ROWS` as Markdown: ours, and published in brackets."""
    standard = {table.experiment: table for table in made if table.profile == "standard"}
    lines = ["| | told | in range | out of range | upside down |", "|---" * 5 + "|"]
    for experiment, model, name, keys in ROWS:
        table = standard[experiment]
        columns = {column.key: column for column in table.columns}
        row = next(row for row in table.rows if row.model == model)
        texts = []
        for key in keys:
            ours, published = (columns[key].form(each) for each in (row.cells[key].ours, row.cells[key].published))
            texts.append(ours if row.cells[key].published is None else f"{ours} ({published})")
        lines.append("| " + " | ".join([name, row.told, *texts, *[""] * (3 - len(texts))]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(FILE, page())
