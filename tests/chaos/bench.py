"""Damages files of runs and gives options odd texts, and has commands answer."""

import os
import shutil
import signal

from invariance import cli
from invariance.cli.run import parser
from tests.chaos import kills, process
from tests.chaos.answers import Answer, answered, forked, plausible
from tests.chaos.comparison import differences
from tests.chaos.damages import DAMAGES, any_text, flipped, other_value, removed
from tests.chaos.kills import Ended
from tests.helpers import store_run

# Who reads a file.
READERS = {
    "config.json": ("report", "list", "repeat"),
    "metrics.json": ("report", "list", "repeat"),
    "curves.csv": ("page",),
    "model.keras": ("evaluate",),
}
SPACING = "45"
# P_test of the other run in the folder, which must be reported whatever the damage.
OTHER = ".9800"


class Bench:
    """Commands that read the folder of a finished run, beside another good one.

    Args:
        family: the run.
        whole: the same run, finished.
        scratch: an empty folder to work in.
    """

    def __init__(self, family, whole, scratch):
        self.family, self.scratch, self.runs = family, scratch, scratch / "runs"
        self.source = family.folder(whole.runs).path
        self.folder = family.folder(self.runs).path
        self.usual = {}
        store_run(self.runs)
        pictures = [name for name in family.declared.task.pictures() if (self.source / name).exists()]
        self.readers = {name: by for name, by in READERS.items() if (self.source / name).exists()}
        self.readers |= dict.fromkeys(pictures, ("page",))

    def restore(self):
        """Puts the run's folder back as it was."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.source, self.folder)

    def command(self, name):
        """Carries out a command: how it ended, with what it wrote to a page in its output."""
        runs, page = str(self.runs), self.scratch / "page"
        page.unlink(missing_ok=True)
        actions = {
            "report": lambda: cli.main(["report", "--runs", runs, "--markdown", str(page)]),
            "page": lambda: cli.main(["report", "--runs", runs, "--html", str(page)]),
            "list": lambda: cli.main(["list", "--runs", runs]),
            "repeat": lambda: cli.run_experiment(self.family.declared, self.family.argv(runs)),
            "evaluate": lambda: cli.main(["evaluate", str(self.folder), "--grid-spacing", SPACING]),
        }
        ended = forked(actions[name], self.scratch)
        written = page.read_text(encoding="utf-8") if page.exists() else ""
        return Ended(ended.code, ended.out + written, ended.err)

    def undamaged(self, name):
        """What a command prints of the undamaged folder.

        Raises:
            RuntimeError: if it fails.
        """
        if name not in self.usual:
            self.restore()
            ended = self.command(name)
            if ended.code != 0 or ended.err:
                raise RuntimeError(f"{name} of an undamaged run ended with code {ended.code}: {ended.err}")
            self.usual[name] = ended.out
        return self.usual[name]

    def damage(self, rng):
        """Damages a file at random, and has a command read it."""
        name = rng.choice(sorted(self.readers))
        if name == "model.keras" and rng.random() < 0.7:  # this takes far longer than all the others
            name = "metrics.json"
        action, reader = rng.choice(DAMAGES), rng.choice(self.readers[name])
        if (name, action) == ("metrics.json", removed) and reader == "repeat":
            reader = "report"  # the run would begin again
        if action is other_value and not name.endswith((".json", ".csv")):
            action = flipped
        usual = self.undamaged(reader)
        self.restore()
        path, original = self.folder / name, (self.source / name).read_bytes()
        what = f"{reader} of {name}, {action(path, rng)}"
        before = contents(self.folder)
        ended = self.command(reader)
        outcome = answered(ended, OTHER if reader in ("report", "page") else "")
        if contents(self.folder) != before:
            what, outcome = f"{what}: changed the folder", "wrongly accepted"
        if outcome is None:
            if ended.out == usual:
                outcome = "no effect"
            elif self._named(name, ended.out):
                outcome = "one line"
            else:
                outcome = "plausible" if plausible(path, original) else "wrongly accepted"
        return Answer(f"file {action.__name__.replace('_', ' ')}", outcome, f"{what} -> {ended.err.strip()[-200:]}")

    def _named(self, name, out):
        """Whether an output that is no error says that something is wrong with a file, or with its run."""
        reasons = out.replace(f"{self.folder}: finished", "")
        known = (self.folder / name, f"{self.folder}: ", f"without {name}", f"and {name}")
        return any(str(each) in reasons for each in known)

    def options(self, rng):
        """Gives an option any text. No run is begun."""
        made = parser(self.family.declared)
        known = [each.option_strings[0] for each in made._actions if each.nargs != 0 and each.option_strings]
        option, kind = rng.choice(known), rng.choice(("any", "any", "empty", "control", "twice"))
        text, must_be_refused = any_text(rng), kind != "any"
        if kind == "empty":
            text = rng.choice(("", " ", "\t"))
            must_be_refused = option not in ("--restricted", "--excluded")  # none of them
        elif kind == "control":
            text = f"a{rng.choice(chr(27) + chr(10) + chr(0) + chr(7))}b"
        given = [f"{option}={text}"]
        if kind == "twice":
            option, text = rng.choice((("--models", self.family.model), ("--seed", "1"), ("--excluded", "6")))
            given = [option, text] * 2
        folder = self.scratch / "empty"
        folder.mkdir(exist_ok=True)
        argv = ["--profile", "smoke", "--dataset", "digits", "--print-config", *given]
        ended = forked(lambda: cli.run_experiment(self.family.declared, argv), folder)
        outcome = answered(ended, "") or ("wrongly accepted" if must_be_refused else "plausible")
        if any(folder.iterdir()):
            outcome = "wrongly accepted"
        return Answer(f"option {kind}", outcome, f"{given} -> {ended.err.strip()[-200:]}")

    def checkpoint(self, whole, rng):
        """Damages the checkpoint of a run that was killed, and repeats its command.

        It names the damage, and --overwrite starts again; or it ends as if nothing had happened.
        """
        runs, record = self.scratch / "unfinished", self.scratch / "calls"
        record.unlink(missing_ok=True)
        shutil.rmtree(runs, ignore_errors=True)
        saved = [number for number, call in enumerate(whole.calls, 1) if call == "replace checkpoint.npz"]
        order = process.order(rng.choice(saved), True, signal.SIGKILL, "all")
        kills.finish(kills.start(self.family.module, self.family.argv(runs), record, runs, order))
        folder = self.family.folder(runs).path
        path = rng.choice(sorted(folder.rglob("checkpoint.npz")))
        action = rng.choice([each for each in DAMAGES if each is not other_value])
        what = f"resuming from {path.relative_to(folder)}, {action(path, rng)}"
        before = contents(folder)
        ended = kills.finish(kills.start(self.family.module, self.family.argv(runs), record, runs))
        outcome = answered(ended, "")
        if outcome == "one line" and contents(folder) != before:
            what, outcome = f"{what}: changed the folder", "wrongly accepted"
        if outcome is None:
            (folder / "elsewhere").unlink(missing_ok=True)
            wrong = differences(folder, self.source)
            what, outcome = f"{what}: {', '.join(wrong)}", "wrongly accepted" if wrong else "no effect"
        return Answer(f"checkpoint {action.__name__}", outcome, f"{what} -> {ended.err.strip()[-200:]}")


def contents(folder):
    """Everything in a folder but its lock and what a kill left half written: name -> content, or what it is."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.name.startswith((".lock", ".partial-")):
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else oct(path.lstat().st_mode)
    return found
