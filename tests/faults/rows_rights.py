"""A fault of rights: somebody else has the password with which vote writes to the broker."""

import secrets
import signal
import time
from typing import Any

import redis

from tests.faults.trial import Broken, Case, Trial, must, soon, trial
from voting.operate.secrets import ACL
from voting.polls import AHEAD_SECONDS, VOTER_BYTES

AHEAD = "the id is more than a day ahead, or too large"
LARGEST = f"{2**64 - 1}-{2**64 - 1}"


def forged_ids(case: Case) -> dict[str, object]:
    """With the password of vote: entries with ids of the future, up to the largest, and what waits is removed."""
    with trial(case) as now:
        plant = now.plant
        before = plant.pids()
        with plant.broker() as broker:
            password = secrets.token_hex()
            rights = ["on", "resetpass", f">{password}", "resetkeys", *ACL["vote"].split()]
            broker.execute_command("ACL", "SETUSER", "vote", *rights)
            thief = redis.Redis.from_url(plant.redis_url, username="vote", password=password, socket_timeout=5)
            forged = set()
            for number in range(int(case.short(3, 12))):
                soon_ms, late_ms = (int((time.time() + seconds) * 1000) for seconds in (5, AHEAD_SECONDS + 3600))
                entry = (f"{soon_ms}-{2**63}", f"{late_ms}-0", LARGEST)[number % 3]
                fields: dict[Any, Any] = {
                    b"poll": b"default",
                    b"voter": secrets.token_bytes(VOTER_BYTES),
                    b"choice": b"a",
                }
                plant.signal(signal.SIGSTOP, *plant.workers)  # or the stream may be renewed before anybody votes
                began = time.monotonic()
                thief.xadd("votes", fields, id=entry)
                forged.add(entry)
                soon("votes are refused", lambda began=began: now.history.count("refused", began), case.mark(2))  # type: ignore[misc]
                plant.signal(signal.SIGCONT, *plant.workers)
                soon("votes are accepted again", lambda: _all_accepted(now), case.mark(5), bound=True)
                now.load.goes_on()
            _trim(now, broker, thief)
            thief.close()
        rows = plant.rows("SELECT entry_ms || '-' || entry_seq, reason FROM dead_letters")
        if kept := forged - {entry for entry, reason in rows if reason == AHEAD}:
            raise Broken.promises([f"bound: the forged entry {entry} was not put aside" for entry in kept])
        must({reason for _, reason in rows} == {AHEAD}, f"other reasons: {rows}")
        now.dead_letters = len(rows)
        must(plant.pids() == before, "a process of ours was restarted")
    return now.notes | {"forged": len(forged), "dead letters": now.dead_letters}


def _all_accepted(now: Trial) -> bool:
    """Return whether the newest twenty votes were all accepted."""
    return all(attempt.outcome == "ok" for attempt in now.history.attempts[-20:])


def _trim(now: Trial, broker: redis.Redis, thief: redis.Redis) -> None:
    """Remove entries that wait, which are not voters', and check that each worker says so while votes go on."""
    plant = now.plant
    with now.load.held():
        soon("all is counted", lambda: plant.waiting() == (0, 0), 20)
        plant.signal(signal.SIGSTOP, *plant.workers)
        soon("no read is under way", lambda: not broker.info("clients")["blocked_clients"], 5)
        for _ in range(9):
            thief.xadd("votes", {"poll": "default"})
        thief.xadd("votes", {"poll": "default"}, maxlen=0, approximate=False)
        now.removed = 10
        plant.signal(signal.SIGCONT, *plant.workers)
    for name in plant.workers:
        soon(
            f"{name} shows what was removed",
            lambda name=name: plant.metric(name, "voting_stream_missing") == 10,  # type: ignore[misc]
            now.case.mark(5),
            bound=True,
        )
    told = sum(plant.log(name).count("stream.entries_removed") for name in plant.workers)
    must(told == 1, f"it was logged {told} times")
