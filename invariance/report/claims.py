"""Claims that runs can support or contradict, each by declared criteria. Imports no TensorFlow."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from invariance.experiment import COMPARABLE, PROFILES, comparable
from invariance.report.statistics import mean
from invariance.report.table import markdown_table, warnings_of
from invariance.runs.find import Run

REPRODUCED, CONTRADICTED, UNDECIDED, UNTESTED = "reproduced", "contradicted", "undecided", "not yet tested"
# A claim is decided if this share of all combinations of seeds agrees.
AGREEMENT = 0.95
# If there are more combinations than this, a random sample of this size is judged.
COMBINATIONS = 1000


@dataclass(frozen=True)
class Claim:
    """A statement of an article, and how it is judged.

    Args:
        name: short, such as "R1".
        text: the claim, one sentence.
        conditions: the claim holds if all of them do. Each is described in words and computed from a mapping of models
            to metrics (means over the seeds) that contains at least ``models``.
        experiment: the experiment whose runs decide.
        models: all of them must have been run, in one profile.
        numbers: the numbers behind the verdict as text, from the same mapping.
        finding: why it is not reproduced: a text, or an object that is turned into one (``str``) whenever the verdict
            is shown.
    """

    name: str
    text: str
    conditions: Mapping[str, Callable[[Mapping[str, Mapping]], bool]]
    experiment: str
    models: tuple[str, ...]
    numbers: Callable[[Mapping[str, Mapping]], str]
    finding: object = ""

    @property
    def criterion(self) -> str:
        """All conditions in words."""
        return "; ".join(self.conditions)

    def failed(self, metrics: Mapping[str, Mapping]) -> tuple[str, ...]:
        """The conditions that do not hold."""
        return tuple(text for text, holds in self.conditions.items() if not holds(metrics))


@dataclass(frozen=True)
class Verdict:
    """What the runs say about a claim.

    Attributes:
        claim: the claim.
        verdict: `REPRODUCED`, `CONTRADICTED`, `UNDECIDED` (seeds disagree) or `UNTESTED`.
        profile: of the runs; None if there are none.
        provisional: whether that profile is too short for a final verdict.
        failed: the conditions that do not hold; of an undecided claim those that fail in some combinations of seeds,
            with the number of these combinations.
        numbers: the numbers behind the verdict, as text.
        seeds: model -> seeds.
        holding: in how many combinations of one seed of each model the claim holds, and how many there are.
        command: what would test an untested or provisional claim.
        warnings: what makes the numbers mean less than they seem to.
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
    warnings: tuple[str, ...] = ()

    def reasons(self) -> list[str]:
        """Criterion, numbers, failed conditions and so on, line by line; commands in backquotes."""
        lines = [f"Criterion: {self.claim.criterion}"]
        if self.numbers:
            lines.append(f"Numbers ({self.profile}): {self.numbers}")
        if self.failed:
            lines.append(f"Fails: {'; '.join(self.failed)}")
        if self.seeds:
            seeds = "; ".join(f"{model} {', '.join(map(str, seeds))}" for model, seeds in self.seeds.items())
            lines.append(f"Seeds: {seeds}" + (f" (it {self._holds()})" if self.holding[1] > 1 else ""))
        if self.claim.finding and self.verdict in (CONTRADICTED, UNDECIDED):
            lines.append(f"Finding: {self.claim.finding}")
        if self.command:
            lines.append(f"To test it: `{self.command}`")
        return lines

    def _holds(self) -> str:
        """For how many seeds the claim holds, as text."""
        number = f"{self.holding[0]} of {self.holding[1]}"
        return (
            f"holds {f'with {number} seeds' if len(self.claim.models) == 1 else f'in {number} combinations of seeds'}"
        )

    def summary(self) -> str:
        """The verdict, whether it is provisional, for how many seeds the claim holds, and the warnings."""
        remarks = ["provisional"] if self.provisional else []
        single = any(len(seeds) == 1 for seeds in (self.seeds or {}).values())
        if single:
            remarks.append("one seed")
        if self.holding[1] > 1 and (self.verdict == UNDECIDED or not single):
            remarks.append(self._holds())
        remarks += self.warnings
        return self.verdict + (f" ({', '.join(remarks)})" if remarks else "")

    def text(self) -> str:
        """Lines for a terminal."""
        first = f"{self.claim.name}  {self.summary()}: {self.claim.text}"
        return "\n    ".join([first, *(line.replace("`", "") for line in self.reasons())])


def markdown(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as a table."""
    rows = [(each.claim.name, each.claim.text, each.summary(), "; ".join(each.failed)) for each in verdicts]
    return markdown_table(("claim", "", "verdict", "fails"), rows) + "\n"


def judge(claims: Iterable[Claim], runs: Iterable[Run], dataset: str = "mnist") -> list[Verdict]:
    """Verdicts on claims.

    The longest profile in which all of a claim's models have been run decides. The conditions see all models of that
    profile.

    Args:
        claims: to be judged.
        runs: finished runs; those on data other than ``dataset`` are ignored.
        dataset: the data the claims are about.
    """
    groups: dict[tuple[str, str], dict[str, dict[int, Run]]] = {}
    for run in runs:
        metrics = run.metrics
        if metrics["dataset"] == dataset and metrics["profile"] in PROFILES:
            models = groups.setdefault((metrics["experiment"], metrics["profile"]), {})
            models.setdefault(metrics["model"], {})[metrics["seed"]] = run
    return [_verdict(claim, groups) for claim in claims]


def _verdict(claim: Claim, groups: Mapping) -> Verdict:
    command = f"make {claim.experiment.replace('_', '-')} PROFILE={COMPARABLE} MODELS={','.join(claim.models)}"
    for profile in reversed(PROFILES[1:]):
        runs = groups.get((claim.experiment, profile), {})
        if not set(claim.models) <= runs.keys():
            continue
        models = {model: {seed: run.metrics for seed, run in seeds.items()} for model, seeds in runs.items()}
        means = {model: mean(list(seeds.values())) for model, seeds in models.items()}
        try:
            failed, numbers = claim.failed(means), claim.numbers(means)
            alone = [
                claim.failed(means | dict(zip(claim.models, each, strict=True)))
                for each in _combinations([list(models[model].values()) for model in claim.models])
            ]
        except (KeyError, TypeError, ValueError, ArithmeticError):
            # Runs that lack a number, because of other classes, say, decide nothing.
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
            tuple(f"{model} {text}" for model in claim.models for text in warnings_of(runs[model].values())),
        )
    return Verdict(claim, UNTESTED, command=command)


def _combinations(runs: Sequence[Sequence]) -> list[tuple]:
    """All combinations of one run of each model, or a random sample if there are very many."""
    if prod(map(len, runs)) <= COMBINATIONS:
        return list(product(*runs))
    draw = random.Random(0)
    return [tuple(map(draw.choice, runs)) for _ in range(COMBINATIONS)]
