"""Mutants: copies of `src/` in which a text is replaced, so that a fault row has to fail.

A row that passes on one of its mutants proves nothing. A text that is no longer in the source is an error, so that no
mutant is the unchanged product unnoticed.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.cluster import ROOT
from tests.faults.rows import find
from tests.faults.run import RowFailed, RunConfig


@dataclass(frozen=True)
class Mutant:
    """One defect.

    Args:
        name: what is wrong.
        file: below `src/voting`.
        changes: pairs of a text of the file and its replacement.
        rows: names of the rows that must fail, the quickest first.
        attacks: names of the attacks or faults that suffice, if the row has several.
    """

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    rows: tuple[str, ...]
    attacks: tuple[str, ...] = ()

    def build(self, folder: Path) -> Path:
        """Write the mutant to `folder`; return its `src`.

        Raises:
            LookupError: a text is not in the file exactly once, so the mutant has to follow the product.
        """
        source = folder / "src"
        shutil.copytree(ROOT / "src", source)
        file = source / "voting" / self.file
        text = file.read_text()
        for original, replacement in self.changes:
            if (times := text.count(original)) != 1:
                raise LookupError(f"mutant {self.name}: {self.file} has {times} times, not once: {original!r}")
            text = text.replace(original, replacement)
        file.write_text(text)
        return source


COMMIT = "        started = time.perf_counter()\n"
ACKNOWLEDGE = "        await self._acknowledge(batch.entries)\n"
READ = '        return await self._read(b">", count, b"BLOCK", int(block * 1000))\n'
POP = """\
        entries = await self._read(b">", count, b"BLOCK", int(block * 1000))
        if entries:
            await self.acknowledge([entry for entry, _ in entries])
        return entries
"""
PAUSE = "            self._transport.pause_reading()  # whatever follows stays in the kernel\n"
CANCEL = """\
        if self._closing is not None:
            self._closing.cancel()  # it would keep this viewer in memory
"""
CLOSE = "if self._protocol.close_expected():"
FIND = '        found = await self._find(request, "view=public")\n        url = self._vote_url(request)\n'
MAKE_CODE = """\
        url = self._vote_url(request)
        self._qr_codes.get(url)
        found = await self._find(request, "view=public")
"""
GROUP = 'transaction.xgroup_create(STREAM, GROUP, "0", mkstream=True)'
GUARD = "        WHERE (stored.entry_ms, stored.entry_seq) < (excluded.entry_ms, excluded.entry_seq)\n"
RETURNING = "    RETURNING new.poll, old.choice AS before, new.choice AS after\n"
RECORD = '        await self.connection.execute(QUERIES["admin_record"], row'
OWN_TRANSACTION = """\
        await self.connection.execute("COMMIT")
        await self.connection.execute("BEGIN")
"""
VOTED = "    SELECT poll, decode(voter, 'hex') AS voter, choice, ms, seq\n"
CURRENT_ROUND = """\
    SELECT coalesce((SELECT poll_box(slug, round) FROM polls WHERE slug = split_part(poll, '#', 1)), poll) AS poll,
           decode(voter, 'hex') AS voter, choice, ms, seq
"""
SEEN = """\
), seen AS (
    SELECT stored.* FROM votes AS stored JOIN batch USING (poll, voter)
), written AS (
"""
COMPARED = """\
    RETURNING new.poll, new.voter, new.choice AS after
), counted AS (
    SELECT poll, seen.choice AS before, after FROM written LEFT JOIN seen USING (poll, voter)
"""
LATE = "        if cut is not None and not counts(entry, cut):\n            raise Late\n"
CLOCK = "str(EntryId(max_entry_ms() - 86_400_000, 0)) if cut is None else str(cut)"
READ_AFTER = """\
            sent = self._pipeline.send(command)
            cuts, place = self._cuts, self._cuts.add(poll)
            reply = await sent
            cut = self._cut(await cuts.read(), place) if isinstance(reply, bytes) else None
"""
READ_BEFORE = """\
            cuts, place = self._cuts, self._cuts.add(poll)
            await self._pipeline.send(b"*1\\r\\n$4\\r\\nPING\\r\\n")
            cut = self._cut(await cuts.read(), place)
            reply = await self._pipeline.send(command)
"""

MUTANTS = (
    Mutant(
        "acknowledges before COMMIT",
        "worker/counter.py",
        ((COMMIT, ACKNOWLEDGE + COMMIT),),
        ("worker-killed",),
    ),
    Mutant(
        "pops, then writes, as the classic worker does",
        "broker/stream.py",
        ((READ, POP),),
        ("worker-killed",),
    ),
    Mutant(
        "no check that a vote is newer",
        "database/sql/queries.sql",
        ((GUARD, ""),),
        ("reordered", "zombie", "delivered-twice"),
    ),
    Mutant(
        "tally change read by a CTE",
        "database/sql/queries.sql",
        (("), counted AS (\n", SEEN), (RETURNING, COMPARED)),
        ("reordered", "delivered-twice"),
    ),
    Mutant(
        "MAXLEN on the stream",
        "broker/producer.py",
        (('b"NOMKSTREAM", b"*",', 'b"NOMKSTREAM", b"MAXLEN", b"500", b"*",'),),
        ("database-cut", "database-slow"),
    ),
    Mutant(
        "group created at $",
        "broker/stream.py",
        ((GROUP, GROUP.replace('"0"', '"$"')),),
        ("flushed",),
    ),
    Mutant(
        "takes a read-only database for a bug",
        "database/connection.py",
        (("    psycopg.InternalError,\n", ""),),
        ("read-only",),
    ),
    Mutant(
        "keeps a stream that gives no ids",
        "broker/stream.py",
        (("renew = last.ms > max_ms", "renew = False"),),
        ("forged-ids",),
    ),
    Mutant(
        "every refusal says no",
        "broker/producer.py",
        (('Refused("broker_silent", sent=True)', 'Refused("broker_silent")'),),
        ("fsync-stalls", "broker-killed"),
    ),
    Mutant(
        "counts entries with any id",
        "worker/batch.py",
        (("elif entry.ms > limit or entry.seq > MAX_SEQ:", "elif False:"),),
        ("forged-ids",),
    ),
    Mutant(
        "goes on above any dead letter",
        "database/sql/queries.sql",
        (("FROM dead_letters WHERE entry_ms <= %(max_ms)s::numeric", "FROM dead_letters"),),
        ("forged-ids",),
    ),
    Mutant(
        "does not notice what somebody else removes",
        "broker/removals.py",
        (("if missing > 0 then\n", "if false then\n"),),
        ("forged-ids",),
    ),
    Mutant(
        "reads while a request is in hand",
        "web/protocol.py",
        (
            (
                "            self._pipelined += data\n            self._pause_transport()\n",
                "            self._pipelined += data\n",
            ),
        ),
        ("pipelined",),
        ("one connection, read", "not read"),
    ),
    Mutant(
        "waits for ever for a client to read",
        "web/connection.py",
        (("if now - self._stuck_since > min(STUCK_SECONDS, self._time_limit):", "if False:"),),
        ("pipelined",),
        ("not read",),
    ),
    Mutant(
        "waits for ever for a request",
        "web/connection.py",
        (("            self._reject(408)\n", "            pass\n"),),
        ("endless",),
        ("slow heads",),
    ),
    Mutant(
        "takes a head of any size",
        "web/framing.py",
        (("if self._size > MAX_HEAD:", "if False:"),),
        ("endless",),
        ("header fields",),
    ),
    Mutant(
        "takes a body of any size",
        "web/framing.py",
        (("if self._size > self._max_body:", "if False:"),),
        ("endless",),
        ("chunk extensions",),
    ),
    Mutant(
        "takes any number of header fields",
        "web/framing.py",
        (("if fields > MAX_FIELDS:", "if False:"),),
        ("endless",),
        ("small header fields",),
    ),
    Mutant(
        "makes QR codes for unknown polls",
        "result/endpoints.py",
        ((FIND, MAKE_CODE),),
        ("endless",),
        ("codes of longer paths",),
    ),
    Mutant(
        "takes any number of frames",
        "result/viewer.py",
        (
            ("data = data[:room]", "pass"),
            ("if self._frames > MAX_FRAMES or self._received > MAX_RECEIVED:", "if False:"),
        ),
        ("sockets",),
        ("pings", "pongs"),
    ),
    Mutant(
        "reads on while it closes a socket",
        "result/viewer.py",
        ((PAUSE, ""), ("if self._protocol.close_expected() and self._closing is None:", CLOSE), (CANCEL, "")),
        ("sockets",),
        ("pings, not read",),
    ),
    Mutant(
        "takes any number of connections",
        "web/addresses.py",
        (("if full or self._total >= self._max_total:", "if False:"),),
        ("hostile",),
    ),
    Mutant(
        "accepts votes in any state",
        "vote/endpoint.py",
        (('        if state != "open":\n', "        if False:\n"),),
        ("open-while-the-database-is-away", "close-while-vote-is-cut"),
    ),
    Mutant(
        "publishes what is older than what was published",
        "broker/publication.py",
        (("await transaction.watch(key)", 'await transaction.watch(b"nothing")'),),
        ("close-while-vote-is-cut",),
    ),
    Mutant(
        "writes the audit log in a transaction of its own",
        "admin/change.py",
        ((RECORD, OWN_TRANSACTION + RECORD),),
        ("admin-killed",),
    ),
    Mutant(
        "counts votes in the current round",
        "database/sql/queries.sql",
        ((VOTED, CURRENT_ROUND),),
        ("admin-killed",),
    ),
    Mutant(
        "takes votes for a deleted poll for malformed ones",
        "worker/batch.py",
        (("if isinstance(malformed, Deleted):", "if False:"),),
        ("admin-killed",),
    ),
    Mutant(
        "refuses late votes, and counts them",
        "polls/vote_parser.py",
        ((LATE, ""),),
        ("closing",),
        ("votes locked",),
    ),
    Mutant(
        "accepts late votes, and does not count them",
        "broker/producer.py",
        (("if cut is not None and not counts(EntryId.parse(reply), cut):", "if False:"),),
        ("closing",),
        ("votes locked",),
    ),
    Mutant(
        "seals a round by the clock of the worker",
        "broker/seals.py",
        (('"" if cut is None else str(cut)', CLOCK),),
        ("closing",),
        ("clocks wrong",),
    ),
    Mutant(
        "reads the cut before it adds the vote",
        "broker/producer.py",
        ((READ_AFTER, READ_BEFORE),),
        ("closing",),
        ("broker slow",),
    ),
    Mutant(
        "makes a round final while its votes wait",
        "broker/seals.py",
        (("return bool(exists) and not entries", "return True"),),
        ("closing",),
        ("votes locked",),
    ),
    Mutant(
        "seals a round again",
        "broker/seals.py",
        (("local cut = redis.call('HGET', KEYS[2], ARGV[1])", "local cut = false"),),
        ("closing",),
        ("worker killed when it has sealed",),
    ),
    Mutant(
        "keeps the cuts that it has read",
        "polls/vote_parser.py",
        (("if version != self._seals:", "if False:"),),
        ("closing",),
        ("clocks wrong",),
    ),
)
PROMISES_BROKEN = {
    "0": "too few votes",
    "1": "votes lost",
    "2": "votes replaced by older ones",
    "3": "checks with a wrong tally",
    "4": "rows without a vote",
    "5": "backlog or dead letters left",
    "6": "bad answers",
    "7": "wrong refusals",
    "8": "differences from a final result",
}


def run_mutant(mutant: Mutant, row: str, config: RunConfig) -> str:
    """Run a row on a mutant; return which promises the mutant broke.

    Raises:
        RowFailed: the row passed, or failed before it checked the promises.
    """
    config.folder.mkdir(parents=True)
    try:
        find(row).run(replace(config, source=mutant.build(config.folder), attacks=mutant.attacks))
    except RowFailed as failure:
        if not failure.violations:
            raise
        bounds = [each.partition(": ")[2] for each in failure.violations if each.startswith("bound: ")]
        times = Counter(each[0] for each in failure.violations if each[0] in PROMISES_BROKEN)
        return ", ".join(bounds + [f"{times[number]} {PROMISES_BROKEN[number]}" for number in sorted(times)])
    raise RowFailed(f"{row} did not notice {mutant.name}")
