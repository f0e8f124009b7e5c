"""Finished runs, evaluated again by ``python -m invariance evaluate``. Their folders do not change."""

import json
import shutil

import numpy as np
import pytest

from invariance.cli import main
from invariance.runs.find import find
from invariance.runs.folder import ORBIT, RunFolder
from invariance.tasks.columns import share
from tests.helpers import refused
from tests.runs import cases

# In one process, which carries out the shared runs once.
pytestmark = pytest.mark.xdist_group("runs")

RECOGNITION, ROTATED = "recognition_by_rotation", "generation_by_rotation"


@pytest.fixture
def evaluate(capsys, whole, tmp_path):
    """Evaluates a case's run: (lines printed, what was written as JSON, the run's config.json)."""

    def of(name, *options):
        folder, file = whole(name), tmp_path / "again.json"
        before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.path.iterdir()}
        assert main(["evaluate", str(folder.path), "--json", str(file), *options]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.path.iterdir()} == before
        written, config = json.loads(file.read_text()), folder.json("config.json")
        assert written["run"] == {key: config[key] for key in ("experiment", "model", "profile", "seed", "commit")}
        assert written["versions"] == config["versions"]
        return out.splitlines(), written, config

    return of


def test_recognition(evaluate, whole):
    lines, written, _ = evaluate(RECOGNITION, "--grid-spacing", "45", "--redraws", "2", "--upright-last", "3")
    # Of the 60 test images those of 6 and 9 are left out.
    assert lines[0] == f"{RECOGNITION} on own: 8 values of the angle, {written['images']} test images"
    settings = written["evaluation"]
    assert (settings["spacing"], settings["redraws"], settings["upright_last"]) == (45, 2, 3)
    measured = written["measured"]
    titles = {"P_test": "p_test", "P_in": "p_in", "P_out": "p_out", "P_inv": "p_inv"}
    for title, key in titles.items():
        [line] = [line for line in lines if line.startswith(f"{title} ")]
        low, high = measured["interval"][key]
        assert f" {measured[key]:.4f} (95 % over images {low:.4f} to {high:.4f})" in line
        assert f"  2 redraws: mean {measured['redraws'][key]['mean']:.4f}, variance " in line
    # The run itself was measured on four images of each class; here, all count.
    assert sum(measured["images"][key] for key in titles.values()) > 32 + 3 * 8
    again = whole(RECOGNITION).json("metrics.json")
    assert again["redraws"].keys() == measured["redraws"].keys()


def test_generation(evaluate):
    lines, written, _ = evaluate(ROTATED, "--grid-spacing", "90")
    # Four angles, and the four at which nothing is blurred.
    assert lines[0] == f"{ROTATED} on own: 8 values of the angle, 60 test images"
    assert lines[1] == "mean squared errors of pixels in [-1, 1]"
    assert [line.split(":")[0] for line in lines[2:]] == [str(digit) for digit in range(10)]
    assert [line.endswith("(restricted)") for line in lines[2:]] == [digit in (4, 9) for digit in range(10)]
    for line in lines[2:]:
        words = line.replace("(restricted)", "").split()
        assert words[1::2] == ["in", "out", "ratio"]
        assert words[-1] == f"{written['measured']['ratio'][line[0]]:.2f}"
        inside, outside, ratio = map(float, words[2::2])
        # Four decimals of numbers from .1, and two.
        assert ratio == pytest.approx(outside / inside, abs=0.006)


def test_other_data(evaluate):
    lines, written, config = evaluate(RECOGNITION, "--grid-spacing", "90", "--dataset", "digits")
    assert (written["dataset"], config["dataset"]) == ("digits", "own")
    # All of the embedded digits' 360 test images but those of 6 and 9.
    assert 270 < written["images"] < 300 and lines[0].startswith(f"{RECOGNITION} on digits: 4 values of the angle, ")


def without_seconds(folder):
    return {key: value for key, value in folder.json(ORBIT).items() if key != "seconds"}


def test_orbit_pooling_is_the_same_at_the_end_of_a_run_and_later(data, tmp_path, capsys):
    """A run that is measured on all test images has it; another's file is added, and its own do not change."""
    entry = cases.CASES[RECOGNITION].entry.with_budgets(images_per_class=None)
    folder = cases.run(cases.config(RECOGNITION, data, entry=entry, seed=4), tmp_path)
    at_the_end = without_seconds(folder)
    assert (at_the_end["copies"], at_the_end["seed"]) == (16, 4)
    assert at_the_end["commit"] == folder.json("config.json")["commit"]
    metrics = folder.json("metrics.json")
    assert at_the_end["images"] == metrics["images"] and not {"orbit", "copies"} & set(metrics)
    assert find(tmp_path)[0][0].orbit == folder.json(ORBIT)
    (folder / ORBIT).unlink()
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.path.iterdir()}
    assert main(["evaluate", str(folder.path), "--orbit", "16"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and without_seconds(folder) == at_the_end
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.path.iterdir()}
    assert after.pop(ORBIT) and after == before
    pooled = at_the_end["pooled"]
    assert out.splitlines()[0].startswith("orbit pooling, 16 copies (K3: the transformation, at test time)")
    for line, name in zip(out.splitlines()[1:], ("max", "mean"), strict=False):
        assert line.startswith(f"{name}: P_test {share(pooled[name]['p_test'])} (")
    # Measured again with fewer copies, it is replaced.
    assert main(["evaluate", str(folder.path), "--orbit", "2"]) == 0
    assert folder.json(ORBIT)["copies"] == 2


@pytest.mark.parametrize(
    "name, options, expected",
    [
        (RECOGNITION, ("--orbit", "1"), "--orbit: expected an integer from 2 to 10000; received '1'"),
        (RECOGNITION, ("--orbit", "4", "--redraws", "2"), "--orbit cannot be combined with --redraws"),
        (RECOGNITION, ("--orbit", "4", "--dataset", "digits"), "--orbit cannot be combined with --dataset"),
        (ROTATED, ("--orbit", "4"), "--orbit: only recognition"),
    ],
)
def test_impossible_orbits_are_refused(whole, capsys, name, options, expected):
    folder = whole(name)
    refused(capsys, lambda: main(["evaluate", str(folder.path), *options]), expected)
    # Nor is it measured at the end of a run on some images of each class.
    assert not (folder / ORBIT).exists()


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole(RECOGNITION).path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize(
    "damage", [lambda file: file[: len(file) // 2], lambda file: file[:1000] + bytes(200) + file[1200:]]
)
def test_damaged_model_is_refused(copy, capsys, damage):
    (copy / "model.keras").write_bytes(damage((copy / "model.keras").read_bytes()))
    action = lambda: main(["evaluate", str(copy.path), "--grid-spacing", "45"])  # noqa: E731
    refused(capsys, action, "model.keras: cannot be loaded (")


def test_changed_data_are_refused(copy, capsys, data):
    config = copy.json("config.json")
    config["data_sha256"]["x_test"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(config))
    action = lambda: main(["evaluate", str(copy.path)])  # noqa: E731
    refused(capsys, action, f"{data} has changed since the run", f"--dataset {data}")


def test_images_of_another_size_are_refused(copy, capsys, tmp_path):
    images, labels = np.zeros((20, 9, 9), "uint8"), np.arange(20) % 10
    np.savez(tmp_path / "small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    action = lambda: main(["evaluate", str(copy.path), "--dataset", str(tmp_path / "small.npz")])  # noqa: E731
    refused(capsys, action, "the model takes (28, 28, 1), but the images are (9, 9, 1)")
