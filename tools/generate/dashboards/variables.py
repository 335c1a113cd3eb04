"""Variables of dashboards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders.dashboard import QueryVariable
from grafana_foundation_sdk.models import dashboard as models

from forge_otel.checker import prometheus_names
from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Metric

from .. import promql as q
from .sources import PROMETHEUS

_LABEL_VALUES = 1
"""The type of a label-values query in Grafana's variable editor."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable for the values of a metric's label, restricted to the values of the variables `within`."""

    name: str
    label: str
    metric: Metric
    key: str
    within: tuple[Variable, ...] = ()

    @property
    def matcher(self) -> q.Matcher:
        """The condition on the label. "All" is `.*`, which includes series without the label."""
        return q.matching(f"${self.name}")

    def build(self) -> QueryVariable:
        """Return the variable in Grafana's model."""
        query = f"label_values({q.select(self.metric, chosen(*self.within))}, {prometheus_names.label(self.key)})"
        query_model: dict[str, Any] = {
            "qryType": _LABEL_VALUES,
            "query": query,
            "refId": "PrometheusVariableQueryEditor-VariableQuery",
        }
        return (
            QueryVariable(self.name)
            .label(self.label)
            .datasource(PROMETHEUS)
            .definition(query)
            .query(query_model)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )


PIPELINE = Variable("pipeline", "Pipeline", m.FORGE_PIPELINE_STARTED, a.FORGE_PIPELINE_NAME)
STAGE = Variable("stage", "Stage", m.FORGE_STAGE_EXECUTIONS, a.FORGE_STAGE_NAME, (PIPELINE,))
MEASUREMENT = Variable(
    "measurement", "Measurement", m.FORGE_MEASUREMENT_COMPUTATIONS, a.FORGE_MEASUREMENT_KEY, (PIPELINE,)
)
MODEL = Variable("model", "Model", m.FORGE_COST_CALLS, a.GEN_AI_REQUEST_MODEL, (PIPELINE,))
SERVICE = Variable("service", "Service", m.FORGE_PIPELINE_STARTED, q.JOB, (PIPELINE,))


def chosen(*variables: Variable) -> dict[str, str | q.Matcher]:
    """Return the conditions for the selected values of variables."""
    return {variable.key: variable.matcher for variable in variables}
