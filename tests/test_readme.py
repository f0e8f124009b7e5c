"""The README does not drift from the program: its snippet runs, its table is that of the committed runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from invariance import claims, cli, report, results

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_snippet_runs(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 1
    subprocess.run([sys.executable, "-c", snippets[0]], cwd=tmp_path, check=True, timeout=300)
    finished, others = results.find(tmp_path / "runs")
    assert [run.metrics["model"] for run in finished] == ["mine"] and not others
    # The linear model cannot do much, but better than the chance of 1 in 8.
    assert finished[0].metrics["p_in"] > 0.125


def test_table_is_that_of_the_committed_runs():
    runs, others = results.find(REPOSITORY / "experiments/results")
    assert runs and not others
    tables = report.tables(runs, cli._experiments())
    verdicts = claims.markdown(claims.judge(cli._claims(), runs))
    text = "\n".join([*(table.markdown() for table in tables), verdicts])
    assert report.between_markers(README, text) == README, (
        "out of date; write it with: python -m invariance report --runs experiments/results --readme README.md"
    )


def test_findings_on_recognition_cite_committed_runs():
    from experiments import leftover, published
    from experiments.recognition_rotation import FINDINGS, _free_digits

    runs = results.find(REPOSITORY / "experiments/results")[0]
    runs = [run for run in runs if run.metrics["experiment"] == "recognition_rotation"]
    known = {report.share(run.metrics[key]) for run in runs for key in report.NAMES}
    known |= {report.share(leftover.without(model)[key]) for model in FINDINGS for key in ("p_out", "p_inv")}
    known |= {report.share(_free_digits(model)) for model in published.RECOGNITION_DRAWINGS}
    cited = re.findall(r"(?<!\d)\.\d{4}", " ".join(text for texts in FINDINGS.values() for text in texts.values()))
    assert cited and set(cited) <= known
    known |= {report.share(value) for four in published.RECOGNITION_ROTATION.values() for value in four.values()}
    known |= {report.share(leftover.without("cnn_bn_00")[key]) for key in ("p_out", "p_inv")}
    cited = re.findall(r"(?<!\d)\.\d{4}", " ".join(claim.finding for claim in cli._claims()))
    assert cited and set(cited) <= known


def test_what_is_said_of_the_wider_code_is_what_the_committed_runs_say():
    from experiments import published
    from experiments.generation_rotation import FINDINGS

    def numbers(text):
        return set(re.findall(r"(?<![\d.])(?:\.\d{4}|\d\.\d\d)(?!\d)", text))

    printed = published.GENERATION_ROTATION
    errors = {printed[model]["mse_out"][4] for model in ("ae_rotation", "ae_rotation_z128")}
    ratios = {printed["ae_rotation_z128"]["ratio"][4]}
    for run in results.find(REPOSITORY / "experiments/results")[0]:
        if run.metrics["model"].startswith("ae_rotation") and run.metrics["seed"] == 0:
            errors |= set(run.metrics["mse_out"].values())
            ratios |= set(run.metrics["ratio"].values())
    known = {report.share(value) for value in errors} | {f"{value:.2f}" for value in ratios}
    [section] = re.findall(r"\n## With a wider code.*?(?=\n## )", README, re.DOTALL)
    for text in (section, *FINDINGS["ae_rotation_z128"].values()):
        assert numbers(text) and numbers(text) <= known


def test_findings_on_shift_cite_committed_runs():
    from experiments.generation_shift import FINDINGS

    (model,) = FINDINGS
    short, long = (
        results.RunFolder(REPOSITORY / f"experiments/results/generation_shift/mnist/standard/{name}/seed-0").json(
            "metrics.json"
        )
        for name in (model, f"{model}+steps=12000")
    )
    for number, text in FINDINGS[model].items():
        digit = number[-1]
        errors = [report.share(run[key][digit]) for key in ("mse_in", "mse_out") for run in (short, long)]
        cited = re.findall(r"(?<![\d.])(?:\.\d{4}|\d\.\d\d)(?!\d)", text)
        assert cited == [*errors, f"{long['ratio'][digit]:.2f}"]


def test_what_is_said_of_images_left_upright_is_what_the_committed_runs_say():
    from experiments import leftover, published

    [said] = re.findall(r"Networks of ours.*?To make them", README, re.DOTALL)
    means, usual = [], []
    for run in results.find(REPOSITORY / "experiments/results")[0]:
        for file in sorted(run.folder.path.glob("redraws*.json")):
            drawn = run.folder.json(file.name)
            assert run.metrics["model"] == "cnn_bn_00" and drawn["dataset"] == "mnist"
            assert drawn["run"] == {key: run.config[key] for key in drawn["run"]}
            assert drawn["redraws"]["p_inv"]["redraws"] == 100
            p_out, p_inv = (drawn["redraws"][key] for key in ("p_out", "p_inv"))
            three = p_inv["mean"], leftover.mean_square(p_inv["mean"], p_inv["variance"]), p_out["mean"]
            assert drawn["upright_last"] in (0, leftover.LEFT)
            if drawn["upright_last"]:
                means.append(three)
            else:
                usual += three
    printed = published.RECOGNITION_DRAWINGS["cnn_bn_00"]
    theirs = printed["p_inv"][0], leftover.mean_square(*printed["p_inv"]), printed["p_out"][0]
    numbers = [number for ours, its in zip(zip(*means, strict=True), theirs, strict=True) for number in (*ours, its)]
    assert re.findall(r"(?<![\d.])\.\d{4}", said) == [report.share(number) for number in (*numbers, *usual)]


def test_what_is_said_of_digit_1_and_shifts_is_what_the_committed_runs_say():
    """Without the end of the range its ratio lies below the claim's bound, or near it; its error is the smallest."""
    [claim] = [claim for claim in cli._claims() if claim.name == "S1"]
    found = []
    for run in results.find(REPOSITORY / "experiments/results")[0]:
        if run.metrics["model"] == "ae_shift" and run.metrics["profile"] == "standard":
            metrics = run.metrics
            errors = {
                float(row["parameter"]): float(row["value"])
                for row in run.folder.csv("curves.csv")
                if row["digit"] == 1
            }
            outside = [errors[at] for at in errors if abs(at) >= 8]
            assert sum(outside) / len(outside) == pytest.approx(metrics["mse_out"]["1"])
            without = [errors[at] for at in errors if abs(at) >= 8 and at != -20]
            found.append(sum(without) / len(without) / metrics["mse_in"]["1"])
            assert min(metrics["mse_out"], key=metrics["mse_out"].get) == "1"
            assert [digit for digit, ratio in metrics["ratio"].items() if ratio > 1.4 and digit not in "49"] == ["1"]
    assert f"{min(found):.2f} to {max(found):.2f}" in claim.finding


def test_committed_runs_are_of_committed_code_and_without_weights():
    for run in results.find(REPOSITORY / "experiments/results")[0]:
        assert re.fullmatch(r"[0-9a-f]{40}", run.config["commit"]), run.folder.path
        assert not list(run.folder.path.glob("*.keras"))


def test_pictures_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    for picture in pictures:
        assert (REPOSITORY / picture).is_file(), picture


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--[a-z][a-z-]+", README))))
def test_options_exist(option):
    from experiments.recognition_rotation import EXPERIMENT

    known = cli.experiment_parser(EXPERIMENT).format_help()
    elsewhere = ("--json", "--redraws", "--readme", "--runs", "--upright-last")  # of python -m invariance
    assert option in known or option in elsewhere
