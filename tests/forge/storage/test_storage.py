"""SQLStorage, on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from forge.errors import ConfigurationError, StorageError, UnstorableError
from forge.pipeline.failure import FailureSource
from forge.pipeline.sample import SampleStatus
from forge.storage import DeadLetterKey, RunRow, SampleRecord, SQLStorage, WriteOutcome, WriteResult
from forge.storage.records import DeadLetter
from forge.support import processes

if TYPE_CHECKING:
    from pathlib import Path

INSERTED, UPDATED, UNCHANGED = WriteOutcome.INSERTED, WriteOutcome.UPDATED, WriteOutcome.UNCHANGED


def ready(sample_id: str, **fields: Any) -> SampleRecord:
    settings: dict[str, Any] = {"status": SampleStatus.READY, "data": b"data", "digest": "d1"} | fields
    return SampleRecord(pipeline="corpus", id=sample_id, **settings)


def letter(sample_id: str, **fields: Any) -> DeadLetter:
    settings: dict[str, Any] = {
        "pipeline": "corpus",
        "source": FailureSource.STAGE,
        "where": "parse",
        "error_type": "SyntaxError",
        "message": "invalid syntax",
        "attempts": 1,
        "time": 100.0,
        "data": b"original",
    }
    return DeadLetter(sample_id=sample_id, **(settings | fields))


def failed(entry: DeadLetter) -> SampleRecord:
    return SampleRecord(
        pipeline=entry.pipeline,
        id=entry.sample_id,
        status=SampleStatus.DLQ,
        reason=entry.error_type,
        dead_letter=entry,
    )


def only(storage: SQLStorage, sample_id: str) -> SampleRecord:
    (record,) = storage.read("corpus", [sample_id]).samples
    return record


# Opening


def test_backend_is_named_by_the_url(storage: SQLStorage, storage_url: str) -> None:
    assert storage.backend == storage_url.partition(":")[0]


def test_open_makes_the_tables_and_may_be_repeated(storage: SQLStorage, storage_url: str) -> None:
    storage.open()
    storage.open()
    engine = create_engine(storage_url.replace("postgresql:", "postgresql+psycopg:"))
    tables = inspect(engine).get_table_names()
    engine.dispose()
    assert sorted(tables) == [
        "forge_costs",
        "forge_dead_letters",
        "forge_manifests",
        "forge_measurements",
        "forge_runs",
        "forge_samples",
        "forge_schema",
        "forge_steps",
    ]


def test_it_can_be_used_again_after_close(storage: SQLStorage) -> None:
    storage.close()
    storage.write([ready("a")])
    storage.close()
    storage.close()
    assert storage.count("corpus") == 1


def test_a_pickled_storage_opens_its_own_connections(storage: SQLStorage) -> None:
    storage.write([ready("a")])
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.count("corpus") == 1
    copy.close()


@pytest.mark.slow
def test_a_forked_process_opens_its_own_connections(storage_url: str) -> None:
    program = """
import os, sys
from forge.pipeline.sample import SampleStatus
from forge.storage import SampleRecord, SQLStorage

storage = SQLStorage(sys.argv[1])

def write(name):
    storage.write([SampleRecord(pipeline="corpus", id=name, status=SampleStatus.READY)])

write("before")
child = os.fork()
if child == 0:
    write("child")
    storage.close()
    sys.exit()
status = os.waitpid(child, 0)[1]
write("after")
print(status, [record.id for record in storage.query("corpus").samples])
storage.close()
"""
    answer = subprocess.run([sys.executable, "-c", program, storage_url], capture_output=True, text=True, check=True)
    assert answer.stdout == "0 ['after', 'before', 'child']\n"
    assert answer.stderr == ""


def test_sqlite_in_memory_is_one_database_for_all_threads() -> None:
    storage = SQLStorage("sqlite://")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: storage.write([ready(str(number))]), range(20)))
        assert set(threads.map(storage.count, ["corpus"] * 4)) == {20}
    storage.close()
    assert storage.count("corpus") == 0
    storage.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "corpus.db",
            ("SQLStorage('corpus.db'): not a database URL; write sqlite:///file.db or postgresql://user@host/database"),
        ),
        (
            "mysql://host/corpus",
            (
                "SQLStorage: 'mysql' is no database it knows; "
                "there are sqlite, sqlite+pysqlite, postgres, postgresql, postgresql+psycopg"
            ),
        ),
    ],
)
def test_a_bad_url_is_refused_at_construction(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLStorage(url)
    assert str(caught.value) == message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/absent/corpus.db"
    with pytest.raises(StorageError) as caught:
        SQLStorage(url).open()
    assert str(caught.value) == f"cannot use {url}: there is no folder {tmp_path}/absent; create it first"


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "corpus.db"
    file.write_text("something else, and long enough to be looked at" * 100)
    with pytest.raises(StorageError) as caught:
        SQLStorage(f"sqlite:///{file}").open()
    assert str(caught.value) == f"cannot use sqlite:///{file}: file is not a database; restore the file from a backup"


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        SQLStorage(f"sqlite:///{tmp_path}").open()
    remedy = "make the file, its folder and its disk writable"
    assert str(caught.value) == f"cannot use sqlite:///{tmp_path}: unable to open database file; {remedy}"


def test_a_database_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "corpus.db").close()
    url = f"sqlite:///file:{tmp_path}/corpus.db?mode=ro&uri=true"
    with pytest.raises(StorageError, match=r"attempt to write a readonly database; make the file, .* writable$"):
        SQLStorage(url).open()


def test_a_server_that_is_down_is_named_without_the_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening, so nobody else can be
        port = unused.getsockname()[1]
        with pytest.raises(StorageError) as caught:
            SQLStorage(f"postgresql://forge:secret@127.0.0.1:{port}/corpus").open()
    message = str(caught.value)
    assert message.startswith(f"cannot use postgresql://forge:***@127.0.0.1:{port}/corpus: ")
    assert "Connection refused" in message
    assert "\n" not in message


def test_a_database_that_does_not_exist_is_named(postgresql_url: str) -> None:
    with pytest.raises(StorageError, match='database "absent" does not exist'):
        SQLStorage(postgresql_url.rpartition("/")[0] + "/absent").open()


@pytest.mark.slow
def test_a_missing_driver_is_named_with_what_to_install() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
from forge.errors import StorageError
from forge.storage import SQLStorage
try:
    SQLStorage("postgresql://127.0.0.1/corpus").open()
except StorageError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("cannot use postgresql://127.0.0.1/corpus: ")
    assert answer.stdout.endswith('; pip install "forge-otel[postgresql]" installs the driver\n')


@pytest.mark.slow
def test_its_library_is_imported_with_the_first_storage() -> None:
    """SQLAlchemy, which is half of the import of `forge`, in every worker."""
    program = """
import sys
import forge, forge_otel
print("sqlalchemy" in sys.modules)
from forge import SQLStorage
print("sqlalchemy" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\nTrue\n"


# Writing and reading samples


def test_a_record_comes_back_as_it_was_written(storage: SQLStorage) -> None:
    record = SampleRecord(
        pipeline="corpus",
        id="pkg/ünïcode 🐍.py",
        status=SampleStatus.SPLIT,
        pipeline_id="p1",
        run_id="r1",
        parent="pkg",
        input_digest="i1",
        digest="d1",
        data=b"\x00\xff\x00",
        reason="because",
        children=("a#1", "a#2"),
        values={("tokens", "1"): b"\x00\x01", ("lines", "2"): b"12"},
    )
    assert storage.write([record]) == WriteResult((INSERTED,), 3 + 2 + 2)
    result = storage.read("corpus", [record.id, "absent", record.id])
    assert result.samples == (record,)
    assert result.size == 7


def test_the_data_of_dead_letters_counts_when_it_is_written_and_read(storage: SQLStorage) -> None:
    full, bare = failed(letter("a", data=b"12345")), failed(letter("b", data=None))
    assert storage.write([full, bare]).size == 5
    assert storage.read("corpus", ["a", "b"]).size == 5
    assert storage.write([full]).size == 5  # which replaces the letter
    assert storage.write([full, full]).size == 5  # of which the last one is written
    assert storage.write([ready("a", data=b"123")]).size == 3
    assert storage.read("corpus", ["a", "b"]).size == 3


def test_empty_data_is_not_absent_data(storage: SQLStorage) -> None:
    storage.write([ready("empty", data=b""), ready("none", data=None)])
    assert only(storage, "empty").data == b""
    assert only(storage, "none").data is None


def test_nothing_to_write_or_read(storage: SQLStorage) -> None:
    assert storage.write([]) == WriteResult((), 0)
    assert storage.read("corpus", []).samples == ()
    assert storage.delete("corpus", []) == 0
    assert storage.measured("corpus", [], "tokens", "1") == {}


@pytest.mark.parametrize(
    "change",
    [
        {"status": SampleStatus.SKIPPED},
        {"pipeline_id": "p2"},
        {"parent": "other"},
        {"parent": None},
        {"input_digest": "i2"},
        {"digest": "d2"},
        {"data": b"other"},
        {"data": None},
        {"reason": "other"},
        {"children": ("x",)},
        {"children": ()},
    ],
    ids=lambda change: "-".join(f"{key}={value}" for key, value in change.items()),
)
def test_a_change_in_any_content_updates_the_row(storage: SQLStorage, change: dict[str, Any]) -> None:
    before = ready("a", pipeline_id="p1", parent="p", input_digest="i1", reason="r", children=("c",), run_id="r1")
    after = dataclasses.replace(before, run_id="r2", **change)
    storage.write([before])
    assert storage.write([after]) == WriteResult((UPDATED,), len(after.data or b""))
    assert only(storage, "a") == after
    assert storage.write([after]) == WriteResult((UNCHANGED,), 0)


def test_an_unchanged_row_keeps_the_run_that_wrote_it(storage: SQLStorage) -> None:
    storage.write([ready("a", run_id="r1")])
    assert storage.write([ready("a", run_id="r2")]) == WriteResult((UNCHANGED,), 0)
    assert only(storage, "a").run_id == "r1"


def test_one_write_says_for_each_record_what_it_did(storage: SQLStorage) -> None:
    storage.write([ready("same"), ready("other")])
    result = storage.write([ready("z"), ready("other", data=b"12345"), ready("same"), ready("a", data=None)])
    assert result == WriteResult((INSERTED, UPDATED, UNCHANGED, INSERTED), 4 + 5)


def test_of_two_records_with_one_id_the_later_counts(storage: SQLStorage) -> None:
    result = storage.write([ready("a", data=b"first"), ready("b"), ready("a", data=b"second")])
    assert result == WriteResult((UNCHANGED, INSERTED, INSERTED), 4 + 6)
    assert only(storage, "a").data == b"second"


def test_a_sample_whose_row_was_removed_by_hand_is_new(storage: SQLStorage, storage_url: str) -> None:
    storage.write([ready("a", values={("tokens", "1"): b"5"}), failed(letter("b"))])
    engine = create_engine(storage_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as by_hand:
        by_hand.execute(text("DELETE FROM forge_samples"))
    engine.dispose()
    result = storage.write([ready("a", values={("tokens", "1"): b"6"}), ready("b")])
    assert result.outcomes == (INSERTED, INSERTED)
    assert [key.sample_id for key in result.superseded] == ["b"]
    assert storage.measured("corpus", [("a", "d1")], "tokens", "1") == {"a": b"5"}


def test_pipelines_do_not_see_each_other(storage: SQLStorage) -> None:
    other = dataclasses.replace(ready("a", data=b"other"), pipeline="other")
    assert storage.write([ready("a"), other]).outcomes == (INSERTED, INSERTED)
    assert (storage.count("corpus"), storage.count("other"), storage.count("absent")) == (1, 1, 0)
    assert storage.delete("other", ["a"]) == 1
    assert only(storage, "a").data == b"data"


@pytest.mark.slow
def test_two_thousand_samples_at_once(storage: SQLStorage) -> None:
    ids = [f"{number:04}" for number in range(2000)]
    records = [ready(sample_id, values={("tokens", "1"): sample_id.encode()}) for sample_id in ids]
    assert storage.write(records) == WriteResult((INSERTED,) * 2000, 2000 * 8)
    assert storage.write(records) == WriteResult((UNCHANGED,) * 2000, 0)
    result = storage.read("corpus", ids)
    assert sorted(result.samples, key=lambda record: record.id) == records
    assert result.size == 2000 * 8
    values = storage.measured("corpus", [(sample_id, "d1") for sample_id in ids], "tokens", "1")
    assert values == {sample_id: sample_id.encode() for sample_id in ids}
    assert storage.delete("corpus", ids) == 2000
    assert storage.count("corpus") == 0


def test_large_data(storage: SQLStorage) -> None:
    data = bytes(range(256)) * (5 * 1024 * 1024 // 256)
    assert storage.write([ready("large", data=data)]).size == 5 * 1024 * 1024
    assert only(storage, "large").data == data


def test_query_by_status_and_parent_in_the_order_of_ids(storage: SQLStorage) -> None:
    storage.write(
        [
            ready("b", parent="p"),
            ready("Z", parent="p"),
            ready("é", parent="p"),
            ready("a b", parent="p", status=SampleStatus.SKIPPED),
            ready("a", values={("tokens", "1"): b"7"}),
        ]
    )

    def ids(**conditions: Any) -> list[str]:
        return [record.id for record in storage.query("corpus", **conditions).samples]

    assert ids() == ["Z", "a", "a b", "b", "é"]
    assert ids(limit=2) == ["Z", "a"]
    assert ids(parent="p") == ["Z", "a b", "b", "é"]
    assert ids(parent="p", status=SampleStatus.READY) == ["Z", "b", "é"]
    assert ids(status=SampleStatus.DLQ) == []
    assert storage.query("corpus", limit=2).samples[1].values == {("tokens", "1"): b"7"}
    assert storage.query("corpus", limit=2).size == 4 + 4 + 1


@pytest.mark.parametrize("limit", [-1, 2**63, 1.5, True, "1"])
def test_a_limit_is_a_number_of_rows(storage: SQLStorage, limit: Any) -> None:
    storage.write([ready("a")])
    for ask in (storage.query, storage.dead_letters, storage.runs):
        with pytest.raises(ConfigurationError, match="limit must be a whole number from 0 to 1000000000, or None, not"):
            ask("corpus", limit=limit)
        assert ask("corpus", limit=None) is not None


# Text that databases cannot hold

ODD_IDS = ["nul\0", "caf\udce9.txt", r"C:\u0000\udce9", "\udce9"]
"""Ids with a NUL, with bytes of a file name that are not UTF-8, and with what looks like an escape."""


def test_any_text_is_an_id(storage: SQLStorage) -> None:
    for sample_id in ODD_IDS:
        child = ready(f"{sample_id}#a", parent=sample_id, values={("k", "1"): b"1"}, costs={("k", "1"): Decimal(2)})
        parent = ready(sample_id, status=SampleStatus.SPLIT, children=(child.id,))
        assert storage.write([parent, child]).outcomes == (INSERTED, INSERTED)
        assert storage.write([parent, child]).outcomes == (UNCHANGED, UNCHANGED)
        assert only(storage, sample_id) == parent
        assert storage.read("corpus", parent.children).samples == (dataclasses.replace(child, costs={}),)
        assert [record.id for record in storage.query("corpus", parent=sample_id).samples] == [child.id]
        assert storage.measured("corpus", [(child.id, "d1")], "k", "1") == {child.id: b"1"}
        assert storage.costs("corpus", [(child.id, "d1")], "k", "1") == {child.id: Decimal(2)}
    assert {record.id for record in storage.query("corpus", status=SampleStatus.SPLIT).samples} == set(ODD_IDS)
    assert storage.delete("corpus", ODD_IDS) == 4
    assert storage.count("corpus") == 4


def test_any_text_is_the_id_of_a_dead_letter(storage: SQLStorage) -> None:
    entries = [letter(sample_id, time=float(age), parent=sample_id) for age, sample_id in enumerate(ODD_IDS)]
    storage.write([failed(entry) for entry in entries])
    assert storage.dead_letters("corpus") == entries
    assert storage.dead_letters("corpus", ids=[ODD_IDS[1]]) == [entries[1]]
    assert only(storage, ODD_IDS[1]).dead_letter == entries[1]
    assert [key.sample_id for key in storage.write([ready(ODD_IDS[0])]).superseded] == [ODD_IDS[0]]
    assert storage.drop_dead_letters("corpus", ODD_IDS) == entries[1:]
    assert storage.dead_letters("corpus") == []


@pytest.mark.parametrize("bad", ["nul\0", "half\ud800", "\udcff"], ids=ascii)
def test_a_pipeline_that_no_database_can_name_is_refused_before_anything_is_written(
    storage: SQLStorage, bad: str
) -> None:
    with pytest.raises(StorageError) as caught:
        storage.write([ready("a"), dataclasses.replace(ready("b"), pipeline=bad)])
    assert str(caught.value) == (
        f"sample 'b' cannot be stored: the pipeline's name {bad!r} has a NUL or half a surrogate pair in it"
    )
    assert storage.count("corpus") == 0


LONGEST = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(682)) + "ab"
"""An id of 2 048 bytes that a database cannot compress."""


def test_the_longest_id_fits_with_the_longest_names(storage: SQLStorage) -> None:
    name, version = LONGEST[100:166], LONGEST[200:233]
    kept: dict[str, Any] = {"values": {(name, version): b"1"}, "costs": {(name, version): Decimal(2)}}
    record = ready(LONGEST, parent=LONGEST, digest="d" * 64, **kept)
    entry = dataclasses.replace(letter(LONGEST), pipeline=name)
    assert len(LONGEST.encode()) == 2048
    assert storage.write([dataclasses.replace(record, pipeline=name)]).outcomes == (INSERTED,)
    assert storage.write([failed(entry)]).outcomes == (UPDATED,)
    assert storage.dead_letters(name) == [entry]


@pytest.mark.parametrize("sample_id", [LONGEST + "c", "x" * 2049, "\udce9" * 342], ids=["wide", "ascii", "escapes"])
def test_a_longer_id_is_refused_before_anything_is_written(storage: SQLStorage, sample_id: str) -> None:
    with pytest.raises(UnstorableError) as caught:
        storage.write([ready("a"), ready(sample_id)])
    size = 2052 if "\udce9" in sample_id else 2049
    assert str(caught.value) == (
        f"sample {sample_id[:80]!r}… cannot be stored: its id has {size} bytes, and an index holds at most 2048; "
        "use a digest of it as the id"
    )
    assert storage.count("corpus") == 0


def test_what_only_people_read_is_escaped(storage: SQLStorage) -> None:
    storage.write([failed(letter("a", message="nul \0, half \udc80", error_type="E\0"))])
    record = only(storage, "a")
    assert record.reason == r"E\u0000"
    assert record.dead_letter is not None
    assert record.dead_letter.message == r"nul \u0000, half \udc80"


# Measured values


def test_values_are_kept_by_version_and_digest(storage: SQLStorage) -> None:
    def write(digest: str, version: str, value: bytes) -> WriteResult:
        return storage.write([ready("a", digest=digest, values={("tokens", version): value})])

    assert write("d1", "1", b"one") == WriteResult((INSERTED,), 4 + 3)
    assert write("d1", "2", b"two!") == WriteResult((UNCHANGED,), 4)
    assert write("d1", "2", b"ignored") == WriteResult((UNCHANGED,), 0)
    assert write("d2", "1", b"three") == WriteResult((UPDATED,), 4 + 5)

    def measured(digest: str, version: str) -> dict[str, bytes]:
        return storage.measured("corpus", [("a", digest)], "tokens", version)

    assert measured("d1", "1") == {"a": b"one"}
    assert measured("d1", "2") == {"a": b"two!"}
    assert measured("d2", "1") == {"a": b"three"}
    assert measured("d2", "2") == {}
    assert storage.measured("corpus", [("a", "d1")], "lines", "1") == {}
    assert storage.measured("other", [("a", "d1")], "tokens", "1") == {}


def test_a_record_is_read_with_the_newest_value_of_its_digest(storage: SQLStorage) -> None:
    for digest, version, value in [("d1", "2", b"old"), ("d1", "1", b"newest"), ("d2", "3", b"elsewhere")]:
        storage.write([ready("a", digest=digest, values={("tokens", version): value})])
    storage.write([ready("a", digest="d1", values={("lines", "1"): b"5"})])
    result = storage.read("corpus", ["a"])
    assert result.samples[0].values == {("tokens", "1"): b"newest", ("lines", "1"): b"5"}
    assert result.size == 4 + 6 + 1


def test_values_of_many_samples_are_not_mixed_up(storage: SQLStorage) -> None:
    storage.write([ready(name, digest=digest, values={("k", "1"): value}) for name, digest, value in [
        ("a", "d1", b"a1"), ("b", "d2", b"b2"), ("c", "d1", b"c1")]])  # fmt: skip
    storage.write([ready("a", digest="d2", values={("k", "1"): b"a2"})])
    pairs = [("a", "d1"), ("b", "d1"), ("c", "d1"), ("absent", "d1")]
    assert storage.measured("corpus", pairs, "k", "1") == {"a": b"a1", "c": b"c1"}


def test_values_without_a_digest_are_refused(storage: SQLStorage) -> None:
    with pytest.raises(StorageError, match="'a' cannot be stored: it has measured values, but no digest"):
        storage.write([ready("a", digest=None, values={("k", "1"): b"1"})])


# Dead letters


def test_a_dead_letter_is_written_and_read_with_its_sample(storage: SQLStorage) -> None:
    entry = letter(
        "a",
        source=FailureSource.MEASUREMENT,
        where="tokens",
        attempts=3,
        time=1700000000.123456,
        run_id="r1",
        pipeline_id="p1",
        parent="p",
        derived_by="split",
        input_digest="i1",
        digest="d1",
        carrier={"traceparent": "00-1-2-01", "odd \0": "\udc80"},
    )
    assert storage.write([failed(entry)]) == WriteResult((INSERTED,), 8)
    assert only(storage, "a").dead_letter == entry
    assert storage.dead_letters("corpus") == [entry]


def test_a_success_removes_the_dead_letter_and_says_so(storage: SQLStorage) -> None:
    storage.write([failed(letter("a")), failed(letter("b"))])
    key = DeadLetterKey(pipeline="corpus", sample_id="a", source=FailureSource.STAGE, where="parse", time=100.0)
    assert storage.write([ready("a"), ready("c")]) == WriteResult((UPDATED, INSERTED), 8, (key,))
    assert only(storage, "a").dead_letter is None
    assert storage.dead_letters("corpus") == [letter("b")]


def test_a_newer_failure_replaces_the_older_one(storage: SQLStorage) -> None:
    newer = letter("a", where="decode", time=200.0, data=None)
    storage.write([failed(letter("a"))])
    (key,) = storage.write([failed(newer)]).superseded
    assert (key.sample_id, key.where, key.time) == ("a", "parse", 100.0)
    assert storage.dead_letters("corpus") == [newer]


def test_dead_letters_are_listed_oldest_first_and_filtered(storage: SQLStorage) -> None:
    entries = [
        letter("c", time=1.0),
        letter("b", time=2.0, where="decode"),
        letter("a", time=3.0, error_type="timeout"),
        letter("d", time=3.0, where="decode", error_type="timeout"),
    ]
    storage.write([failed(entry) for entry in reversed(entries)])

    def ids(**conditions: Any) -> str:
        return "".join(entry.sample_id for entry in storage.dead_letters("corpus", **conditions))

    assert ids() == "cbad"
    assert ids(limit=2) == "cb"
    assert ids(where="decode") == "bd"
    assert ids(error_type="timeout") == "ad"
    assert ids(where="decode", error_type="timeout") == "d"
    assert ids(ids=["a", "b", "absent"]) == "ba"
    assert ids(ids=["a", "b", "d"], where="decode", limit=1) == "b"
    assert ids(since=2.0) == "bad"
    assert ids(until=3.0) == "cb"
    assert ids(since=2.0, until=3.0) == "b"
    assert storage.dead_letters("other") == []


def test_dead_letters_of_all_pipelines(storage: SQLStorage) -> None:
    mine = [letter("a", time=1.0, run_id="1"), letter("b", time=3.0, run_id="2")]
    other = letter("a", time=2.0, run_id="1", pipeline="other", where="decode")
    storage.write([failed(entry) for entry in (*mine, other)])
    assert storage.dead_letters() == [mine[0], other, mine[1]]
    assert storage.dead_letters(run_id="1") == [mine[0], other]
    assert storage.dead_letters(ids=["a"]) == [mine[0], other]
    place = (mine[0].where, mine[0].error_type)
    assert storage.count_dead_letters() == {("corpus", *place): 2, ("other", "decode", other.error_type): 1}
    assert storage.count_dead_letters("corpus", until=2.0) == {("corpus", *place): 1}
    assert storage.count_dead_letters(where="decode", run_id="2") == {}


def test_dropped_dead_letters_are_given_back(storage: SQLStorage) -> None:
    storage.write([failed(letter("a", time=2.0)), failed(letter("b", time=1.0)), failed(letter("c"))])
    dropped = storage.drop_dead_letters("corpus", ["a", "b", "absent"])
    assert dropped == [letter("b", time=1.0), letter("a", time=2.0)]
    assert storage.drop_dead_letters("corpus", ["a"]) == []
    assert storage.dead_letters("corpus") == [letter("c")]
    assert only(storage, "a").status is SampleStatus.DLQ


def test_the_state_counts_by_place(storage: SQLStorage) -> None:
    assert storage.dead_letter_state("corpus") == ({}, None)
    measured = {"source": FailureSource.MEASUREMENT, "time": 50.0}
    storage.write([failed(letter("a")), failed(letter("b")), failed(letter("c", **measured))])
    assert storage.dead_letter_state("corpus") == (
        {(FailureSource.STAGE, "parse"): 2, (FailureSource.MEASUREMENT, "parse"): 1},
        50.0,
    )


def test_delete_takes_values_and_dead_letters_along(storage: SQLStorage) -> None:
    storage.write([failed(letter("a")), ready("b", values={("k", "1"): b"1"}), ready("c")])
    assert storage.delete("corpus", ["a", "b", "absent"]) == 2
    assert [record.id for record in storage.query("corpus").samples] == ["c"]
    assert storage.dead_letters("corpus") == []
    assert storage.measured("corpus", [("b", "d1")], "k", "1") == {}
    assert storage.write([ready("a")]).outcomes == (INSERTED,)


# Runs


def test_runs_are_listed_newest_first(storage: SQLStorage) -> None:
    storage.begin_run("r1", "corpus", "p1", 10.0, {})
    storage.begin_run("r2", "corpus", "p1", 20.0, {"revision": "abc"})
    storage.begin_run("r3", "other", "p2", 15.0, {})
    storage.end_run("r1", 12.5, "completed", {"ready": 3, "input": "ü\0\ud800"})
    ours = processes.current()
    process: dict[str, Any] = {"host": ours.host, "pid": ours.pid, "process": ours.birth}
    first = RunRow(
        id="r1",
        pipeline="corpus",
        pipeline_id="p1",
        started=10.0,
        ended=12.5,
        outcome="completed",
        record={"ready": 3, "input": "ü\0\ud800"},
        **process,
    )
    died = RunRow(id="r2", pipeline="corpus", pipeline_id="p1", started=20.0, record={"revision": "abc"}, **process)
    assert storage.runs("corpus") == [died, first]
    assert [row.id for row in storage.runs()] == ["r2", "r3", "r1"]
    assert storage.runs(limit=1) == [died]


def test_a_run_that_never_began_cannot_end(storage: SQLStorage) -> None:
    with pytest.raises(StorageError, match="run 'r1' cannot be ended: it is not stored"):
        storage.end_run("r1", 1.0, "completed", {})


def test_a_run_id_is_used_once(storage: SQLStorage) -> None:
    storage.begin_run("r1", "corpus", "p1", 10.0, {})
    with pytest.raises(IntegrityError):
        storage.begin_run("r1", "corpus", "p1", 11.0, {})


# All or nothing, and many at once


def test_a_failed_write_leaves_nothing(storage: SQLStorage) -> None:
    storage.write([ready("old")])
    broken = letter("b", attempts="many" * 10, message="no number")
    if storage.backend == "sqlite":  # which takes any type, but not every Python object
        broken = letter("b", attempts=object())
    with pytest.raises(DBAPIError):
        storage.write(
            [ready("a", values={("k", "1"): b"1"}), failed(broken), ready("old", data=b"new")],
        )
    assert [record.id for record in storage.query("corpus").samples] == ["old"]
    assert only(storage, "old").data == b"data"
    assert storage.measured("corpus", [("a", "d1")], "k", "1") == {}
    assert storage.dead_letters("corpus") == []
    assert storage.write([ready("a")]).outcomes == (INSERTED,)


def _die_in_a_write(url: str) -> None:
    """The process ends when the samples were sent, and the dead letters were not."""
    program = """
import os, sys
from sqlalchemy import Engine, event
from forge.pipeline.sample import SampleStatus
from forge.storage import SampleRecord, SQLStorage

@event.listens_for(Engine, "before_cursor_execute")
def watch(connection, cursor, statement, *rest):
    if "forge_dead_letters" in statement and "SELECT forge" in statement:
        os._exit(9)

storage = SQLStorage(sys.argv[1])
fields = {"pipeline": "corpus", "status": SampleStatus.READY, "digest": "d", "values": {("k", "1"): b"1"}}
storage.write([SampleRecord(id=str(number), **fields) for number in range(500)])
"""
    assert subprocess.run([sys.executable, "-c", program, url], check=False).returncode == 9


@pytest.mark.slow
def test_a_process_that_dies_in_a_write_leaves_nothing(storage: SQLStorage, storage_url: str) -> None:
    _die_in_a_write(storage_url)
    assert storage.count("corpus") == 0
    assert storage.measured("corpus", [("1", "d")], "k", "1") == {}
    assert storage.write([ready("1")]).outcomes == (INSERTED,)


def _write_as(url: str, name: str, start: Any, answers: Any) -> None:
    storage = SQLStorage(url)
    start.wait()
    counts: dict[str, int] = {}
    for round_number in range(5):
        records = [
            ready(str(number), data=f"{name} {round_number}".encode(), values={("k", "1"): b"same"})
            for number in range(200)
        ]
        # Each in its own order: writers that lock rows as they come would wait for each other.
        result = storage.write(records if name == "x" else records[::-1])
        for outcome in result.outcomes:
            counts[outcome] = counts.get(outcome, 0) + 1
    answers.put((counts, storage.write([failed(letter("dead"))]).outcomes[0]))
    storage.close()


@pytest.mark.slow
def test_processes_that_write_the_same_ids(storage_url: str) -> None:
    """Neither the tables, which nobody has made yet, nor the rows get in their way."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(3), context.Queue()
    writers = [context.Process(target=_write_as, args=(storage_url, name, start, answers)) for name in "xyz"]
    for writer in writers:
        writer.start()
    results = [answers.get(timeout=300) for _ in writers]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert sum(counts.get(INSERTED, 0) for counts, _ in results) == 200
    assert sum(counts.get(UPDATED, 0) for counts, _ in results) == 3 * 5 * 200 - 200
    assert sorted(dead for _, dead in results) == [INSERTED, UNCHANGED, UNCHANGED]
    storage = SQLStorage(storage_url)
    assert storage.count("corpus") == 201
    assert storage.query("corpus", limit=1).samples[0].values == {("k", "1"): b"same"}
    storage.close()


def test_threads_that_write_read_and_delete(storage: SQLStorage) -> None:
    ids = [str(number) for number in range(50)]
    start = threading.Barrier(6)

    def write(name: int) -> int:
        start.wait()
        return sum(
            storage.write([ready(sample_id, data=f"{name} {turn}".encode()) for sample_id in ids]).size
            for turn in range(5)
        )

    def read(_: int) -> set[int]:
        start.wait()
        # One transaction writes all fifty, so a reader sees none or all.
        return {len(storage.read("corpus", ids).samples) for _ in range(10)}

    def delete(_: int) -> set[int]:
        start.wait()
        return {storage.delete("corpus", ids) for _ in range(5)}

    with ThreadPoolExecutor(6) as threads:
        written = [threads.submit(write, name) for name in range(2)]
        seen = [threads.submit(action, 0) for action in (read, read, delete, delete)]
        assert [job.result() for job in written] == [5 * 50 * 3] * 2
        assert set().union(*(job.result() for job in seen)) <= {0, 50}


def test_a_read_that_began_is_not_disturbed_by_a_write(storage: SQLStorage, storage_url: str) -> None:
    """SQLite's write-ahead log: whoever reads does not block a writer, nor the other way round."""
    storage.write([ready("a")])
    engine = create_engine(storage_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as other:
        other.execute(text("UPDATE forge_samples SET data = NULL"))
        assert only(storage, "a").data == b"data"
    assert only(storage, "a").data is None
    engine.dispose()


def stored(url: str) -> SQLStorage:
    """A storage to be read only, in which one sample is stored."""
    writer = SQLStorage(url)
    writer.write([ready("a")])
    writer.close()
    return SQLStorage(url, read_only=True)


def ids(storage: SQLStorage) -> list[str]:
    return [record.id for record in storage.read("corpus", ["a", "b"]).samples]


def test_a_read_only_storage_reads_and_refuses_to_write_at_once(storage_url: str) -> None:
    storage = stored(storage_url)
    assert ids(storage) == ["a"]
    with pytest.raises(StorageError, match=r"^cannot use .*: it was opened to be read only$"):
        storage.write([ready("b")])
    copy = pickle.loads(pickle.dumps(storage))
    with pytest.raises(StorageError, match=r"^cannot use .*: it was opened to be read only$"):
        copy.write([ready("b")])
    assert ids(copy) == ["a"]
    storage.close()
    copy.close()


def test_a_read_only_storage_creates_and_migrates_nothing(storage_url: str) -> None:
    storage = SQLStorage(storage_url)
    assert not storage.has_current_schema()
    storage.open()
    assert storage.has_current_schema()
    storage.close()
    engine = create_engine(storage_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE forge_steps"))
    engine.dispose()
    reader = SQLStorage(storage_url, read_only=True)
    with pytest.raises(StorageError, match=r"it lacks tables, .*; open it once without read_only$"):
        reader.open()
    assert not storage.has_current_schema()


def test_a_file_is_read_in_a_folder_that_takes_no_file_of_locks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/100 #%253F.db"
    storage, file = stored(url), tmp_path / "100 #%3F.db"
    file.with_name(f"{file.name}-shm").symlink_to("absent")  # SQLite follows no link here
    assert storage.has_current_schema()
    assert ids(storage) == ["a"]
    storage.close()
    # Without what is in the log, the file would be read as of an earlier time.
    file.with_name(f"{file.name}-wal").write_bytes(b"written")
    with pytest.raises(StorageError, match="unable to open database file"):
        SQLStorage(url, read_only=True).open()


def test_a_server_that_takes_no_writes_is_read(postgresql_url: str) -> None:
    stored(postgresql_url).close()
    storage = SQLStorage(f"{postgresql_url}?options=-cdefault_transaction_read_only%3Don", read_only=True)
    assert ids(storage) == ["a"]
    storage.close()
