"""The committed runs, and everything that is written about them: no number there is typed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.article import (
    committed,
    findings,
    model_order,
    published,
    readme,
    repository_claims,
    unrotated_images,
)
from experiments.article.claims import CLAIMS
from experiments.article.committed import Numbers, Text
from invariance.experiment import installed_experiments
from invariance.report import overview
from invariance.report.claims import judge
from invariance.report.table import between_markers, tables

REPOSITORY = Path(__file__).resolve().parents[2]
STANDARD = "recognition_rotation/mnist/standard"


@pytest.fixture(scope="module")
def experiments():
    return installed_experiments()


def test_the_reports_numbers_stay_what_they_were(experiments):
    """Those of tests/data/report.json: of each row [ours, published, inside its band, [the seeds' values]]."""
    expected = json.loads((REPOSITORY / "tests/data/report.json").read_text())
    keys = ("experiment", "dataset", "profile", "model")

    def known(run):
        row = expected["rows"].get("/".join(run.metrics[key] for key in keys))
        return row and run.metrics["seed"] in row["seeds"]

    runs = [run for run in committed.runs() if known(run)]
    rows, pairs = {}, {}
    for table in tables(runs, experiments):
        name = f"{table.experiment}/{table.dataset}/{table.profile}"
        for row in table.rows:
            cells = {
                key: [cell.ours, cell.published, cell.inside, [value for _, value in cell.values]]
                for key, cell in row.cells.items()
            }
            rows[f"{name}/{row.model}"] = {"seeds": row.seeds, **cells}
        pairs |= {f"{name}/{' - '.join(pair.models[::-1])}": pair.differences for pair in table.pairs}
    verdicts = {
        each.claim.name: [each.verdict, each.profile, len(each.failed), each.holding, each.seeds]
        for each in judge(CLAIMS, runs)
    }

    def flat(value, path=""):
        if isinstance(value, (dict, list)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            return {key: leaf for name, item in items for key, leaf in flat(item, f"{path} {name}").items()}
        return {path: value}

    got = flat(json.loads(json.dumps({"rows": rows, "pairs": pairs, "verdicts": verdicts})))
    expected = flat(expected)
    assert got.keys() == expected.keys()
    # Exact, except for the rounding of sums of up to five floats, which differs between Python versions.
    assert [
        key for key in got if got[key] != expected[key] and got[key] != pytest.approx(expected[key], rel=1e-12)
    ] == []


def test_results_readme_is_up_to_date(experiments):
    page = (REPOSITORY / "experiments/results/README.md").read_text(encoding="utf-8")
    runs = committed.runs()
    verdicts = judge((*CLAIMS, *repository_claims.CLAIMS), runs)
    text = overview.results(tables(runs, experiments), verdicts)
    assert between_markers(page, text) == page, (
        "out of date; update it with: python -m invariance report --runs experiments/results "
        "--readme experiments/results/README.md"
    )


def test_findings_are_up_to_date():
    assert findings.FILE.read_text(encoding="utf-8") == findings.page(), (
        "out of date; update it with: python -m experiments.article.findings"
    )


def test_readme_is_up_to_date_and_short():
    text = readme.FILE.read_text(encoding="utf-8")
    assert text == readme.page(), "out of date; update it with: python -m experiments.article.readme"
    assert len(text.split()) <= 900


def test_statements_of_the_findings_hold():
    """What FINDINGS.template.md says in words about the numbers that it cites."""
    orders = {(each.group, each.metric): each for each in model_order.orders(committed.runs())}
    strided = {key: orders["CNNs without pooling", key] for key in ("p_test", "p_in", "p_out", "p_inv")}
    pooled, all_models = orders["CNNs", "p_inv"], orders["CNNs and capsule networks", "p_inv"]
    assert strided["p_inv"].p > 0.05
    assert all(each.p < 0.05 for (_, key), each in orders.items() if key != "p_inv")
    assert strided["p_in"].correlation > 0.7 and strided["p_out"].correlation_rotated > 0.7
    assert strided["p_inv"].correlation_rotated < 0.3
    highest = max(strided["p_inv"].means.values())
    assert all(pooled.means[model] > highest for model in pooled.means if model.startswith("cnn_pool"))
    odds = {model: share / (1 - share) for model, share in all_models.means.items()}
    em = [run.metrics["p_inv"] for run in committed.runs_of(f"{STANDARD}/capsnet_em")]
    assert max(pooled.means.values()) * all_models.significant < min(em) and max(em) < 1 / 8
    assert highest < all_models.means["capsnet_dr"]
    assert odds["capsnet_dr"] < all_models.significant * highest / (1 - highest)
    # Upside down, P_inv falls with training.
    short, long = (committed.numbers_of(f"{STANDARD}/cnn_bn_01{steps}") for steps in ("+steps=2820", ""))
    assert short.values["p_inv"] > 2 * long.values["p_inv"]
    assert short.values["budget"]["steps"] * 4 == long.values["budget"]["steps"]
    # Networks that learn how images move come close to one that saw the missing drawings.
    ceiling, *learnt = (
        committed.numbers_of(f"{STANDARD}/{model}").values for model in ("baseline+unrestricted", "flow", "flow_k0")
    )
    for values, apart in zip(learnt, (0.005, 0.01), strict=True):
        assert values["p_inv"] >= max(0.975, ceiling["p_inv"] - apart)
        assert values["p_test"] >= ceiling["p_test"] - apart and values["learned"]["cosines"][0] > 0.999
    # A wider code: the error of 9 lies among those of the free digits, that of 4 does not fall with the narrow code.
    [run] = committed.runs_of("generation_rotation/mnist/standard/ae_rotation_z128+steps=24000")
    free = [error for digit, error in run.metrics["mse_out"].items() if digit not in "49"]
    assert min(free) < run.metrics["mse_out"]["9"] < max(free)
    # Upright images: every network measured with the last 72 upright has the constant, the other one has not.
    for _, upright, drawn in findings.redraws():
        square = unrotated_images.mean_square(drawn["p_inv"]["mean"], drawn["p_inv"]["variance"])
        assert drawn["p_inv"]["redraws"] == 100 and upright in (0, unrotated_images.UNROTATED)
        assert (square > 0.9 * unrotated_images.SHARE) == (upright > 0)
    assert len(list(findings.redraws())) == 4


def test_redraws_are_those_of_the_runs_they_lie_beside():
    for run in committed.runs():
        for file in run.folder.path.glob("redraws*.json"):
            drawn = run.folder.json(file.name)
            assert run.metrics["model"] == "cnn_bn_00" and drawn["dataset"] == "mnist"
            assert drawn["run"] == {key: run.config[key] for key in drawn["run"]}


def test_the_finding_on_digit_1_and_shifts():
    """Claim S1: its ratio alone is above 1.4, mainly because of the shift -20; its error is the smallest."""
    [claim] = [claim for claim in CLAIMS if claim.name == "S1"]
    ratios = []
    for run in committed.runs_of("generation_shift/mnist/standard/ae_shift"):
        errors, metrics = run.curve([1]), run.metrics
        outside = [error for shift, error in errors.items() if abs(shift) >= 8]
        assert sum(outside) / len(outside) == pytest.approx(metrics["mse_out"]["1"])
        ratios.append((sum(outside) - errors[-20]) / (len(outside) - 1) / metrics["mse_in"]["1"])
        assert min(metrics["mse_out"], key=metrics["mse_out"].get) == "1"
        assert [digit for digit, ratio in metrics["ratio"].items() if ratio > 1.4 and digit not in "49"] == ["1"]
    assert len(ratios) == 3 and f"{min(ratios):.2f} to {max(ratios):.2f}" in str(claim.finding)


def test_texts_are_filled_in_from_runs():
    metrics = [run.metrics for run in committed.runs_of(f"{STANDARD}/capsnet_em")]
    mean, last = sum(each["p_inv"] for each in metrics) / 3, metrics[2]["p_inv"]
    text = Text(
        "{capsnet_em:runs} runs: {capsnet_em:p_inv}, {capsnet_em/seed-2:p_inv}; {capsnet_em:budget.steps}; "
        "{other:p.in}; {word}; {called}",
        STANDARD,
        other=Numbers({"p": {"in": 0.25}}),
        word="said",
        called=lambda: "later",
    )
    assert str(text) == f"3 runs: {mean:.4f}, {last:.4f}; 12,000; .2500; said; later".replace(" 0.", " .")
    # The name of a folder is not the beginning of another's.
    assert {run.metrics["model"] for run in committed.runs_of(f"{STANDARD}/cnn_pool_00")} == {"cnn_pool_00"}
    shift = Text("{ae_shift_central:ratio.4} {ae_shift_central:mse_in.4}", "generation_shift/mnist/standard")
    assert re.fullmatch(r"\d\.\d\d \.\d{4}", str(shift))


def test_missing_runs_give_dashes(monkeypatch, experiments):
    monkeypatch.setattr(committed, "runs", tuple)
    texts = [text for each in experiments.values() for found in each.findings.values() for text in found.values()]
    for text in map(str, [*texts, *(claim.finding for claim in CLAIMS)]):
        assert "{" not in text
    assert str(Text("{cnn_00:p_inv}, {cnn_00:ratio.4}, {cnn_00:budget.steps}", STANDARD)) == "—, —, —"
    assert str(Text("{cnn_00:runs}", STANDARD)) == "0"
    assert sum("—" in str(text) for text in texts) >= 10


def test_findings_are_about_numbers_that_are_compared(experiments):
    for experiment in experiments.values():
        for model, texts in experiment.findings.items():
            published = experiment.published[model]
            for key, text in texts.items():
                metric, _, digit = (key, "", "") if key in published else key.rpartition("_")
                assert metric in experiment.bands
                assert published[metric] if not digit else int(digit) in published[metric]
                # A sentence, or more.
                assert str(text)[0].isupper() and str(text).endswith(".") and "—" not in str(text)


def test_numbers_are_typed_in_published_only():
    """Numbers with four decimals, as tables write them. README.md and FINDINGS.md are made from templates."""
    number = re.compile(r"(?<![\d.e])0?\.\d{4}(?!\d)")
    files = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("invariance/*.md"), *REPOSITORY.glob("experiments/*.*")]
    files += [*REPOSITORY.glob("experiments/article/*.*"), *REPOSITORY.glob("experiments/results/*.*")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        if "<!-- results: begin" in text:
            assert number.findall(text)
            text = between_markers(text, "")
        expected = path in (REPOSITORY / "README.md", findings.FILE, REPOSITORY / "experiments/article/published.py")
        assert bool(number.findall(text)) == expected, path
    # Published ones with four decimals are unmistakable in the library, too; .991 and the like may mean anything.
    values = {f"{value:.4f}" for four in published.RECOGNITION_ROTATION.values() for value in four.values()}
    values = {value for value in values if value[-1] != "0"} | {
        f"{value:.4f}"
        for table in (published.GENERATION_ROTATION, published.GENERATION_SHIFT)
        for row in table.values()
        for key in ("mse_in", "mse_out")
        for value in row[key].values()
    }
    pattern = re.compile("|".join(rf"(?<!\d){re.escape(value[1:])}(?!\d)" for value in values))
    for path in REPOSITORY.glob("invariance/**/*.py"):
        assert not pattern.findall(path.read_text(encoding="utf-8")), path


def test_importing_the_experiments_reads_no_results_and_loads_no_tensorflow():
    code = (
        "import sys; from invariance.experiment import installed_experiments; installed_experiments();"
        "from experiments.article import committed;"
        "assert committed.runs.cache_info().currsize == 0;"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=300)


def test_committed_runs_are_of_committed_code_and_without_weights():
    assert len(committed.runs()) >= 47
    for run in committed.runs():
        assert re.fullmatch(r"[0-9a-f]{40}", run.config["commit"]), run.folder.path
        assert not list(run.folder.path.glob("*.keras"))
