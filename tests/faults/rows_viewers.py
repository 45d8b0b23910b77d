"""Faults of viewers: many that do not read, and many that connect at once."""

import time
from typing import Any

from tests.faults.run import RunConfig, expect, expect_soon, run_under_load
from tests.faults.viewers import FreshnessProbe, Viewers, page_reconnects_by_the_same_rule, unread_viewers

UNREAD_VIEWERS = 200
QUERIES = 80  # a second; the result service asks at most every 16 ms, and some packets are no query


def slow_readers(config: RunConfig) -> dict[str, object]:
    """Two hundred viewers that never read."""
    with run_under_load(config) as run:
        system = run.system
        probe = FreshnessProbe(system)
        probe.start()
        memory = system.memory("result")
        began = time.monotonic()
        with unread_viewers(system.result_port, UNREAD_VIEWERS):
            expect_soon("they are let in", lambda: system.metric("result", "voting_viewers ") > UNREAD_VIEWERS, 10)
            expect_soon(
                "they are cut",
                lambda: system.metric("result", "voting_viewers_cut_total") >= UNREAD_VIEWERS,
                config.time_limit(20),
            )
            run.notes["cut after s"] = round(time.monotonic() - began, 1)
            grown = system.memory("result") - memory
        p99 = probe.stop()
        expect(grown <= 20, f"result grew by {grown:.0f} MiB")
        expect(
            p99 <= config.time_limit(0.5),
            f"the 99th percentile of other viewers was {p99:.2f} s of {len(probe.times)} votes",
        )
        run.notes |= {"grew MiB": round(grown, 1), "p99 of others ms": round(1000 * p99)}
    return run.notes


def stampede(config: RunConfig) -> dict[str, object]:
    """The result service killed (-9) while thousands watch, who all come back."""
    number = int(config.brief_or_full(500, 2000))
    expect(page_reconnects_by_the_same_rule(), "the page reconnects by another rule than these viewers")
    with run_under_load(config, proxy_result=True) as run:
        system, proxy = run.system, run.system.result_proxy
        alone = _rate(lambda: proxy.requests, 3)
        with Viewers(system.result_port, number, config.seed).connected() as viewers:
            watched = _rate(lambda: proxy.requests, 3)
            system.kill("result")
            expect_soon("they are cut off", lambda: viewers.open == 0, 10)
            viewers.arrived.clear()
            system.start("result")
            system.wait_ready("result")
            asked, ready = proxy.requests, time.monotonic()
            expect_soon("all are back", lambda: viewers.open == number, config.time_limit(20))
            took = time.monotonic() - ready
            stormed = (proxy.requests - asked) / took
            times = sorted(viewers.arrived)
        spread = times[int(0.95 * len(times))] - times[int(0.05 * len(times))]
        expect(spread > 0.5, f"nine of ten viewers came within {spread:.2f} s: there is no jitter")
        rates = {"alone": alone, "watched": watched, "while they came": stormed}
        expect(max(rates.values()) <= max(QUERIES, 1.5 * alone), f"queries a second depend on viewers: {rates}")
        run.notes |= {"viewers": number, "back after s": round(took, 1), "spread s": round(spread, 1)}
        run.notes["queries a second"] = {name: round(rate) for name, rate in rates.items()}
    return run.notes


def _rate(counter: Any, seconds: float) -> float:
    before = counter()
    time.sleep(seconds)  # the time over which is measured
    return float(counter() - before) / seconds
