"""Measure of what a checked result costs an accepted vote: exact closing, voting codes, and trackers."""

import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
from tests.e2e.stack import Stack
from tests.faults.cluster import ROOT
from tests.faults.mutants import READ_AFTER, Mutant
from tests.waiting import PLAIN, eventually

from bench.accept import without_failures
from bench.report import Outcome, Threshold, generator_threshold, median
from bench.runner import CpuMeter, Load, Runner, delete_votes, process_ids
from voting.polls.codes import CodeList

SHARE = 0.95  # of the plain rate; the CPU time for a vote may be the inverse of it
CODES = 20_000
COMPARED = ("closing", "codes", "published")  # with "plain"
READS_NO_CUT = """\
            reply = await self._pipeline.send(command)
            cut = None
"""
CHANGES = ((READ_AFTER, READS_NO_CUT), ("TIMEOUT, self._read_cuts)", "TIMEOUT)"))
NO_CUTS = Mutant("reads no cuts", "broker/producer.py", CHANGES, rows=())


class _Condition(NamedTuple):
    """Where votes go, and the forms that are sent in turn."""

    stack: Stack
    path: str
    bodies: list[str]


def checked(runner: Runner) -> Outcome:
    """Accepting with exact closing, with voting codes, with trackers; limit: a build that reads no cuts."""
    turns, seconds = (1, 1) if runner.quick else (4, 2)
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    busy: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="voting-bench-") as folder,
        runner.stack(PYTHONPATH=str(NO_CUTS.build(Path(folder)))) as plain,
        runner.stack(PYTHONPATH=str(ROOT / "src")) as product,
    ):
        codes = CodeList(secrets.token_bytes(32), CODES)
        for stack in (plain, product):
            _make_polls(stack, codes)
        coded = [f"vote=a&code={codes.code(serial)}" for serial in range(1, CODES + 1)]
        conditions = {
            "plain": _Condition(plain, "/p/plain", ["vote=a"]),
            "closing": _Condition(product, "/p/plain", ["vote=a"]),
            "codes": _Condition(product, "/p/codes", coded),
            "published": _Condition(product, "/p/published", ["vote=a"]),
        }
        for number in range(runner.rounds):
            taken: dict[str, list[tuple[Load, CpuMeter]]] = {name: [] for name in conditions}
            for turn in range(turns):  # short ones, forwards and backwards, since the speed of the machine drifts
                for name in list(conditions)[:: 1 - 2 * (turn % 2)]:
                    taken[name].append(_take_turn(runner, conditions[name], seconds))
            for name, each in taken.items():
                rates.setdefault(name, []).append(sum(load.rate for load, _ in each) / turns)
                votes = sum(load.requests for load, _ in each)
                for part in each[0][1].cpu:
                    spent = sum(meter.cpu[part] for _, meter in each)
                    cpu.setdefault(f"{name}: {part}", []).append(1000 * spent / votes)
                busy += [load.busy for load, _ in each]
            shares = ", ".join(f"{name} {_shares(rates, name)[-1]:.2f}" for name in COMPARED)
            runner.log(f"round {number + 1}: plain {rates['plain'][-1]:,.0f} votes/s; of that {shares}")
    costs = {name: [sum(each) for each in zip(*_accepting(cpu, name), strict=True)] for name in conditions}
    thresholds = [
        *(Threshold(f"{name}: rate to the plain one", median(_shares(rates, name)), SHARE) for name in COMPARED),
        *(
            Threshold(
                f"{name}: CPU of vote and broker for a vote, to the plain one",
                median(_shares(costs, name)),
                1 / SHARE,
                at_most=True,
            )
            for name in COMPARED
        ),
        generator_threshold(busy),
    ]
    notes = {
        "votes/s": {name: [round(rate) for rate in each] for name, each in rates.items()},
        "rate to plain, by round": {name: [round(share, 3) for share in _shares(rates, name)] for name in COMPARED},
        "CPU to plain, by round": {name: [round(share, 3) for share in _shares(costs, name)] for name in COMPARED},
        "a vote": {
            "plain, closing, published": "of a new voter: vote signs a cookie, the worker inserts a row",
            "codes": f"of one of {CODES:,} codes in turn: vote verifies it and sets a cookie for it; "
            "the worker inserts a row for the first vote of a code, and updates it for the next",
        },
        "note": "a share compares a round with the plain one of the same round; thresholds are for the medians",
    }
    return Outcome("checked", "votes/s with closing", rates["closing"], rates["plain"], thresholds, cpu, notes)


def _take_turn(runner: Runner, condition: _Condition, seconds: float) -> tuple[Load, CpuMeter]:
    """Vote, beginning with an empty table; the CPU time is that until the last vote is counted."""
    stack, path, bodies = condition
    delete_votes(stack)
    with CpuMeter(**process_ids(stack)) as meter:
        load = without_failures(runner.wrk(stack.vote_url + path, seconds, bodies=bodies))
        eventually(stack.drained, within=60)
    return load, meter


def _shares(figures: dict[str, list[float]], name: str) -> list[float]:
    """Return the figures of a condition to the plain ones, round by round."""
    return [mine / plain for mine, plain in zip(figures[name], figures["plain"], strict=True)]


def _accepting(cpu: dict[str, list[float]], name: str) -> list[list[float]]:
    """Return the CPU times of the processes that accept a vote."""
    return [cpu[f"{name}: {part}"] for part in ("vote", "valkey")]


def _make_polls(stack: Stack, codes: CodeList) -> None:
    """Make the open polls `plain`, `codes` and `published`, and wait until each accepts votes."""
    with psycopg.connect(stack.state["database_url"]) as database:
        database.execute(
            "INSERT INTO code_lists (owner, key, issued) VALUES ('codes', %s, %s)", [codes.key.hex(), codes.issued]
        )
        database.execute(
            "INSERT INTO polls (slug, question, options, created, access, publish) "
            "SELECT made.slug, question, options, created, made.access, made.publish FROM polls, "
            "(VALUES ('plain', 'open', false), ('codes', 'code', false), ('published', 'open', true)) "
            "AS made (slug, access, publish) WHERE polls.slug = 'default'"
        )
    form = {"vote": "a", "code": codes.code(1) or ""}
    for slug in ("plain", "codes", "published"):
        url = f"{stack.vote_url}/p/{slug}"
        eventually(lambda url=url: httpx.post(url, data=form, verify=PLAIN).status_code == 200, within=30)  # type: ignore[misc]
