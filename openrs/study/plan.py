"""Which jobs to run, in which order: most claims decided per dollar first, within a budget. Never imports torch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import fsum, inf, prod
from pathlib import Path

from openrs.errors import UserError
from openrs.report.evidence import reference
from openrs.report.verdicts.claims import SEEDS, Claim
from openrs.study.jobs import Job, Machine, Range, expanded, jobs_of, total
from openrs.study.settings import Study, study_claims

Ways = Mapping[str, list[tuple[str, ...]]]  # claim -> sets of jobs, any one of which is enough for it

MOST_WAYS = 4096  # ways to decide all claims that are compared; beyond them the greedy order decides


@dataclass(frozen=True, slots=True)
class Power:
    """Chance of a verdict other than `cannot tell`: if the paper is right, and if the re-evaluations are."""

    paper: float
    again: float

    @property
    def mean(self) -> float:
        return (self.paper + self.again) / 2


Powers = Mapping[str, Power]
"""Claim -> power, of the claims that data can decide."""


@dataclass(frozen=True, slots=True)
class Row:
    """Jobs of one entry that are run one after another: one benchmark of a model, or all seeds of a training.

    decides: claims that can be decided once these and all rows before are done. tests: claims that can then be found
    not reproduced or compatible, and no more. total: dollars of all rows up to this.
    """

    jobs: tuple[Job, ...]
    hours: Range | None
    dollars: Range | None
    decides: tuple[str, ...]
    tests: tuple[str, ...]
    total: Range | None

    @property
    def name(self) -> str:
        return self.jobs[0].entry if self.jobs[0].training else self.jobs[0].id

    @property
    def seeds(self) -> list[int]:
        return [job.seed for job in self.jobs if job.seed is not None]


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """rows: what is run, in order. beyond: what the budget leaves out. others: jobs that no claim needs any more.
    never: claims that no money decides, and why."""

    study: Study
    machine: Machine
    claims: Sequence[Claim]
    powers: Powers
    rows: Sequence[Row]
    beyond: Sequence[Row]
    others: Sequence[Row]
    never: Sequence[tuple[Claim, str]]

    @property
    def decidable(self) -> list[str]:
        never = {claim.id for claim, _ in self.never}
        return [claim.id for claim in self.claims if claim.id not in never]

    @property
    def decided(self) -> list[str]:
        return [name for row in self.rows for name in row.decides]

    def frontier(self) -> list[tuple[float, int, float, float]]:
        """Dollars, claims that can be decided, claims that will be if the paper is right, and if the re-evaluations."""
        points, count, paper, again = [(0.0, 0, 0.0, 0.0)], 0, 0.0, 0.0
        for row in [*self.rows, *self.beyond]:
            if row.decides and row.total is not None:
                count += len(row.decides)
                paper += sum(self.powers[name].paper for name in row.decides if name in self.powers)
                again += sum(self.powers[name].again for name in row.decides if name in self.powers)
                points.append((row.total.expected, count, paper, again))
        return points


def make_plan(
    study: Study,
    machine: Machine,
    folder: Path,
    powers: Powers,
    *,
    budget: float | None = None,
    hours: float | None = None,
) -> StudyPlan:
    """The plan. budget: dollars, hours: of wall clock, both as expected. Raises UserError as jobs_of does."""
    return _Planner(study, machine, folder, powers, budget=budget, hours=hours).plan()


class _Planner:
    def __init__(
        self, study: Study, machine: Machine, folder: Path, powers: Powers, *, budget: float | None, hours: float | None
    ) -> None:
        self.study, self.machine, self.powers, self.budget, self.hours = study, machine, powers, budget, hours
        self.jobs = {job.id: job for job in jobs_of(study, machine, folder)}
        self.claims = study_claims(study)
        every = list(self.jobs.values())
        self.ways: dict[str, list[tuple[str, ...]]] = {}
        self.never: list[tuple[Claim, str]] = []
        self.hopeless = set[str]()  # with these jobs on this machine
        for claim in self.claims:
            ways = [
                tuple(dict.fromkeys(job.id for need in needs for job in expanded(need, every)))
                for needs in study.claims[claim.id].needs
            ]
            faults = [self._fault(way) for way in ways]
            self.ways[claim.id] = [way for way, fault in zip(ways, faults, strict=True) if not fault]
            reason = why_never(claim, machine) or ("" if self.ways[claim.id] else next(iter(faults), ""))
            if reason:
                self.never.append((claim, reason))
            if reason and claim.at_most == "reproduced":
                self.hopeless.add(claim.id)
        self.decidable = {claim.id for claim in self.claims}.difference(claim.id for claim, _ in self.never)

    def plan(self) -> StudyPlan:
        self._refuse_unknown()
        decide: Ways = {name: ways for name, ways in self.ways.items() if name in self.decidable and ways}
        test: Ways = {n: ways for n, ways in self.ways.items() if n not in self.decidable | self.hopeless and ways}
        if self.budget is None and self.hours is None:
            decide = self._cheapest(decide)
        order, beyond = self._ordered(decide, test)
        rest = [name for name in self.jobs if name not in {*order, *beyond}]
        rows, left, others = self._rows(order, ()), self._rows(beyond, order), self._rows(rest, (*order, *beyond))
        return StudyPlan(self.study, self.machine, self.claims, self.powers, rows, left, others, self.never)

    def _fault(self, way: tuple[str, ...]) -> str:
        """Why these jobs decide nothing, or ""."""
        jobs = [self.jobs[name] for name in way]
        if any(job.fits is False for job in jobs):
            return f"does not fit on {self.machine.gpus} x {self.machine.gpu.name}"
        continued = {job.after for job in jobs}
        runs = sum(job.training and job.id not in continued for job in jobs)
        return f"fewer than {SEEDS} seeds decide nothing" if 0 < runs < SEEDS else ""

    def _refuse_unknown(self) -> None:
        """A limit that nobody can keep: what has no price, or takes nobody knows how long, would count as free."""
        gpu = self.machine.gpu.name
        if self.budget is not None and self.machine.price is None:
            raise UserError(f"--budget {self.budget:g}: no price is known for {gpu}", fix="give --price as well")
        unknown = [job.id for job in self.jobs.values() if job.hours is None and job.fits is not False]
        if unknown and (self.budget is not None or self.hours is not None):
            raise UserError(
                f"how long {unknown[0]} takes on {gpu} is not known, so no plan keeps to a limit",
                fix="leave out --budget and --hours; --until-hours ends a launch after a time",
            )

    # --- order --------------------------------------------------------------------------------------------------------

    def _ordered(self, decide: Ways, test: Ways) -> tuple[list[str], list[str]]:
        """Jobs in order: what decides, most per dollar first, then what tests; and those that the budget leaves out.

        A claim that the budget leaves out is tried again with each of its ways, so that a cheaper one is found."""
        order: list[str] = []
        for group in (decide, test):
            while (best := self._best(group, set(order))) is not None:
                order += [name for name in best if name not in order]
        beyond: list[str] = []
        for group in (self._cheapest(decide, order), test):
            while (best := self._best(group, {*order, *beyond}, limited=False)) is not None:
                beyond += [name for name in best if name not in (*order, *beyond)]
        return order, beyond

    def _best(self, group: Ways, have: set[str], *, limited: bool = True) -> tuple[str, ...] | None:
        """The set of jobs that brings most for its price among those within the limits; None when none is left."""
        still = [name for name, ways in group.items() if not _enough(ways, have)]
        chosen, most = None, -1.0
        for way in dict.fromkeys(way for name in still for way in group[name]):
            after = have.union(way)
            if limited and not self._within(after):
                continue
            brings = sum(self._worth(name) for name in still if _enough(group[name], after))
            price = self._price(after) - self._price(have)
            if brings / max(price, 1e-9) > most:
                chosen, most = way, brings / max(price, 1e-9)
        return chosen

    def _within(self, names: Collection[str]) -> bool:
        hours, rate = self._hours(names), self.machine.rate or 0.0
        return (self.hours is None or hours <= self.hours) and (self.budget is None or hours * rate <= self.budget)

    def _worth(self, name: str) -> float:
        """A claim's chance to be decided; one whose chance is not known counts whole, one that is hopeless a little."""
        return max(0.01, self.powers[name].mean) if name in self.powers else 1.0

    def _cheapest(self, group: Ways, have: Iterable[str] = ()) -> Ways:
        """For each claim that `have` does not decide one way, so that all of them together cost least."""
        group = {name: ways for name, ways in group.items() if not _enough(ways, set(have))}
        different = list(dict.fromkeys(tuple(ways) for ways in group.values()))
        if prod(len(ways) for ways in different) > MOST_WAYS:
            return group
        best: tuple[tuple[str, ...], ...] = ()
        least = inf
        for chosen in product(*different):
            price = self._price({name for way in chosen for name in way}.difference(have))
            if price < least:
                best, least = chosen, price
        picked = dict(zip(different, best, strict=True)) if best or not different else {}
        return {name: [picked[tuple(ways)]] for name, ways in group.items()}

    # --- prices -------------------------------------------------------------------------------------------------------

    def _hours(self, names: Iterable[str]) -> float:
        # Exact: a set's order differs between processes, and the last bit would choose between ways that cost the same.
        return fsum(hours.expected for name in names if (hours := self.jobs[name].hours) is not None)

    def _price(self, names: Collection[str]) -> float:
        """What jobs are compared by: hours, or their number where the planner knows no hours."""
        return self._hours(names) or float(len(names))

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _rows(self, order: Sequence[str], before: Sequence[str]) -> list[Row]:
        grouped: dict[tuple[str, str], list[Job]] = {}
        for name in order:
            job = self.jobs[name]
            grouped.setdefault((job.entry, "" if job.training else name), []).append(job)
        have = set(before)
        hours = total(self.jobs[name].hours for name in before)
        rows = []
        for jobs in grouped.values():
            own = total(job.hours for job in jobs)
            hours = total((hours, own))
            new = have.union(job.id for job in jobs)
            ready = [name for name, ways in self.ways.items() if _enough(ways, new) and not _enough(ways, have)]
            decides = tuple(name for name in ready if name in self.decidable)
            tests = tuple(name for name in ready if name not in self.decidable | self.hopeless)
            dollars, spent = self.machine.dollars(own), self.machine.dollars(hours)
            rows.append(Row(tuple(jobs), own, dollars, decides, tests, spent))
            have = new
        return rows


def _enough(ways: Iterable[tuple[str, ...]], have: set[str]) -> bool:
    """Whether these jobs decide a claim."""
    return any(have.issuperset(way) for way in ways)


def why_never(claim: Claim, machine: Machine) -> str:
    """Why no money decides a claim on this machine, or ""."""
    paper = reference.tree()["training"]
    if claim.kind in ("hours", "dollars") and (machine.gpus != paper["gpus"] or machine.gpu.name != "A40"):
        return "only whole runs on four A40 tell what four A40 take"
    if claim.at_most == "reproduced":
        return ""
    says = "is decided before anything runs" if claim.at_most == "by construction" else f"at most {claim.at_most}"
    return f"{says}: {claim.limit}"
