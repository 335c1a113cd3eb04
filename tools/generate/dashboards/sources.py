"""The data sources, by their fixed UIDs."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import DataSourceRef

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
VICTORIA_LOGS = DataSourceRef(type_val="victoriametrics-logs-datasource", uid="victoria-logs")
JAEGER = DataSourceRef(type_val="jaeger", uid="jaeger")
