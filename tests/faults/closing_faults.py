"""What fails around the moment at which a poll closes: each fault lasts as long as a block."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence

from tests.faults.ballots import Ballot
from tests.faults.proxy import Proxy
from tests.faults.run import Run, expect_soon

CLOCKS = (0.0, 0.4, -0.4, 5.0, -5.0, 90.0, -90.0, 600.0, -600.0)  # seconds by which a clock is wrong
Fault = Callable[[Run, random.Random], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def nothing(_run: Run, _rng: random.Random) -> Iterator[None]:
    yield


def _killed(*parts: str) -> Fault:
    @contextlib.contextmanager
    def fault(run: Run, rng: random.Random) -> Iterator[None]:
        name = rng.choice(_names(run, parts))
        run.system.kill(name)
        yield
        run.system.start(name)
        run.system.wait_ready(name)

    return fault


def _frozen(*parts: str) -> Fault:
    @contextlib.contextmanager
    def fault(run: Run, rng: random.Random) -> Iterator[None]:
        with run.system.frozen(rng.choice(_names(run, parts))):
            yield

    return fault


def _names(run: Run, parts: Sequence[str]) -> Sequence[str]:
    return {"vote": run.system.votes, "worker": run.system.workers}.get(parts[0], list(parts))


def _cut(choose: Callable[[Run], list[Proxy]], *, one: bool = False) -> Fault:
    @contextlib.contextmanager
    def fault(run: Run, rng: random.Random) -> Iterator[None]:
        proxies = choose(run)
        if one:
            proxies = [rng.choice(proxies)]
        for proxy in proxies:
            proxy.block()
        yield
        for proxy in proxies:
            proxy.unblock()

    return fault


@contextlib.contextmanager
def _database_slow(run: Run, rng: random.Random) -> Iterator[None]:
    run.system.database_proxy.delay = rng.uniform(0.05, 0.3)
    yield
    run.system.database_proxy.delay = 0


@contextlib.contextmanager
def late_news(run: Run, rng: random.Random, ballot: Ballot, *, never: bool) -> Iterator[None]:
    """Let one vote process be late to learn of the closing, or not learn it at all, so that it still sends votes."""
    proxy = rng.choice(run.system.broker_proxies)
    if never or rng.random() < 0.5:
        proxy.withheld = str(ballot.fields["question"]).encode()  # of the definition, which the process has
    else:
        proxy.delay = rng.uniform(0.05, 0.25)
    try:
        yield
    finally:
        proxy.withheld, proxy.delay = b"", 0


@contextlib.contextmanager
def _killed_when_it_has_sealed(run: Run, rng: random.Random) -> Iterator[None]:
    """Kill the only worker that runs between its two stores, and let the others continue later."""
    system = run.system
    doomed, *others = rng.sample(system.workers, len(system.workers))
    system.kill(doomed)
    system.start(doomed, failpoint="after_sealing")
    system.wait_ready(doomed)
    with system.frozen(*others):
        yield
        expect_soon(f"{doomed} seals", lambda: system.processes[doomed].poll() is not None, 15)
        time.sleep(rng.uniform(0.1, 0.5))  # in which votes are late
    system.start(doomed)
    system.wait_ready(doomed)


@contextlib.contextmanager
def _clocks_wrong(run: Run, rng: random.Random) -> Iterator[None]:
    """Set the clock of each worker wrong before it seals the round."""
    assert run.system.clocks
    for worker in run.system.workers:
        run.system.clocks.step(worker, rng.choice(CLOCKS[1:]))
    yield


@contextlib.contextmanager
def _broker_slow(run: Run, rng: random.Random) -> Iterator[None]:
    """Let vote processes wait for the answers of the broker, so that many votes are on their way at the closing."""
    for proxy in run.system.broker_proxies:
        proxy.delay = rng.uniform(0.1, 0.3)
    yield
    for proxy in run.system.broker_proxies:
        proxy.delay = 0


@contextlib.contextmanager
def _votes_locked(run: Run, _rng: random.Random) -> Iterator[None]:
    """Lock the votes as CREATE INDEX does: none can be counted, and a round can be read and made final."""
    with run.system.database() as database, database.transaction():
        database.execute("LOCK TABLE votes IN SHARE MODE")
        yield


PREPARED: dict[str, Fault] = {  # before the moment
    "worker killed when it has sealed": _killed_when_it_has_sealed,
    "clocks wrong": _clocks_wrong,
    "broker slow": _broker_slow,
    "votes locked": _votes_locked,
}
FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "clocks wrong": nothing,
    "broker killed": _killed("valkey"),
    "broker frozen": _frozen("valkey"),
    "broker slow": nothing,
    "broker cut off": _cut(lambda run: [*run.system.broker_proxies, run.system.worker_proxy]),
    "worker killed": _killed("worker"),
    "worker killed when it has sealed": nothing,
    "worker frozen": _frozen("worker"),
    "workers cut off": _cut(lambda run: [run.system.worker_proxy]),
    "vote killed": _killed("vote"),
    "vote frozen": _frozen("vote"),
    "vote cut off": _cut(lambda run: run.system.broker_proxies, one=True),
    "database killed": _killed("postgres"),
    "database frozen": _frozen("postgres"),
    "database cut off": _cut(lambda run: [run.system.database_proxy]),
    "database slow": _database_slow,
    "votes locked": nothing,
}
