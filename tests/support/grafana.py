"""Schemas of Grafana's provisioning files, since Grafana itself takes no notice of a field that it does not know.

The fields are those of https://grafana.com/docs/grafana/latest/administration/provisioning/ and of the pages about the
data sources that it links to.
"""

from __future__ import annotations

from typing import Any, Final

TEXT: Final = {"type": "string", "minLength": 1}
TRUTH: Final = {"type": "boolean"}
NUMBER: Final = {"type": "integer"}
DURATION: Final = {"type": "string", "pattern": r"^-?\d+(ms|s|m|h|d)$"}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


SHIFTED: Final = {"datasourceUid": TEXT, "spanStartTimeShift": DURATION, "spanEndTimeShift": DURATION}
TAGS: Final = _list(_object("key", key=TEXT, value=TEXT))
JSON_DATA: Final[dict[str, dict[str, Any]]] = {
    "prometheus": _object(
        httpMethod={"enum": ["GET", "POST"]},
        timeInterval=DURATION,
        exemplarTraceIdDestinations=_list(
            _object("name", name=TEXT, datasourceUid=TEXT, url=TEXT, urlDisplayLabel=TEXT)
        ),
    ),
    "jaeger": _object(
        tracesToLogsV2=_object(
            "datasourceUid",
            **SHIFTED,
            tags=TAGS,
            filterByTraceID=TRUTH,
            filterBySpanID=TRUTH,
            customQuery=TRUTH,
            query=TEXT,
        ),
        tracesToMetrics=_object(
            "datasourceUid", **SHIFTED, tags=TAGS, queries=_list(_object("query", name=TEXT, query=TEXT))
        ),
        nodeGraph=_object("enabled", enabled=TRUTH),
    ),
    "victoriametrics-logs-datasource": _object(
        derivedFields=_list(
            _object(
                "name matcherRegex",
                name=TEXT,
                matcherType={"enum": ["label", "regex"]},
                matcherRegex=TEXT,
                url=TEXT,
                datasourceUid=TEXT,
                urlDisplayLabel=TEXT,
            )
        ),
    ),
    "graphite": _object(graphiteVersion={"enum": ["0.9", "1.0", "1.1"]}),
}
"""What each of our data sources is told, by its type."""
DATA_SOURCES: Final = _object(
    "apiVersion datasources",
    apiVersion={"const": 1},
    prune=TRUTH,
    deleteDatasources=_list(_object("name", name=TEXT, orgId=NUMBER)),
    datasources=_list(
        {
            **_object(
                "name type access",
                name=TEXT,
                uid={"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
                type={"enum": list(JSON_DATA)},
                access={"enum": ["proxy", "direct"]},
                url={"type": "string", "pattern": "^https?://"},
                orgId=NUMBER,
                isDefault=TRUTH,
                editable=TRUTH,
                version=NUMBER,
                basicAuth=TRUTH,
                basicAuthUser=TEXT,
                withCredentials=TRUTH,
                jsonData={"type": "object"},
                secureJsonData={"type": "object"},
            ),
            "allOf": [
                {
                    "if": {"properties": {"type": {"const": name}}},
                    "then": {"properties": {"jsonData": schema}},
                }
                for name, schema in JSON_DATA.items()
            ],
        }
    ),
)
DASHBOARDS: Final = _object(
    "apiVersion providers",
    apiVersion={"const": 1},
    providers=_list(
        _object(
            "name type options",
            name=TEXT,
            orgId=NUMBER,
            folder={"type": "string"},
            folderUid=TEXT,
            type={"const": "file"},
            disableDeletion=TRUTH,
            allowUiUpdates=TRUTH,
            editable=TRUTH,
            updateIntervalSeconds=NUMBER,
            options=_object("path", path=TEXT, foldersFromFilesStructure=TRUTH),
        )
    ),
)
