"""Claims that runs can support or contradict, each with a criterion that is declared before any run.

Plain data and arithmetic: no TensorFlow.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from invariance.experiment import COMPARABLE, PROFILES, comparable
from invariance.report.statistics import aggregate
from invariance.runs.find import Run

REPRODUCED, CONTRADICTED, UNDECIDED, UNTESTED = "reproduced", "contradicted", "undecided", "not yet tested"
# Runs that differ only in their seed decide if so large a share of their combinations agrees.
AGREEMENT = 0.95
# Of more combinations than these, so many drawn at random are judged.
COMBINATIONS = 1000


@dataclass(frozen=True)
class Claim:
    """What an article says, and how it is judged.

    Args:
        name: short, such as "R1".
        text: the claim, one sentence.
        conditions: it holds if all of them do: in words -> from model -> metrics (means over the seeds) to truth
            value. They are called with at least ``models``.
        experiment: the experiment whose runs decide.
        models: all of them must have been run, in one profile.
        shows: the numbers it rests on: from the same metrics to text.
        finding: what was found out about it, shown where it is not reproduced.
    """

    name: str
    text: str
    conditions: Mapping[str, Callable[[Mapping[str, Mapping]], bool]]
    experiment: str
    models: tuple[str, ...]
    shows: Callable[[Mapping[str, Mapping]], str]
    finding: str = ""

    @property
    def criterion(self) -> str:
        """All conditions."""
        return "; ".join(self.conditions)

    def failed(self, metrics: Mapping[str, Mapping]) -> tuple[str, ...]:
        """Those conditions that do not hold."""
        return tuple(text for text, holds in self.conditions.items() if not holds(metrics))


@dataclass(frozen=True)
class Verdict:
    """What the runs say of a claim.

    Attributes:
        claim: the claim.
        verdict: `REPRODUCED`, `CONTRADICTED`, `UNDECIDED` (runs that differ only in their seed disagree) or
            `UNTESTED`.
        profile: of the runs; None where there are none.
        provisional: whether their profile is too short for a verdict that counts.
        failed: the conditions that do not hold; of an undecided one those that hold in some combinations only, with
            the number of those in which they do not.
        numbers: those it rests on, as text.
        seeds: model -> seeds.
        holding: of the combinations of one run of each model, in how many it holds; and how many there are.
        command: what would test it, for an untested or provisional one.
    """

    claim: Claim
    verdict: str
    profile: str | None = None
    provisional: bool = False
    failed: tuple[str, ...] = ()
    numbers: str = ""
    seeds: Mapping[str, tuple[int, ...]] | None = None
    holding: tuple[int, int] = (0, 0)
    command: str | None = None

    def reasons(self) -> list[str]:
        """What it rests on, line by line; commands in backquotes."""
        lines = [f"Criterion: {self.claim.criterion}"]
        if self.numbers:
            lines.append(f"Numbers ({self.profile}): {self.numbers}")
        if self.failed:
            lines.append(f"Fails: {'; '.join(self.failed)}")
        if self.seeds:
            seeds = "; ".join(f"{model} {', '.join(map(str, seeds))}" for model, seeds in self.seeds.items())
            lines.append(f"Seeds: {seeds}" + (f" (it {self._held()})" if self.holding[1] > 1 else ""))
        if self.claim.finding and self.verdict in (CONTRADICTED, UNDECIDED):
            lines.append(f"Finding: {self.claim.finding}")
        if self.command:
            lines.append(f"To test it: `{self.command}`")
        return lines

    def _held(self) -> str:
        """For how many seeds it holds, as text."""
        number = f"{self.holding[0]} of {self.holding[1]}"
        return f"holds {f'with {number} seeds' if len(self.seeds) == 1 else f'in {number} combinations of seeds'}"

    def called(self) -> str:
        """The verdict, whether it is provisional, and for how many seeds the claim holds."""
        remarks = ["provisional"] if self.provisional else []
        single = any(len(seeds) == 1 for seeds in (self.seeds or {}).values())
        if single:
            remarks.append("one seed")
        if self.holding[1] > 1 and (self.verdict == UNDECIDED or not single):
            remarks.append(self._held())
        return self.verdict + (f" ({', '.join(remarks)})" if remarks else "")

    def text(self) -> str:
        """Lines for a terminal."""
        first = f"{self.claim.name}  {self.called()}: {self.claim.text}"
        return "\n    ".join([first, *(line.replace("`", "") for line in self.reasons())])


def markdown(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as a table."""
    lines = ["| claim | | verdict | fails |", "|---" * 4 + "|"]
    for verdict in verdicts:
        cells = (verdict.claim.name, verdict.claim.text, verdict.called(), "; ".join(verdict.failed))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def judge(claims: Iterable[Claim], runs: Iterable[Run], dataset: str = "mnist") -> list[Verdict]:
    """The verdicts on some claims.

    The longest profile in which all of a claim's models have been run decides; further models of that profile are
    handed to the criterion too.

    Args:
        claims: to be judged.
        runs: finished runs; those on other data than ``dataset`` are omitted.
        dataset: what the claims were made on.
    """
    groups: dict[tuple[str, str], dict[str, dict[int, Mapping]]] = {}
    for run in runs:
        metrics = run.metrics
        if metrics["dataset"] == dataset and metrics["profile"] in PROFILES:
            models = groups.setdefault((metrics["experiment"], metrics["profile"]), {})
            models.setdefault(metrics["model"], {})[metrics["seed"]] = metrics
    return [_verdict(claim, groups) for claim in claims]


def _verdict(claim: Claim, groups: Mapping) -> Verdict:
    command = f"make {claim.experiment.replace('_', '-')} PROFILE={COMPARABLE} MODELS={','.join(claim.models)}"
    for profile in reversed(PROFILES[1:]):
        models = groups.get((claim.experiment, profile), {})
        if not set(claim.models) <= models.keys():
            continue
        means = {model: _mean(list(seeds.values())) for model, seeds in models.items()}
        try:
            failed, numbers = claim.failed(means), claim.shows(means)
            alone = [
                claim.failed(means | dict(zip(claim.models, each, strict=True)))
                for each in _combinations([list(models[model].values()) for model in claim.models])
            ]
        except (KeyError, TypeError, ZeroDivisionError):
            # Runs that lack a number, of other classes say, decide nothing.
            continue
        provisional = not comparable(profile)
        holding, verdict = alone.count(()), CONTRADICTED if failed else REPRODUCED
        if (len(alone) - holding if failed else holding) < AGREEMENT * len(alone):
            verdict = UNDECIDED
            counts = Counter(text for each in alone for text in each)
            failed = tuple(f"{text} ({counts[text]} of {len(alone)})" for text in claim.conditions if counts[text])
        return Verdict(
            claim,
            verdict,
            profile,
            provisional,
            failed,
            numbers,
            {model: tuple(sorted(models[model])) for model in claim.models},
            (holding, len(alone)),
            command if provisional else None,
        )
    return Verdict(claim, UNTESTED, command=command)


def _combinations(trainings: Sequence[Sequence]) -> list[tuple]:
    """One run of each model, in all combinations, or in some drawn at random if there are very many."""
    if prod(map(len, trainings)) <= COMBINATIONS:
        return list(product(*trainings))
    draw = random.Random(0)
    return [tuple(map(draw.choice, trainings)) for _ in range(COMBINATIONS)]


def _mean(values: Sequence) -> Any:
    """Metrics averaged over runs: numbers, and dictionaries of numbers; anything else is that of the first."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _mean([value[key] for value in values]) for key in first if all(key in each for each in values)}
    if isinstance(first, (int, float)) and all(isinstance(value, (int, float)) for value in values):
        return aggregate(values)[0]
    return first
