"""Names of Ray Data's operators as stages."""

import pytest

from forge_otel.instrumentors.ray_data.execution import _joined
from forge_otel.instrumentors.ray_data.operators import stage_name


@pytest.mark.parametrize(
    ("operator", "stage"),
    [
        ("ReadRange->Map(double)->Filter(<lambda>)", "ReadRange->Map(double)->Filter(<lambda>)"),
        ("MapBatches(Predictor)", "MapBatches(Predictor)"),
        ("Map(outer.<locals>.inner)", "Map(outer.<locals>.inner)"),
        ("limit=5", "limit"),
        ("Filter(col('id') > 10)->Write", "Filter->Write"),
        ("SortSample(partitions=4)", "SortSample"),
        ("HashAggregateMap(key_columns=('id',), num_partitions=200)", "HashAggregateMap"),
        ("UnionOperator(ReadRange->Map(double), Input)", "UnionOperator"),
        ("", "operator"),
    ],
)
def test_stage_name(operator: str, stage: str) -> None:
    assert stage_name(operator) == stage


def test_long_name_of_a_run_loses_its_middle() -> None:
    assert _joined(["Read", "Write"]) == "Read->Write"
    name = _joined([f"Map(step{number})" for number in range(20)])
    assert name == "Map(step0)->Map(step1)->Map(step2)->Map(step3)->M…ap(step16)->Map(step17)->Map(step18)->Map(step19)"
