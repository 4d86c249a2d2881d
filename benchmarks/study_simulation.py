"""How often studies with looks err, what their intervals cover, and what looking saves: by simulation.

    python benchmarks/study_simulation.py --out dev/study_simulation.md       all of it: ten minutes on one quiet core
    python benchmarks/study_simulation.py --trials 400 --large 100            a minute

The exit code is 1 when a rate is too high. Every condition has a seed of its own. Null trials: both models have equal
rates, looks at 2, 3, 4 and 5 rounds (t = 0.4 ... 1). `spent` is exact: the probability given the absolute differences,
averaged over trials, so its Monte-Carlo error is far below that of the counted rate beside it.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from openrs.evaluation import statistics
from openrs.evaluation.statistics import holm
from openrs.report.verdicts.claims import UNDECIDED, Claim, Evidence, claims
from openrs.report.verdicts.family import Corrected, Tests
from openrs.report.verdicts.judge import RULES
from openrs.study import difficulty, power, sequential
from openrs.study.sequential import flip_boundaries, spent

PROBLEMS = (30, 40, 272, 500, 675)
ROUNDS = (1, 2, 4, 16)
TIMES = (0.4, 0.6, 0.8, 1.0)
BATCH = 200  # trials with the same problems
SMALL = (26, 39, 52, 64)
LOOKS = {
    "better-amc23": SMALL,
    "better-aime24": SMALL,
    "better-math-500": (7, 10, 13, 16),
    "aime24-above-o1-preview": SMALL,
    "amc23-63-to-80": (16,),
}
Rows = list[list[str]]


def shape(name: str, n: int, rng: np.random.Generator) -> Any:
    """Rates of n problems. bimodal: most never or always solved, as on AIME; even: in between; hard: mostly missed."""
    if name == "even":
        return rng.beta(2, 2, n)
    if name == "hard":
        return rng.beta(0.3, 1.5, n)
    kind = rng.random(n)
    return np.where(kind < 0.55, rng.beta(0.5, 20, n), np.where(kind < 0.73, rng.beta(20, 0.5, n), rng.random(n)))


SHAPES = ("bimodal", "even", "hard")


def rounds(p: Any, q: Any, r: int, trials: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """[trials, looks, n] right samples of two models with rates p and q in 2, 1, 1 and 1 rounds of r samples."""
    sizes = np.array([2, 1, 1, 1])[None, :, None] * r
    return rng.binomial(sizes, p, (trials, 4, len(p))), rng.binomial(sizes, q, (trials, 4, len(q)))


def hits_of(differences: Any, times: Sequence[float] = TIMES, alpha: float = 0.05) -> tuple[Any, Any]:
    """[trials, looks] rejected at a look or before, and the alpha spent by it given the absolute differences."""
    bounds, used = flip_boundaries(differences, times, alpha)
    hit = np.abs(differences.sum(axis=2).cumsum(axis=1)) >= bounds
    return np.logical_or.accumulate(hit, axis=1), used


def batches(trials: int) -> Iterator[int]:
    for start in range(0, trials, BATCH):
        yield min(BATCH, trials - start)


# --- one comparison ---------------------------------------------------------------------------------------------------


def null(n: int, r: int, name: str, trials: int) -> tuple[Any, Any]:
    rng = np.random.default_rng([n, r, SHAPES.index(name)])
    hits, used = np.zeros(4), np.zeros(4)
    for size in batches(trials):
        p = shape(name, n, rng)
        a, b = rounds(p, p, r, size, rng)
        hit, own = hits_of(a - b)
        hits += hit.sum(axis=0)
        used += own.sum(axis=0)
    return hits / trials, used / trials


CONDITIONS = {
    "missed": "two of four looks left out",
    "early": "looks at t = 0.4 x 0.4, 0.6 x 0.4 and the end",
    "ignored": "futility at the second look ignored",
    "obeyed": "futility at the second look obeyed",
    "weak": "rates differ problem by problem, their means are equal",
    "naive": "four looks at 1.96 each (no design of ours)",
    "population": "effects of mean 0 over other problems (another question)",
}
PROMISED = ("missed", "early", "ignored", "obeyed", "weak")


def special(trials: int) -> Iterator[tuple[str, str, float, int]]:
    """Rates of any rejection under what can go wrong."""
    for n, r in ((30, 4), (40, 16)):
        rng = np.random.default_rng([n, r, 7])
        count = dict.fromkeys(CONDITIONS, 0)
        for size in batches(trials):
            p = np.sort(shape("bimodal", n, rng))
            a, b = rounds(p, p, r, size, rng)
            e = a - b
            hit, _ = hits_of(e)
            count["ignored"] += int(hit[:, -1].sum())
            count["obeyed"] += int((hit[:, 1] | (hit[:, -1] & ~futile(e, r))).sum())
            count["missed"] += final(np.stack([e[:, :2].sum(axis=1), e[:, 2:].sum(axis=1)], axis=1), (0.6, 1.0))
            count["early"] += final(np.stack([e[:, 0], e[:, 1], e[:, 2:].sum(axis=1)], axis=1), (0.16, 0.24, 1.0))
            z = e.sum(axis=2).cumsum(axis=1) / np.sqrt(np.maximum(1, (e**2).sum(axis=2).cumsum(axis=1)))
            count["naive"] += int((np.abs(z) > 1.96).any(axis=1).sum())
            neighbours = p.reshape(-1, 2)[:, ::-1].ravel()  # each problem with its neighbour's rate: the same mean
            a, b = rounds(neighbours, p, r, size, rng)
            count["weak"] += final(a - b, TIMES)
            other = np.clip(p + rng.normal(0, 0.15, n) * 4 * p * (1 - p), 0, 1)
            a, b = rounds(other, p, r, size, rng)
            count["population"] += final(a - b, TIMES)
        for key, value in count.items():
            yield key, f"{CONDITIONS[key]}; n = {n}, rounds of {r}", value / trials, trials


def final(differences: Any, times: Sequence[float]) -> int:
    return int(hits_of(differences, times)[0][:, -1].sum())


def futile(e: Any, r: int, effect: float = 0.05) -> Any:
    """Whether conditional power for 5 points is below 10 % at the second look, as sequential.conditional_power."""
    n, t, bound = e.shape[2], TIMES[1], sequential.boundaries(TIMES)[-1]
    so_far = e[:, :2].sum(axis=(1, 2))
    deviation = np.sqrt(np.maximum(1, (e[:, :2] ** 2).sum(axis=(1, 2))))
    drift = effect * n * 3 * r / deviation / math.sqrt(t)
    left = bound - so_far / deviation * math.sqrt(t) - drift * (1 - t)
    return stats.norm.sf(left / math.sqrt(1 - t)) < sequential.FUTILE


def three(trials: int) -> Iterator[tuple[str, str, float, int]]:
    """Holm over three benchmarks, none, one or two of them with an effect: any true null rejected."""
    for effects in (0, 1, 2):
        rng, wrong = np.random.default_rng([effects, 3]), 0
        for size in batches(trials):
            found = []
            for i, (n, r) in enumerate(((30, 4), (40, 4), (30, 8))):
                p = shape("bimodal", n, rng)
                q = np.clip(p + 0.25 * 4 * p * (1 - p), 0, 1) if i < effects else p
                a, b = rounds(q, p, r, size, rng)
                found.append(power.flip_hits(a - b, TIMES, 3))
            rejected, at = np.zeros((3, size), dtype=bool), np.full((3, size), -1)
            tested = [power._Tested(claims()[0], (2, 3, 4, 5), one[0], {"differs": one}) for one in found]
            for look in range(4):
                at[~rejected] = look
                rejected |= power._holm(tested, "differs", at)
            wrong += int(rejected[effects:].any(axis=0).sum())
        yield "missed", f"Holm over three benchmarks, {effects} with an effect", wrong / trials, trials


def intervals(trials: int) -> Rows:
    """Coverage of all repeated intervals of a study together, and at the stop; bias of both estimates there."""
    rows = []
    for n, r, effect in ((30, 2, 0.0), (30, 4, 0.10), (40, 16, 0.05), (40, 4, 0.25), (272, 2, 0.05), (500, 1, 0.0)):
        rng = np.random.default_rng([n, r, int(100 * effect), 11])
        together, stopped, naive, above, estimates, unbiased = 0, 0, [], 0, 0, []
        for size in batches(trials):
            p = shape("bimodal", n, rng)
            q = np.clip(p + effect * 4 * p * (1 - p), 0, 1)
            true = float((q - p).mean())
            a, b = rounds(q, p, r, size, rng)
            hit, _ = hits_of(a - b)
            a, b = a.cumsum(axis=1), b.cumsum(axis=1)
            last = np.where(hit.any(axis=1), hit.argmax(axis=1), 3)
            covered = []
            for look in range(4):
                k = (look + 2) * r
                tail = sequential.last_boundary(TIMES[: look + 1])[1] / 2
                low, high = sequential.difference_bounds(a[:, look], b[:, look], k, tail)
                covered.append((low <= true) & (true <= high))
            at = np.arange(size)
            together += int(np.all(covered, axis=0).sum())
            stopped += int(np.array(covered)[last, at].sum())
            k = (last + 2) * r
            value = (a - b)[at, last].mean(axis=1) / k
            naive += (value - true).tolist()
            above += int((value > true).sum()) + int((value == true).sum()) / 2
            if estimates < 400:
                for i in range(min(size, 20)):
                    ks = int(k[i])
                    errors = [float(sequential.sampling_errors(side[i, last[i]], ks)[0]) for side in (a, b)]
                    at_stop = sequential.unbiased_estimate(float(value[i]), math.hypot(*errors), TIMES[: last[i] + 1])
                    unbiased.append(at_stop - true)
                    estimates += 1
        side = np.mean([(x > 0) + 0.5 * (x == 0) for x in unbiased])
        rows.append(
            [
                f"{n}, {r}, {100 * true:+.1f}",
                f"{100 * together / trials:.1f}",
                f"{100 * stopped / trials:.1f}",
                f"{100 * float(np.mean(naive)):+.2f}",
                f"{100 * float(np.mean(unbiased)):+.2f}",
                f"{100 * above / trials:.0f}",
                f"{100 * float(side):.0f}",
                f"{trials:,} / {estimates}",
            ]
        )
    return rows


def saved(trials: int) -> Rows:
    """Power and samples of looks at four rounds of 16 against 64 samples at once, flipped by round and by problem."""
    rows = []
    for n, effect in ((30, 0.10), (40, 0.10), (30, 0.20), (40, 0.20), (40, 0.0)):
        rng = np.random.default_rng([n, int(100 * effect), 13])
        looked, once, fixed, share, gains = 0, 0, 0, 0.0, []
        for size in batches(trials):
            p = shape("bimodal", n, rng)
            q = np.clip(p + effect * 4 * p * (1 - p), 0, 1)
            gains.append(float((q - p).mean()))
            e = rng.binomial(16, q, (size, 4, n)) - rng.binomial(16, p, (size, 4, n))
            hit, _ = hits_of(e, (0.25, 0.5, 0.75, 1.0))
            looked += int(hit[:, -1].sum())
            share += float((np.where(hit.any(axis=1), hit.argmax(axis=1), 3) + 1).sum()) / 4
            once += final(e.reshape(size, 1, -1), (1.0,))
            fixed += final(e.sum(axis=1, keepdims=True), (1.0,))
        rows.append(
            [
                f"{n}, {100 * float(np.mean(gains)):+.1f}",
                f"{looked / trials:.3f}",
                f"{once / trials:.3f}",
                f"{fixed / trials:.3f}",
                f"{100 * share / trials:.0f}",
                f"{trials:,}",
            ]
        )
    return rows


# --- whole studies ----------------------------------------------------------------------------------------------------


def wrong(claim: Claim, word: str, world: difficulty.World) -> bool:
    """Whether a word is an error in a world in which truths are known."""
    base, model = (
        100 * (difficulty.mean_of(world, name, str(claim.benchmark)) or 0.0) for name in (power.BASE, str(claim.model))
    )
    if claim.kind == "gain":  # the printed gain is one draw; it is true where the paper is
        return world == "paper" and word == "not reproduced"
    true = model - (claim.threshold or 0.0) if claim.kind == "above" else model - base
    if word == "reproduced":
        return true <= 0
    if word == "not reproduced":
        return true >= 0
    margin = power.reference.tree()["margins"][claim.benchmark]
    return word == "smaller than the margin" and abs(true) >= margin


def studies(trials: int) -> tuple[Rows, Rows]:
    """Whole studies in three worlds: words of every claim, and the rate of any error in the family."""
    every = {claim.id: claim for claim in claims() if claim.id in LOOKS}
    rows, errors = [], []
    for world, said in difficulty.WORLDS.items():
        words, stops = power.study_words(list(every.values()), LOOKS, world, trials=trials, seed=21)
        plan = power.against_base(list(every.values()), LOOKS, world)
        fixed = power.against_base(list(every.values()), {n: looks[-1:] for n, looks in LOOKS.items()}, world)
        kinds: dict[str, Any] = {}
        for name, own in words.items():
            bad = np.array([wrong(every[name], word, world) for word in own])
            for word in ("reproduced", "not reproduced", "smaller than the margin"):
                kinds[word] = kinds.get(word, np.zeros(trials, dtype=bool)) | (bad & (own == word))
            decided = np.mean([word not in UNDECIDED for word in own])
            counted = {word: float(np.mean(own == word)) for word in sorted(set(own))}
            rows.append(
                [
                    world,
                    name,
                    ", ".join(f"{word} {100 * share:.1f}" for word, share in counted.items()),
                    f"{100 * decided:.1f}",
                    f"{100 * power.decided(plan[name]):.1f}",
                    f"{100 * power.decided(fixed[name]):.1f}",
                    f"{100 * float(stops[name].mean()) / LOOKS[name][-1]:.0f}",
                ]
            )
        errors.append([f"{world}: {said}", *(f"{100 * float(kinds[w].mean()):.2f}" for w in kinds), f"{trials:,}"])
    return rows, errors


def through_the_rules(trials: int) -> tuple[int, int]:
    """Whole studies look by look through the report's own rules and repeated p-values: how many words agree, of all."""
    statistics.RESAMPLES = 2  # no rule reads the bootstrap interval
    names = [name for name in LOOKS if name != "better-math-500"]
    every = [claim for claim in claims() if claim.id in names]
    agree = total = 0
    for world in power.WORLD_ORDER:
        draws = power._draws(every, LOOKS, world, trials, np.random.default_rng(5))
        tested = [power._tested(claim, LOOKS[claim.id], draws, len(every)) for claim in every]
        fast, _ = power.words_of(tested, trials)
        for trial in range(trials):
            slow = _slow(every, draws, trial)
            agree += sum(slow[claim.id] == fast[claim.id][trial] for claim in every)
            total += len(every)
    return agree, total


def _slow(every: Sequence[Claim], draws: power.Draws, trial: int) -> dict[str, str]:
    found: dict[str, str] = {}
    p_values: dict[str, dict[str, float]] = {}
    prepared: dict[str, Tests] = {}
    for step in range(4):
        for claim in every:
            look = step - 4 + len(LOOKS[claim.id])
            if look < 0 or found.get(claim.id, "cannot tell") != "cannot tell":
                continue
            made = LOOKS[claim.id][: look + 1]
            times = [sequential.information(k, LOOKS[claim.id][-1]) for k in made]
            right = {
                m: [draws[m, str(claim.benchmark)][k][trial] for k in made] for m in (power.BASE, str(claim.model))
            }
            marks = {m: (np.arange(made[-1]) < own[-1][:, None]).astype(int) for m, own in right.items()}
            measured = [power.measured(m, str(claim.benchmark), own) for m, own in marks.items()]
            tests = RULES[claim.kind](claim, Evidence(measured, [], []))
            assert isinstance(tests, Tests)
            prepared[claim.id] = tests
            own = {q: min(1.0, 2 * sequential.normal_p(p / 2, times)) for q, p in tests.p.items()}
            if claim.kind == "better":
                sums = np.diff([np.zeros(len(right[power.BASE][0]), dtype=int), *(
                    a - b for a, b in zip(right[str(claim.model)], right[power.BASE], strict=True)
                )], axis=0)  # fmt: skip
                own = {
                    "differs": sequential.flip_p(sums, times),
                    "within": sequential.normal_p(tests.p["within"], times),
                }
            p_values[claim.id] = own
        for question in ("differs", "within"):
            asked = {c.id: 1.0 for c in every if question == "differs" or c.kind == "better"}
            asked |= {name: own[question] for name, own in p_values.items() if question in own}
            for name, corrected in holm(asked).items():
                if name in p_values:
                    p_values[name][question + " corrected"] = corrected
        for name, tests in prepared.items():
            if found.get(name, "cannot tell") == "cannot tell":
                corrected = {q: p_values[name][q + " corrected"] for q in tests.p}
                found[name] = tests.verdict(Corrected(corrected, len(every))).word
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Rows) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


class Page:
    """Tables, written after each part; what is too high."""

    def __init__(self, out: Path | None) -> None:
        self.out, self.lines, self.bad = out, ["# What looking does to error rates", ""], list[str]()

    def add(self, title: str, head: Sequence[str], rows: Rows) -> None:
        self.lines += [f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        self.lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
        print(*(" ".join(row) for row in rows), sep="\n", flush=True)
        self.write()

    def write(self) -> None:
        if self.out:
            self.out.write_text("\n".join(self.lines).rstrip() + "\n")


def null_table(page: Page, small: int, large: int) -> None:
    rows, allowed = [], 2 * spent(np.array(TIMES), 0.025)
    for n in PROBLEMS:
        for r in ROUNDS:
            for name in SHAPES:
                trials = small if n <= 100 else large
                hits, used = null(n, r, name, trials)
                error = 3 * np.sqrt(allowed * (1 - allowed) / trials)
                if (hits > allowed + error + 1 / trials).any() or (used > allowed + 1e-9).any():
                    page.bad.append(f"n = {n}, rounds of {r}, {name}: {hits} at the looks, {used} spent")
                cells = [f"{100 * x:.2f} / {100 * y:.2f}" for x, y in zip(hits, used, strict=True)]
                rows.append([f"{n}, {r}, {name}", *cells, f"{trials:,}"])
                print(*rows[-1], f"{time.process_time():.0f} s", flush=True)
    head = [f"t = {t} ({100 * x:.2f})" for t, x in zip(TIMES, allowed, strict=True)]
    title = "Equal rates: rejected by a look, counted / exactly spent, in % (allowed)"
    page.add(title, ["n, samples a round, shape", *head, "trials"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000, help="null trials of each condition up to 100 problems")
    parser.add_argument("--large", type=int, default=20_000, help="above 100 problems")
    parser.add_argument("--studies", type=int, default=4000, help="whole studies in each world")
    parser.add_argument("--rules", type=int, default=30, help="whole studies in each world through the rules")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="where the tables go, after each part")
    given = parser.parse_args()
    page, part = Page(given.out), given.trials // 4
    rows = []
    for key, said, rate, trials in [*special(given.trials), *three(given.trials)]:
        if key in PROMISED and rate > 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials):
            page.bad.append(f"{said}: {rate}")
        rows.append([said, f"{100 * rate:.2f}", f"{trials:,}"])
    page.add("What can go wrong: any rejection, in %", ["condition", "rejected", "trials"], rows)
    rows, least = intervals(part), 95 - 300 * math.sqrt(0.05 * 0.95 / part)
    page.bad += [f"coverage at {row[0]}: {row[1]}" for row in rows if float(row[1]) < least]
    head = ["n, samples a round, true points", "covered at all looks, %", "at the stop", "bias of the mean, points"]
    head += ["of the median-unbiased", "mean too high, %", "median-unbiased", "trials"]
    page.add("Repeated intervals, and estimates at the stop", head, rows)
    head = ["n, true points", "power with looks", "once, by round", "once, by problem", "samples used, %", "trials"]
    page.add("What looking saves: four rounds of 16 against 64 at once", head, saved(part))
    words, errors = studies(given.studies)
    most = 5 + 300 * math.sqrt(0.05 * 0.95 / given.studies)
    page.bad += [f"{row[0]}: {rate} %" for row in errors for rate in row[1:4] if float(rate) > most]
    head = ["world", "false reproduced", "false not reproduced", "false smaller", "studies"]
    page.add("Whole studies of the claims against the base: any error in the family, in %", head, errors)
    head = ["world", "claim", "words", "decided", "as planned", "fixed design", "samples used"]
    page.add("Whole studies: words and power, in %", head, words)
    agree, total = through_the_rules(given.rules)
    if agree < total:
        page.bad.append(f"{total - agree} of {total} words differ from the rules' own")
    page.lines += [f"Through the report's own rules, look by look: {agree} of {total} words agree.", ""]
    null_table(page, given.trials, given.large)
    page.lines += [f"{time.process_time():,.0f} processor seconds.", ""]
    page.write()
    for line in page.bad:
        print(f"too high: {line}")
    sys.exit(1 if page.bad else 0)


if __name__ == "__main__":
    main()
