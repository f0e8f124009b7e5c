"""``make chaos``: carries out trials until their number or the time is reached, and prints what became of them.

A trial's seed decides everything about it, the model included: ``--only SEED`` repeats it. Kills at changes of files
repeat exactly; kills at random times come after the same share of the run's duration.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.chaos import kills
from tests.chaos.answers import BAD, GOOD
from tests.chaos.bench import Bench
from tests.chaos.families import FAMILIES

# Inputs of each trial: damaged files, texts in options; and how often a checkpoint is damaged.
FILES, OPTIONS, CHECKPOINTS = 8, 4, 0.2


def arguments(argv=None):
    """The campaign's options."""
    made = argparse.ArgumentParser(prog="make chaos", description=__doc__.splitlines()[0])
    made.add_argument("--trials", type=int, default=50, help="default: %(default)s")
    made.add_argument("--minutes", type=float, default=30, help="no trial begins later; default: %(default)s")
    made.add_argument("--seed", type=int, default=0, help="of the first trial; default: %(default)s")
    made.add_argument("--only", type=int, metavar="SEED", help="repeat one trial")
    made.add_argument(
        "--families", default=",".join(FAMILIES), metavar="NAME,...", help=f"some of {', '.join(FAMILIES)}"
    )
    given = made.parse_args(argv)
    given.families = given.families.split(",")
    if unknown := set(given.families) - set(FAMILIES):
        made.error(f"--families: unknown {', '.join(sorted(unknown))}; choose from {', '.join(FAMILIES)}")
    return given


def seeds(given):
    """The seeds of the campaign's trials."""
    if given.only is not None:
        return [given.only]
    found, seed = [], given.seed
    while len(found) < given.trials:
        if family_of(seed) in given.families:
            found.append(seed)
        seed += 1
    return found


def family_of(seed):
    """The family that a trial of this seed runs; consecutive seeds run all of them."""
    return list(FAMILIES)[seed % len(FAMILIES)]


def campaign(given, scratch):
    """Carries out the trials; returns whether all was as it should be."""
    began, killed, counts, faults = time.monotonic(), Counter(), Counter(), 0

    @cache
    def whole(name):
        folder = scratch / "whole" / name
        folder.mkdir(parents=True)
        return kills.run_whole(FAMILIES[name], folder / "runs", folder)

    for done, seed in enumerate(seeds(given)):
        if time.monotonic() - began > 60 * given.minutes:
            print(f"stopped after {given.minutes:g} minutes and {done} trials")
            break
        name, folder = family_of(seed), scratch / f"trial-{seed}"
        family, rng = FAMILIES[name], random.Random(seed)
        folder.mkdir()
        try:
            verdict = kills.trial(family, whole(name), folder / "runs", folder, rng)
            bench = Bench(family, whole(name), folder)
            answers = [bench.damage(rng) for _ in range(FILES)] + [bench.options(rng) for _ in range(OPTIONS)]
            if rng.random() < CHECKPOINTS:
                answers.append(bench.checkpoint(whole(name), rng))
        except RuntimeError as error:
            print(f"seed {seed}  {name}: {error}", flush=True)
            faults += 1
            continue
        killed["tried"] += verdict.hits
        killed["runs"] += verdict.hits > 0
        killed["equal"] += verdict.hits > 0 and not verdict.faults
        counts.update((answer.kind, answer.outcome) for answer in answers)
        bad = [answer for answer in answers if answer.outcome in BAD]
        faults += len(verdict.faults) + len(bad)
        print(f"seed {seed}  {name}: {'; '.join(verdict.kills)}: {'NOT equal' if verdict.faults else 'equal'}; "
              f"{len(answers)} inputs, {len(bad)} badly answered", flush=True)  # fmt: skip
        for text in [*verdict.faults, *(f"{answer.outcome}: {answer.kind}: {answer.what}" for answer in bad)]:
            print(f"    {text}", flush=True)
        if verdict.faults or bad:
            print(f"    repeat it: make chaos ARGS='--only {seed}'", flush=True)
        with suppress(OSError):
            shutil.rmtree(folder)
    print(table(killed, counts))
    return not faults


def table(killed, counts):
    """What became of all kills and inputs."""
    columns = (*GOOD, *BAD)
    lines = [
        "",
        f"Kills tried: {killed['tried']}, in {killed['runs']} runs, of which {killed['equal']} ended equal to the "
        "uninterrupted run.",
        "",
        f"{'inputs':<22}{'tried':>7}" + "".join(f"{column:>{len(column) + 2}}" for column in columns),
    ]
    kinds = sorted({kind for kind, _ in counts})
    for kind in [*kinds, "all"]:
        numbers = [sum(counts[each, column] for each in kinds if kind in (each, "all")) for column in columns]
        cells = "".join(f"{number:>{len(column) + 2}}" for number, column in zip(numbers, columns, strict=True))
        lines.append(f"{kind:<22}{sum(numbers):>7}{cells}")
    lines += [
        "one line: the damage is named; no effect: the output is that without the damage; plausible: what is there",
        "could have been there (another digit in a number, an option's valid text), so no reader can know.",
    ]
    return "\n".join(lines)


def main(argv=None):
    """Returns the exit code: 1 if anything is not as it should be, 130 if stopped."""
    given = arguments(argv)
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        try:
            return 0 if campaign(given, Path(scratch)) else 1
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
