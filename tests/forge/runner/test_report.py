"""The report of a run, by real runs: everything of it is in `print(run.result)`."""

from __future__ import annotations

import io
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from forge import BatchRunner, Measurement, Pipeline, Sample, Skip, SQLStorage, stage, usage
from forge.runner.report import report
from forge.support.layout import to_text
from tests.support.clock import FakeClock


def a_run() -> tuple[Pipeline, FakeClock]:
    """A pipeline in which everything happens, by a clock that moves in its stages."""
    clock = FakeClock()

    @stage(concurrency=4)
    def annotate(sample: Sample) -> Sample | Skip:
        clock.advance(2)
        usage.report(provider="llm", model="m", input_tokens=10, output_tokens=2, amount=Decimal("0.5"))
        if sample.data == 1:
            raise ValueError("no <b>text</b>\nin it")
        return Skip("short") if sample.data == 2 else sample

    class Length(Measurement):
        key, version = "length", "1"

        def compute(self, sample: Sample) -> int:
            clock.advance(1)
            return 1

    source = [Sample(id=f"s{number}", data=number) for number in range(4)]
    return Pipeline(name="corpus", source=source, stages=[annotate], measurements=[Length()]), clock


def test_everything_is_in_the_report() -> None:
    pipeline, clock = a_run()
    result = BatchRunner(clock=clock).run(pipeline).drain()
    text = str(result)
    assert text.splitlines() == [
        result.headline,
        "  1 × ValueError in annotate, sample 's1': no <b>text</b> in it",
        "  1 skipped in annotate: short",
        "",
        "stage     done  skip  error  retry   p50   p95   p99  busy  wait  held up  used",
        "annotate     4     1      1      0  2.0s  2.0s  2.0s  8.0s    0s       0s   20%",
        "wait: p95 in the queue before it; held up: by a full queue after it; used: of its slots",
        "",
        "measurement  computed  cached  error  hits   p50   p95   p99",
        "length              2       0      0    0%  1.0s  1.0s  1.0s",
        "",
        "cost at   calls  sent  received  unpriced   USD",
        "annotate      4    40         8         0  2.00",
        "",
        "cost of  calls  sent  received  unpriced   USD",
        "llm m        4    40         8         0  2.00",
        "",
        "2.00 USD spent, 50% wasted, 1.00 per ready sample, 0 saved by the cache",
        "wasted: 0.5 skipped, 0.5 failed",
        "",
        str(result.verdict),
    ]
    assert result.headline == (
        "corpus: completed in 10 s; 4 admitted, 0 derived: 2 ready, 1 skipped, 1 failed; "
        "2 USD (1 a ready sample, 50% wasted)"
    )
    assert str(result.verdict) == (
        "The batch runner makes one call at a time: annotate took 80% of the run. "
        "StreamingRunner, with the same settings, gives about 5 times the throughput."
    )
    assert to_text(report(result.to_dict())) == text


def test_the_report_of_a_narrow_terminal_has_no_line_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, clock = a_run()
    result = BatchRunner(clock=clock).run(pipeline).drain()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for width in (100, 60, 40):
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("COLUMNS", str(width))
        text = str(result)
        assert max(map(len, text.splitlines())) <= width
        assert text == result.report(width)


def test_the_report_of_a_notebook_has_the_data_escaped() -> None:
    pipeline, clock = a_run()
    page = BatchRunner(clock=clock).run(pipeline).drain()._repr_html_()
    assert "no &lt;b&gt;text&lt;/b&gt; in it" in page
    assert "<b>text" not in page
    assert page.count("<table>") == 4


def test_reasons_of_skips_beyond_five_are_counted() -> None:
    @stage
    def skip(sample: Sample) -> Skip:
        return Skip(f"reason {min(sample.data, 7)}")

    result = BatchRunner().run(Pipeline(name="p", source=list(range(10)), stages=[skip])).drain()
    assert str(result).splitlines()[1:7] == [
        "  3 skipped in skip: reason 7",
        *(f"  1 skipped in skip: reason {number}" for number in range(4)),
        "  and 3 skipped for 3 other reasons",
    ]


def test_a_run_of_nothing_is_reported_in_one_line() -> None:
    @stage
    def through(sample: Sample) -> Sample:
        return sample

    result = BatchRunner().run(Pipeline(name="p", source=[], stages=[through])).drain()
    assert str(result) == result.headline


def test_an_error_without_a_message_ends_the_line() -> None:
    @stage
    def fail(sample: Sample) -> Sample:
        raise ValueError

    result = BatchRunner().run(Pipeline(name="p", source=[Sample(id="a", data=1)], stages=[fail])).drain()
    assert str(result).splitlines()[1] == "  1 × ValueError in fail, sample 'a'"


def test_a_run_that_found_everything_done_has_no_empty_tables(tmp_path: Path) -> None:
    pipeline, _ = a_run()
    storage = SQLStorage(f"sqlite:///{tmp_path}/p.db")
    done = Pipeline(name="p", source=[Sample(id="a", data=1)], measurements=pipeline.measurements, storage=storage)
    BatchRunner().run(done).drain()
    result = BatchRunner().run(done).drain()
    storage.close()
    assert str(result).splitlines() == [result.headline, "", str(result.verdict)]
