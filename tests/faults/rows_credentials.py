"""A stolen credential: an attacker has the password with which vote writes to the broker."""

import secrets
import signal
import time
from typing import Any

import redis

from tests.faults.run import RowFailed, Run, RunConfig, expect, expect_soon, run_under_load
from voting.operate.secrets import ACL
from voting.polls.vote import MAX_AHEAD_SECONDS, VOTER_BYTES

AHEAD = "the id is more than a day ahead, or too large"
LARGEST = f"{2**64 - 1}-{2**64 - 1}"


def forged_ids(config: RunConfig) -> dict[str, object]:
    """With the password of vote: entries with ids of the future, up to the largest, and what waits is removed."""
    with run_under_load(config) as run:
        system = run.system
        before = system.pids()
        with system.broker() as broker:
            password = secrets.token_hex()
            rights = ["on", "resetpass", f">{password}", "resetkeys", *ACL["vote"].split()]
            broker.execute_command("ACL", "SETUSER", "vote", *rights)
            thief = redis.Redis.from_url(system.redis_url, username="vote", password=password, socket_timeout=5)
            forged = set()
            for number in range(int(config.brief_or_full(3, 12))):
                soon_ms, late_ms = (int((time.time() + seconds) * 1000) for seconds in (5, MAX_AHEAD_SECONDS + 3600))
                entry = (f"{soon_ms}-{2**63}", f"{late_ms}-0", LARGEST)[number % 3]
                fields: dict[Any, Any] = {
                    b"poll": b"default",
                    b"voter": secrets.token_bytes(VOTER_BYTES),
                    b"choice": b"a",
                }
                system.signal(signal.SIGSTOP, *system.workers)  # or the stream may be recreated before anyone votes
                began = time.monotonic()
                thief.xadd("votes", fields, id=entry)
                forged.add(entry)
                run.expect_refused_soon(began, config.time_limit(2))
                system.signal(signal.SIGCONT, *system.workers)
                expect_soon(
                    "votes are accepted again", lambda: _all_accepted(run), config.time_limit(5), is_violation=True
                )
                run.load.wait_for_votes()
            _trim(run, broker, thief)
            thief.close()
        rows = system.rows("SELECT entry_ms || '-' || entry_seq, reason FROM dead_letters")
        if kept := forged - {entry for entry, reason in rows if reason == AHEAD}:
            raise RowFailed.from_violations([f"bound: the forged entry {entry} was not put aside" for entry in kept])
        expect({reason for _, reason in rows} == {AHEAD}, f"other reasons: {rows}")
        run.dead_letters = len(rows)
        expect(system.pids() == before, "a service was restarted")
    return run.notes | {"forged": len(forged), "dead letters": run.dead_letters}


def _all_accepted(run: Run) -> bool:
    """Return whether the newest twenty votes were all accepted."""
    return all(attempt.outcome == "ok" for attempt in run.history.attempts[-20:])


def _trim(run: Run, broker: redis.Redis, thief: redis.Redis) -> None:
    """Delete waiting entries, which are no voter's, and check that each worker reports it while voting goes on."""
    system = run.system
    with run.load.paused():
        expect_soon("all is counted", lambda: system.backlog() == (0, 0), 20)
        system.signal(signal.SIGSTOP, *system.workers)
        expect_soon("no read is under way", lambda: not broker.info("clients")["blocked_clients"], 5)
        for _ in range(9):
            thief.xadd("votes", {"poll": "default"})
        thief.xadd("votes", {"poll": "default"}, maxlen=0, approximate=False)
        run.removed = 10
        system.signal(signal.SIGCONT, *system.workers)
    for name in system.workers:
        expect_soon(
            f"{name} shows what was removed",
            lambda name=name: system.metric(name, "voting_stream_missing") == 10,  # type: ignore[misc]
            run.config.time_limit(5),
            is_violation=True,
        )
    logged = sum(system.log(name).count("stream.entries_removed") for name in system.workers)
    expect(logged == 1, f"it was logged {logged} times")
