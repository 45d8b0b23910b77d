"""Faults while a host opens and closes polls: of admin, of the database, and of the network to the broker."""

import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tests.faults.ballots import KINDS, Ballot
from tests.faults.host import Answer, Host
from tests.faults.host_load import hosts_at_work
from tests.faults.poll_audit import Actions, check_polls, check_webhooks, is_all_or_nothing
from tests.faults.poll_votes import (
    accepted,
    check_closed,
    refused,
    voting_in,
    wait_for_votes,
    wait_published,
    wait_refused,
)
from tests.faults.run import Run, RunConfig, expect, expect_soon, run_under_load
from tests.faults.webhook_receiver import WebhookReceiver

FAILPOINTS = ("change_recorded", "change_committed", "webhook_sent")
CHANGES = 50  # that prove something
VISITORS = 60
DRAFTS = 6  # that are opened at once, which is the number of connections of admin
SLOWEST = 3.0  # seconds that an answer of admin may take
BUSY = """
    SELECT FROM pg_stat_activity WHERE application_name = 'voting admin' AND xact_start < now() - interval '1 second'
"""


def admin_killed(config: RunConfig) -> dict[str, object]:
    """Admin killed (-9), at exact points and at random, while hosts open and close polls."""
    rng = random.Random(config.seed)  # noqa: S311 - has to be the same for the same seed
    with (
        WebhookReceiver() as hooks,
        run_under_load(config, admin=True, visitors=VISITORS, **hooks.settings) as run,
        Host(run.system) as host,
    ):
        system = run.system
        with hosts_at_work(run) as asked:
            for turn in range(int(config.brief_or_full(1, 15))):
                if turn:
                    system.start("admin")
                    system.wait_ready("admin")
                time.sleep(rng.uniform(0.2, 1))  # a random moment
                system.kill("admin")
            for failpoint in FAILPOINTS:
                system.start("admin", failpoint=failpoint)
                expect_soon(f"admin dies {failpoint}", lambda: system.processes["admin"].poll() is not None, 30)
                died = system.processes["admin"].returncode
                expect(died == -signal.SIGKILL, f"admin ended with {died}: {system.log('admin')[-500:]}")
            system.start("admin")
            system.wait_ready("admin")
            expect_soon("many changes are made", lambda: sum(map(len, asked.values())) > CHANGES, 30)
        asked |= _change_while_votes_wait(run, host)
        with run.load.paused():  # a closing is announced when no vote waits
            events = "SELECT count(*) FROM webhook_events"
            expect_soon("every webhook is delivered", lambda: system.rows(events) == [(0,)], 20, is_violation=True)
        run.violations += check_polls(system, asked) + check_webhooks(system, asked, hooks.deliveries)
        changes = sum(map(len, asked.values()))
        run.notes |= {"polls": len(asked), "changes": changes, "webhooks": len(hooks.deliveries)}
    return run.notes


def _change_while_votes_wait(run: Run, host: Host) -> Actions:
    """Delete one poll and reset another while votes for both wait on the stream; return what was done to the other."""
    system = run.system
    gone, again = Ballot("gone"), Ballot("again", "ranking")
    for ballot in (gone, again):
        host.create(ballot)
        host.open(ballot)
    began = time.monotonic()
    with voting_in(run, gone, again):
        for ballot in (gone, again):
            wait_for_votes(run, ballot, began, within=10)
        system.kill(*system.workers)
        killed = time.monotonic()
        for ballot in (gone, again):
            wait_for_votes(run, ballot, killed, 10, within=10)
    run.deleted.add(gone.slug)
    host.delete(gone)
    host.close(again)
    host.reset(again)
    system.start(*system.workers)  # which know no poll until they meet its votes
    system.wait_ready(*system.workers)
    wait_refused(run, again)
    host.open(again)
    with voting_in(run, again.next()):
        wait_for_votes(run, again.next(), began, 10, within=10)
    return {again.slug: ["create", "open", "close", "reset", "open"]}


def open_while_the_database_is_away(config: RunConfig) -> dict[str, object]:
    """The database killed, its answer to COMMIT lost, or its packets, while a host presses open."""
    with (
        WebhookReceiver() as hooks,
        run_under_load(config, admin=True, proxy_admin=True, visitors=VISITORS, **hooks.settings) as run,
        ThreadPoolExecutor(DRAFTS) as pool,
        contextlib.ExitStack() as stack,
    ):
        hosts = [stack.enter_context(Host(run.system)) for _ in range(DRAFTS)]
        before = run.system.pids()
        answers: list[Answer] = []
        for turn in range(int(config.brief_or_full(1, 5))):
            for away in (_killed, _answer_lost, _cut):
                drafts = [Ballot(f"{away.__name__[1:].replace('_', '-')}-{turn}-{n}") for n in range(DRAFTS)]
                answers += _open_while_away(run, hosts, pool, drafts, away, hooks=hooks)
        expect(run.system.pids() == before, "a service was restarted")
        late = [each for each in answers if each.status == 503]
        expect(len(late) > DRAFTS, f"only {len(late)} openings were refused: the database was not away")
        run.notes |= {
            "openings refused": len(late),
            "of these unknown": sum(each.reason == "unknown" for each in late),
            "slowest answer s": round(max(each.seconds for each in answers), 1),
        }
    return run.notes


@contextlib.contextmanager
def _killed(run: Run) -> Iterator[None]:
    run.system.kill("postgres")
    yield
    run.system.start("postgres")
    run.system.wait_ready("postgres")


@contextlib.contextmanager
def _cut(run: Run) -> Iterator[None]:
    run.system.admin_proxy.block()
    yield
    run.system.admin_proxy.unblock()


@contextlib.contextmanager
def _answer_lost(run: Run) -> Iterator[None]:
    """Lose the answer to the COMMIT of an opening, which new connections send as text."""
    run.system.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'voting admin'")
    proxy = run.system.admin_proxy
    lost = proxy.lost
    proxy.lose_answer_to = (b'"state": "open"', b"COMMIT")
    yield
    expect(proxy.lost > lost, "no answer to COMMIT was lost")


Away = Callable[[Run], contextlib.AbstractContextManager[None]]


def _press_while_away(
    run: Run, hosts: list[Host], pool: ThreadPoolExecutor, drafts: list[Ballot], away: Away
) -> list[Answer]:
    """Open drafts at the moment when the database goes away; return the answers."""

    def press() -> list[Future[Answer]]:
        return [pool.submit(host.set_state, ballot.slug, "open") for host, ballot in zip(hosts, drafts, strict=True)]

    with contextlib.ExitStack() as fault:
        if away is _answer_lost:  # which has to be prepared before
            fault.enter_context(away(run))
            answers = [each.result(30) for each in press()]
            expect(any(each.reason == "unknown" for each in answers), "no opening was without an answer to COMMIT")
        else:
            first = press()
            fault.enter_context(away(run))
            answers = [each.result(30) for each in first]
            again = [each.result(30) for each in press()]  # while it is away for everybody
            expect(any(each.status == 503 for each in again), "the database was not away")
            for early in answers:
                _check_refusal(run, early)
            both = zip(answers, again, strict=True)
            answers = [late if early.reason == "database_away" else early for early, late in both]
        time.sleep(0.3)  # in which votes are refused
    for answer in answers:
        _check_refusal(run, answer)
    return answers


def _open_while_away(
    run: Run,
    hosts: list[Host],
    pool: ThreadPoolExecutor,
    drafts: list[Ballot],
    away: Away,
    *,
    hooks: WebhookReceiver,
) -> list[Answer]:
    """Open drafts at the moment when the database goes away, and again when it is back; return the answers."""
    for host, ballot in zip(hosts, drafts, strict=True):
        host.create(ballot)
    began = time.monotonic()
    with voting_in(run, *drafts):
        for ballot in drafts:
            expect_soon(
                f"{ballot.slug} is known to vote",
                lambda ballot=ballot: refused(run, ballot, began, "not_open"),  # type: ignore[misc]
                10,
                is_violation=True,
            )
        pressed = time.monotonic()
        answers = _press_while_away(run, hosts, pool, drafts, away)
        expect_soon("what was under way has ended", lambda: not run.system.rows(BUSY), 10)
        for ballot, answer in zip(drafts, answers, strict=True):
            opened = is_all_or_nothing(run.system, ballot, hooks.deliveries)
            if opened is None:
                run.require(condition=False, otherwise=f"{ballot.slug} is half open after {answer}")
                continue
            if answer.reason != "unknown":
                run.require(opened == (answer.status == 200), f"{ballot.slug} is open: {opened}, in spite of {answer}")
            if not opened:
                early = accepted(run, ballot, began)
                run.require(not early, f"{len(early)} votes were accepted in {ballot.slug}, a draft")
                expect(refused(run, ballot, pressed, "not_open"), f"nobody tried to vote in {ballot.slug}")
            hosts[0].open(ballot)
            wait_for_votes(run, ballot, time.monotonic(), within=run.config.brief_or_full(5, 1))
    return answers


def _check_refusal(run: Run, answer: Answer) -> None:
    """Check that an answer is a 200, or says clearly that the poll cannot be opened now."""
    slowest = SLOWEST + run.load.worst_delay
    run.require(answer.seconds <= slowest, f"an answer of admin took {answer.seconds:.1f} s")
    if answer.status == 200:
        return
    run.require(answer.status == 503 and answer.retry_after, f"admin answered {answer!r}")
    text = {"database_away": "Not now", "unknown": "Check whether"}.get(answer.reason, "?")
    run.require(text in answer.problem.get("detail", ""), f"admin answered {answer!r}, without {text}")


def close_while_vote_is_cut(config: RunConfig) -> dict[str, object]:
    """Vote processes cut off from the broker while a poll closes; and a worker that is late to say it was open."""
    with (
        run_under_load(config, admin=True, votes=2, proxy_broker=True, visitors=VISITORS) as run,
        Host(run.system) as host,
        _worker_stopped_before_publishing(run, host) as kept_closed,
    ):
        accepted_late = 0
        for turn in range(int(config.brief_or_full(1, 5))):
            for cut in (1, 2):
                ballot = Ballot(f"cut-{turn}-{cut}", list(KINDS)[turn % len(KINDS) - cut])
                accepted_late += _close_while_cut(run, host, ballot, cut)
        run.system.signal(signal.SIGCONT, "worker-1")
        run.system.processes["worker-1"].wait(10)  # and it stays dead, so that it corrects nothing
        with run.system.broker() as broker:  # not only what vote answers, because the cut makes that right as well
            state = json.loads(str(broker.hget("polls", kept_closed.slug), "utf-8"))["state"]
        run.require(state == "final", f"{kept_closed.slug}, which is final, is published as {state}")
        resumed = time.monotonic()
        with voting_in(run, kept_closed):
            check_closed(run, kept_closed, resumed)
        run.notes["accepted after closing"] = accepted_late
    return run.notes


@contextlib.contextmanager
def _worker_stopped_before_publishing(run: Run, host: Host) -> Iterator[Ballot]:
    """Yield a closed poll that `worker-1` is about to publish as open: it was stopped when it had read that."""
    system = run.system
    ballot = Ballot("kept-closed")
    system.kill("worker-1")
    system.start("worker-1", failpoint="stops_before_publishing")
    system.wait_ready("worker-1")
    host.create(ballot)
    wait_published(run, ballot)
    others = system.workers[1:]
    system.signal(signal.SIGSTOP, *others)  # so that they do not publish it before
    host.open(ballot)
    expect_soon("worker-1 stops", lambda: system.is_stopped("worker-1"), 10)
    system.signal(signal.SIGCONT, *others)
    with voting_in(run, ballot):
        wait_for_votes(run, ballot, time.monotonic(), 10, within=run.config.time_limit(2))
        host.close(ballot)
        wait_refused(run, ballot)
    yield ballot


def _close_while_cut(run: Run, host: Host, ballot: Ballot, cut: int) -> int:
    """Close a poll while some vote processes are cut off; return how many votes were accepted after that."""
    proxies = run.system.broker_proxies[:cut]
    host.create(ballot)
    host.open(ballot)
    with voting_in(run, ballot):
        wait_for_votes(run, ballot, time.monotonic(), 10, within=10)
        for proxy in proxies:
            proxy.block()
        time.sleep(0.3)  # in which votes are under way to the broker
        host.close(ballot)
        closed = time.monotonic()
        time.sleep(run.config.brief_or_full(1.5, 5))  # the length of the fault
        for proxy in proxies:
            proxy.unblock()
        check_closed(run, ballot, time.monotonic())
        return len(accepted(run, ballot, closed))
