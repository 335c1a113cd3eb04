"""What a reader can choose at the top of a dashboard."""

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
"""The type of such a query in Grafana's editor for variables."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice of one label's values: those that a metric has, as far as they fit what was chosen `within`."""

    name: str
    label: str
    metric: Metric
    key: str
    within: tuple[Variable, ...] = ()

    @property
    def matcher(self) -> q.Matcher:
        """What the label has to be. All values are chosen by `.*`, so that series without the label count as well."""
        return q.matching(f"${self.name}")

    def build(self) -> QueryVariable:
        """The variable in Grafana."""
        query = f"label_values({q.select(self.metric, chosen(*self.within))}, {prometheus_names.label(self.key)})"
        said: dict[str, Any] = {
            "qryType": _LABEL_VALUES,
            "query": query,
            "refId": "PrometheusVariableQueryEditor-VariableQuery",
        }
        return (
            QueryVariable(self.name)
            .label(self.label)
            .datasource(PROMETHEUS)
            .definition(query)
            .query(said)
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
    """The series that fit what was chosen."""
    return {variable.key: variable.matcher for variable in variables}
