"""The Grafana dashboards: complete, consistent, and with queries that give the right numbers.

Grafana itself is not at hand. What it would complain about, or leave empty without a word, is checked here.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units

from forge import Prices
from forge.costs.usage import Usage
from forge_otel.checker import prometheus_names
from forge_otel.semconv import attributes as a
from tests.support.tools import tool
from tests.support.vocabulary import registry
from tools.generate import dashboards
from tools.generate.dashboards.colours import OUTCOMES

FILES = {Path(path).stem: text for path, text in dashboards.files(registry()).items()}
DASHBOARDS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in FILES.items()}
BUILT_IN = re.compile(r"__(all|range|interval|rate_interval|auto|from|to|value\.raw|field\.labels\.\w+)")
KINDS: dict[str, type[StrEnum]] = {
    a.FORGE_RUN_OUTCOME: a.ForgeRunOutcome,
    a.FORGE_SAMPLE_OUTCOME: a.ForgeSampleOutcome,
    a.FORGE_STAGE_OUTCOME: a.ForgeStageOutcome,
    a.FORGE_MEASUREMENT_OUTCOME: a.ForgeMeasurementOutcome,
    a.FORGE_STORAGE_WRITE_RESULT: a.ForgeStorageWriteResult,
    a.FORGE_COST_USE: a.ForgeCostUse,
}

register_default_plugins()  # the models of panels and queries


def read(dashboard: dict[str, Any]) -> dict[str, Any]:
    """What Grafana's model takes from a dashboard, as it writes it again."""
    from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415 - warns where it is imported first

    written: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return written


each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


def flat(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from flat(panel.get("panels", []))


def panels_of(name: str) -> list[dict[str, Any]]:
    """All panels that show something."""
    return [panel for panel in flat(DASHBOARDS[name]["panels"]) if panel["type"] != "row"]


def panel_of(name: str, title: str) -> dict[str, Any]:
    (found,) = (panel for panel in panels_of(name) if panel["title"] == title)
    return found


def expressions(name: str, source: str) -> list[str]:
    return [
        target["expr"]
        for panel in panels_of(name)
        for target in panel["targets"]
        if target["datasource"]["uid"] == source
    ]


def test_there_is_a_dashboard_for_each_part() -> None:
    assert {name: dashboard["uid"] for name, dashboard in DASHBOARDS.items()} == {
        "runs": "forge-runs",
        "stages": "forge-stages",
        "measurements": "forge-measurements",
        "storage": "forge-storage",
        "cost": "forge-cost",
        "telemetry": "forge-telemetry",
    }


@each_dashboard
def test_grafanas_model_knows_every_field(name: str) -> None:
    written = read(json.loads(FILES[name]))

    for link in written["links"]:
        assert link.pop("placement") == "inControlsMenu"  # the model's own default
    assert written == DASHBOARDS[name]


def test_grafanas_model_does_not_know_everything() -> None:
    wrong = json.loads(FILES["runs"])
    wrong["panels"][1]["fieldConfig"]["defaults"]["unitt"] = "s"

    assert "unitt" not in json.dumps(read(wrong))


def test_the_text_is_always_the_same() -> None:
    assert {Path(path).stem: text for path, text in dashboards.files(registry()).items()} == FILES


@each_dashboard
def test_one_leads_to_the_others_with_time_and_choices(name: str) -> None:
    (link,) = DASHBOARDS[name]["links"]

    assert DASHBOARDS[name]["tags"] == link["tags"] == ["forge"]
    assert (link["type"], link["keepTime"], link["includeVars"]) == ("dashboards", True, True)
    assert "placement" not in link  # above the panels, for everybody to see


@each_dashboard
def test_panels_say_what_they_show(name: str) -> None:
    shown = panels_of(name)

    assert [panel["title"] for panel in shown if not panel["description"].endswith(".")] == []
    assert len({panel["title"] for panel in shown}) == len(shown)


@each_dashboard
def test_numbers_have_units_that_grafana_knows(name: str) -> None:
    known = {value for key, value in vars(units).items() if isinstance(value, str) and not key.startswith("_")}
    said = {
        panel["title"]: panel["fieldConfig"]["defaults"].get("unit")
        for panel in panels_of(name)
        if panel["type"] != "logs"
    }

    assert {
        title: unit for title, unit in said.items() if unit not in known and not str(unit).startswith("count:")
    } == {}


@each_dashboard
def test_panels_ask_one_data_source_by_its_fixed_uid(name: str) -> None:
    for panel in panels_of(name):
        asked = {json.dumps(target["datasource"], sort_keys=True) for target in panel["targets"]}

        assert asked == {json.dumps(panel["datasource"], sort_keys=True)}
        assert panel["datasource"] in (
            {"type": "prometheus", "uid": "prometheus"},
            {"type": "victoriametrics-logs-datasource", "uid": "victoria-logs"},
        )


@each_dashboard
def test_ids_are_unique(name: str) -> None:
    ids = [panel["id"] for panel in flat(DASHBOARDS[name]["panels"])]

    assert ids == list(range(1, len(ids) + 1))
    for panel in panels_of(name):
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHIJKL"[: len(panel["targets"])])


@each_dashboard
def test_panels_leave_no_gaps_and_do_not_overlap(name: str) -> None:
    everything = list(flat(DASHBOARDS[name]["panels"]))
    covered = [
        (x, y)
        for panel in everything
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in everything)

    assert sorted(covered) == [(x, y) for x in range(24) for y in range(height)]


@each_dashboard
def test_all_variables_that_are_used_are_there(name: str) -> None:
    there = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}
    used = set(re.findall(r"\$\{?([\w.]+)", FILES[name]))

    assert {variable for variable in used if not BUILT_IN.fullmatch(variable)} == there


@each_dashboard
def test_choices_start_with_everything(name: str) -> None:
    for variable in DASHBOARDS[name]["templating"]["list"]:
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
        assert variable["current"] == {"selected": True, "text": ["All"], "value": ["$__all"]}
        assert variable["query"]["query"] == variable["definition"]


def test_choices_come_from_labels() -> None:
    asked = {
        variable["name"]: variable["definition"]
        for dashboard in DASHBOARDS.values()
        for variable in dashboard["templating"]["list"]
    }

    assert asked == {
        "pipeline": "label_values(forge_pipeline_started_total, forge_pipeline_name)",
        "stage": 'label_values(forge_stage_executions_total{forge_pipeline_name=~"$pipeline"}, forge_stage_name)',
        "measurement": "label_values("
        'forge_measurement_computations_total{forge_pipeline_name=~"$pipeline"}, forge_measurement_key)',
        "model": 'label_values(forge_cost_calls_total{forge_pipeline_name=~"$pipeline"}, gen_ai_request_model)',
        "service": 'label_values(forge_pipeline_started_total{forge_pipeline_name=~"$pipeline"}, job)',
    }


@each_dashboard
def test_histograms_of_ours_lead_to_traces(name: str) -> None:
    for panel in panels_of(name):
        for target in panel["targets"]:
            assert ("_bucket" in target["expr"]) == target.get("exemplar", False)


@each_dashboard
def test_outcomes_have_the_same_colours_everywhere(name: str) -> None:
    for panel in panels_of(name):
        (legend, *more) = [target.get("legendFormat", "") for target in panel["targets"]]
        for key, kind in KINDS.items():
            if legend in (f"{{{{{prometheus_names.label(key)}}}}}", f"{{{{{key}}}}}") and not more:
                overrides = {
                    override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
                    for override in panel["fieldConfig"]["overrides"]
                }
                assert overrides == {outcome.value: OUTCOMES[outcome] for outcome in kind}


@each_dashboard
def test_events_and_their_attributes_are_in_the_registry(name: str) -> None:
    annotated = [annotation["target"]["expr"] for annotation in DASHBOARDS[name]["annotations"]["list"]]
    for expression in [*expressions(name, "victoria-logs"), *annotated]:
        (said,) = re.findall(r'^"event_name":="([\w.]+)"', expression)
        has = {one.attribute.key for one in registry().events[said].attributes}

        assert set(re.findall(r'"([\w.]+)"(?::[=~]|[,)])', expression)) - {"event_name"} <= has


@each_dashboard
def test_tables_of_events_show_attributes_that_the_events_have(name: str) -> None:
    for panel in panels_of(name):
        if panel["type"] != "table" or panel["datasource"]["uid"] != "victoria-logs":
            continue
        (said,) = re.findall(r'"event_name":="([\w.]+)"', panel["targets"][0]["expr"])
        attributes = {one.attribute.key: one.attribute for one in registry().events[said].attributes}
        steps = {step["id"]: step["options"] for step in panel["transformations"]}
        time, *shown, trace = steps["filterFieldsByName"]["include"]["names"]

        assert (time, trace) == ("Time", "trace_id")
        assert set(shown) <= attributes.keys()
        assert [one["targetField"] for one in steps["convertFieldType"]["conversions"]] == [
            key for key in shown if attributes[key].type in ("int", "double")
        ]
        order = steps["organize"]["indexByName"]
        assert sorted(order, key=order.__getitem__) == [time, *shown, trace]
        titles = steps["organize"]["renameByName"].values()
        assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} <= set(titles)


def test_columns_have_the_units_of_the_registry() -> None:
    said = {
        override["matcher"]["options"]: override["properties"][0]["value"]
        for override in panel_of("runs", "Runs")["fieldConfig"]["overrides"]
    }

    assert {title: said[title] for title in ("Pipeline", "Duration", "Ready", "Cost", "Trace")} == {
        "Pipeline": "string",
        "Duration": "s",
        "Ready": "locale",
        "Cost": "currencyUSD",
        "Trace": "string",
    }


def test_a_run_leads_to_its_trace_and_its_events() -> None:
    overrides = panel_of("runs", "Runs")["fieldConfig"]["overrides"]
    links = {
        override["matcher"]["options"]: property_["value"][0]["url"]
        for override in overrides
        for property_ in override["properties"]
        if property_["id"] == "links"
    }

    assert links["Pipeline"] == "/d/forge-stages?var-pipeline=${__value.raw}&from=${__from}&to=${__to}"
    assert explored(links["Trace"]) == ("jaeger", {"query": "${__value.raw}"})
    assert explored(links["Run"]) == (
        "victoria-logs",
        {"queryType": "instant", "expr": '"forge.run.id":="${__value.raw}"'},
    )


def explored(url: str) -> tuple[str, dict[str, Any]]:
    """What Grafana's Explore page is asked for by a link, and of whom."""
    assert urlsplit(url).path == "/explore"
    (panes,) = parse_qs(urlsplit(url).query)["panes"]
    (pane,) = json.loads(unquote(panes)).values()
    (query,) = pane["queries"]
    assert query.pop("refId") == "A"
    types = {"jaeger": "jaeger", "victoria-logs": "victoriametrics-logs-datasource"}
    assert query.pop("datasource") == {"type": types[pane["datasource"]], "uid": pane["datasource"]}
    assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
    return pane["datasource"], query


@each_dashboard
def test_runs_are_annotations(name: str) -> None:
    annotations = DASHBOARDS[name]["annotations"]["list"]

    assert {annotation["name"]: annotation["iconColor"] for annotation in annotations} == {
        "Runs started": "blue",
        "Runs completed": OUTCOMES[a.ForgeRunOutcome.COMPLETED],
        "Runs failed": OUTCOMES[a.ForgeRunOutcome.FAILED],
        "Runs cancelled": OUTCOMES[a.ForgeRunOutcome.CANCELLED],
    }


# What the queries give, as Prometheus computes it. Each process is a new series; `_` is a time without a value.

HERE = 'job="j",forge_pipeline_name="p"'
AT = {"$__rate_interval": "1m", "$__interval": "5m", "$__range": "1h"}


def answers(tmp_path: Path, series: dict[str, str], asked: dict[tuple[str, str, int], dict[str, float]]) -> None:
    """Asks the panels, by dashboard, title and number of the query, ten minutes after the series began.

    The series have a value each 15 seconds.
    """
    queries = {place: panel_of(*place[:2])["targets"][place[2]]["expr"] for place in asked}
    computes(tmp_path, series, [(queries[place], wanted) for place, wanted in asked.items()])


def computes(tmp_path: Path, series: dict[str, str], asked: list[tuple[str, dict[str, float]]]) -> None:
    """The same for queries, with or without Grafana's variables."""
    tests = []
    for query, wanted in asked:
        expression = query
        for variable, value in AT.items():
            expression = expression.replace(variable, value)
        expression = re.sub(r"\$[a-z]+", ".*", expression)
        samples = [{"labels": labels, "value": value} for labels, value in wanted.items()]
        tests.append({"expr": expression, "eval_time": "10m", "exp_samples": samples})
    unit = {
        "interval": "15s",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": tests,
    }
    file = tmp_path / "dashboards.json"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [], "fuzzy_compare": True, "tests": [unit]}))
    command = [str(tool("promtool")), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_questions_of_the_adr(tmp_path: Path) -> None:
    annotate, decode = (f'{HERE},forge_stage_name="{stage}"' for stage in ("annotate", "decode"))
    computations = f'forge_measurement_computations_total{{{HERE},instance="1",forge_measurement_key="length"'
    answers(
        tmp_path,
        {
            f'forge_sample_settled_total{{{HERE},instance="1",forge_sample_outcome="ready"}}': "0+30x40",
            f'forge_stage_executions_total{{{annotate},instance="1",forge_stage_outcome="success"}}': "0+9x40",
            f'forge_stage_executions_total{{{annotate},instance="1",forge_stage_outcome="error"}}': "0+3x40",
            f'forge_stage_executions_total{{{decode},instance="1",forge_stage_outcome="success"}}': "0+12x40",
            f'forge_stage_duration_seconds_bucket{{{decode},instance="1",le="0.5"}}': "0+90x40",
            f'forge_stage_duration_seconds_bucket{{{decode},instance="1",le="1"}}': "0+100x40",
            f'forge_stage_duration_seconds_bucket{{{decode},instance="1",le="+Inf"}}': "0+100x40",
            f'{computations},forge_measurement_outcome="cached"}}': "0+3x40",
            f'{computations},forge_measurement_outcome="computed"}}': "0+1x40",
            f'forge_dlq_depth{{{annotate},instance="1"}}': "5x40",
            f'forge_dlq_depth{{{annotate},instance="2"}}': "5x40",
            f'forge_dlq_depth{{{decode},instance="2"}}': "1x40",
        },
        {
            ("runs", "Throughput by outcome", 0): {'{forge_sample_outcome="ready"}': 2},
            ("stages", "Error ratio", 0): {
                '{forge_pipeline_name="p", forge_stage_name="annotate"}': 0.25,
                '{forge_pipeline_name="p", forge_stage_name="decode"}': 0,  # has no series for errors
            },
            ("stages", "Duration, p95", 0): {'{forge_pipeline_name="p", forge_stage_name="decode"}': 0.75},
            ("measurements", "Cache hit ratio over time", 0): {
                '{forge_pipeline_name="p", forge_measurement_key="length"}': 0.75
            },
            ("storage", "Dead letters", 0): {"{}": 6},
        },
    )


def test_processes_that_are_gone_count_in_full(tmp_path: Path) -> None:
    settled = f"forge_sample_settled_total{{{HERE}"
    answers(
        tmp_path,
        {
            f'{settled},instance="1",forge_sample_outcome="ready"}}': "_ _ 90",
            f'{settled},instance="2",forge_sample_outcome="ready"}}': "_x8 0 60",
            f'{settled},instance="2",forge_sample_outcome="failed"}}': "_x8 0 50",
            f'forge_pipeline_completed_total{{{HERE},instance="1",forge_run_outcome="completed"}}': "_ _ 1",
            f'forge_pipeline_started_total{{{HERE},instance="1"}}': "_ _ 1",
        },
        {
            ("runs", "Samples settled", 0): {"{}": 200},
            ("runs", "Success ratio", 0): {'{forge_pipeline_name="p"}': 0.75},
            ("runs", "Runs ended", 0): {'{forge_run_outcome="completed"}': 1},
            ("storage", "Enqueued", 0): {"{}": 0},
            ("telemetry", "Faults", 0): {"{}": 0},
            ("telemetry", "Spans dropped", 0): {},  # the SDK does not count
        },
    )


def test_the_stage_to_scale(tmp_path: Path) -> None:
    annotate, decode = (f'{HERE},instance="1",forge_stage_name="{stage}"' for stage in ("annotate", "decode"))
    answers(
        tmp_path,
        {
            # The run is over after a minute: the limit is 0 again.
            f"forge_stage_concurrency_limit{{{annotate}}}": "4x4 0x36",
            f"forge_stage_busy_time_seconds_total{{{annotate}}}": "0+40x4 160x36",
            f"forge_stage_concurrency_limit{{{decode}}}": "1x4 0x36",
            f"forge_stage_busy_time_seconds_total{{{decode}}}": "0+12x4 48x36",
        },
        {
            ("stages", "Stage to scale", 0): {'{forge_pipeline_name="p", forge_stage_name="decode"}': 48},
            ("stages", "Work per worker", 0): {
                '{forge_pipeline_name="p", forge_stage_name="annotate"}': 40,
                '{forge_pipeline_name="p", forge_stage_name="decode"}': 48,
            },
        },
    )


def test_worker_processes(tmp_path: Path) -> None:
    label = f'{HERE},instance="1",forge_stage_name="label"'
    retries = f'forge_stage_retries_total{{{label},forge_stage_attempt="1"'
    answers(
        tmp_path,
        {
            f"forge_stage_worker_active{{{label}}}": "2x40",
            f"forge_stage_concurrency_limit{{{label}}}": "2x40",
            f"forge_stage_transfer_time_seconds_total{{{label}}}": "0+6x40",
            f'{retries},error_type="worker_lost"}}': "_x30 5x10",
            f'{retries},error_type="timeout"}}': "_x30 7x10",
        },
        {
            ("stages", "Workers", 0): {'{forge_pipeline_name="p", forge_stage_name="label"}': 2},
            ("stages", "Transfer", 0): {'{forge_pipeline_name="p", forge_stage_name="label"}': 0.2},
            ("stages", "Calls handed out again", 0): {'{forge_pipeline_name="p", forge_stage_name="label"}': 5},
        },
    )


def test_the_last_run_and_the_ledger(tmp_path: Path) -> None:
    count = f"forge_pipeline_last_run_size{{{HERE}"
    answers(
        tmp_path,
        {
            f'forge_pipeline_end_timestamp_seconds{{{HERE},instance="1"}}': "500x4",
            f'forge_pipeline_end_timestamp_seconds{{{HERE},instance="2"}}': "100x40",
            f'{count},instance="1",forge_sample_outcome="ready"}}': "7x4",
            f'{count},instance="2",forge_sample_outcome="ready"}}': "9x40",
            f'forge_pipeline_success_timestamp_seconds{{{HERE},instance="2"}}': "100x40",
            f'forge_pipeline_expected_interval_seconds{{{HERE},instance="1"}}': "250x4",
            f'forge_sample_admitted_total{{{HERE},instance="1"}}': "10x4",
            f'forge_sample_derived_total{{{HERE},instance="1",forge_stage_name="split"}}': "5x4",
            f'forge_sample_settled_total{{{HERE},instance="1",forge_sample_outcome="ready"}}': "11x4",
            f'forge_sample_settled_total{{{HERE},instance="1",forge_sample_outcome="split"}}': "1x4",
            f'forge_sample_active{{{HERE},instance="1"}}': "2x4",
        },
        {
            ("runs", "Pipelines and their last runs", 1): {'{forge_pipeline_name="p"}': 500_000},
            ("runs", "Pipelines and their last runs", 3): {'{forge_pipeline_name="p"}': 2},
            ("runs", "Pipelines and their last runs", 5): {'{forge_pipeline_name="p"}': 7},
            ("runs", "Imbalance", 0): {"{}": 1},
            ("runs", "Ledger", 4): {'{forge_pipeline_name="p"}': 1},
        },
    )


def test_what_it_cost(tmp_path: Path) -> None:
    def spent(metric: str, where: str, model: str, use: str, more: str = "") -> str:
        labels = f'instance="1",{where},gen_ai_provider_name="openai",gen_ai_request_model="{model}"'
        return f'forge_cost_{metric}_total{{{HERE},{labels},forge_cost_use="{use}"{more}}}'

    label, embed = 'forge_stage_name="label"', 'forge_measurement_key="embedding"'
    answers(
        tmp_path,
        {
            # The amounts begin when the first sample settles: there is no 0 before.
            spent("amount", label, "gpt-4o-mini", "useful"): "_x8 6x32",
            spent("amount", label, "gpt-4o-mini", "retried"): "_x8 1x32",
            spent("amount", embed, "text-embedding-3-small", "failed"): "_x8 1x32",
            spent("calls", label, "gpt-4o-mini", "useful"): "_x8 50x32",
            spent("tokens", label, "gpt-4o-mini", "useful", ',gen_ai_token_type="input"'): "_x8 900x32",
            spent("tokens", label, "gpt-4o-mini", "useful", ',gen_ai_token_type="output"'): "_x8 70x32",
            f'forge_sample_settled_total{{{HERE},instance="1",forge_sample_outcome="ready"}}': "_x8 40x32",
            f'forge_sample_settled_total{{{HERE},instance="1",forge_sample_outcome="dlq"}}': "_x8 10x32",
            f'forge_cost_saved_total{{{HERE},instance="1",forge_measurement_key="embedding"}}': "_x8 3x32",
            f'forge_pipeline_started_total{{{HERE},instance="1"}}': "0 1x39",
        },
        {
            ("cost", "Spent", 0): {"{}": 8},
            ("cost", "Spent in the last hour", 0): {"{}": 8},
            ("cost", "Cost of a ready sample", 0): {'{forge_pipeline_name="p"}': 0.2},
            ("cost", "Wasted share", 0): {'{forge_pipeline_name="p"}': 0.25},
            ("cost", "Saved by the cache", 0): {"{}": 3},
            ("cost", "Calls without a price", 0): {"{}": 0},
            ("cost", "Spend rate", 0): {'{forge_pipeline_name="p"}': 8},
            ("cost", "Cost by stage and measurement", 0): {
                '{forge_pipeline_name="p", forge_stage_name="label"}': 7,
                '{forge_pipeline_name="p", forge_measurement_key="embedding"}': 1,
            },
            ("cost", "Cost by stage and measurement", 1): {
                '{forge_pipeline_name="p", forge_stage_name="label"}': 1,
                '{forge_pipeline_name="p", forge_measurement_key="embedding"}': 1,
            },
            ("cost", "Cost by model", 0): {
                '{gen_ai_provider_name="openai", gen_ai_request_model="gpt-4o-mini"}': 7,
                '{gen_ai_provider_name="openai", gen_ai_request_model="text-embedding-3-small"}': 1,
            },
            ("cost", "Cost by model", 2): {'{gen_ai_provider_name="openai", gen_ai_request_model="gpt-4o-mini"}': 50},
            ("cost", "Cost by model", 3): {'{gen_ai_provider_name="openai", gen_ai_request_model="gpt-4o-mini"}': 900},
            ("cost", "Cost by model", 4): {'{gen_ai_provider_name="openai", gen_ai_request_model="gpt-4o-mini"}': 70},
            ("cost", "Cost by use", 0): {
                '{forge_cost_use="useful"}': 6,
                '{forge_cost_use="retried"}': 1,
                '{forge_cost_use="failed"}': 1,
            },
        },
    )


def test_what_the_rest_of_a_run_will_cost(tmp_path: Path) -> None:
    other = 'job="j",forge_pipeline_name="other"'

    def spent(where: str, use: str) -> str:
        labels = 'instance="1",forge_stage_name="label",gen_ai_provider_name="openai",gen_ai_request_model="m"'
        return f'forge_cost_amount_total{{{where},{labels},forge_cost_use="{use}"}}'

    answers(
        tmp_path,
        {
            # Two processes: 40 samples have entered for 8 dollars, of which 2 were wasted, and 300 are to come.
            f'forge_source_remaining{{{HERE},instance="1"}}': "250-5x30 100x9",
            f'forge_source_remaining{{{HERE},instance="2"}}': "200x40",
            f'forge_sample_admitted_total{{{HERE},instance="1"}}': "0 30x39",
            f'forge_sample_admitted_total{{{HERE},instance="2"}}': "_x8 10x32",
            # What one was split into does not count.
            f'forge_sample_derived_total{{{HERE},instance="1",forge_stage_name="split"}}': "0 500x39",
            spent(HERE, "useful"): "_x8 6x32",
            spent(HERE, "retried"): "_x8 2x32",
            # Of this one the size is not known; both have the same budget, which is not doubled.
            spent(other, "useful"): "_x8 6x32",
            f'forge_sample_admitted_total{{{other},instance="1"}}': "0 30x39",
            f'forge_cost_budget_per_hour{{{HERE},instance="1"}}': "5x40",
            f'forge_cost_budget_per_hour{{{HERE},instance="2"}}': "5x40",
        },
        {
            ("cost", "Forecast for the rest of the run", 0): {'{forge_pipeline_name="p"}': 60},
            ("cost", "Spend rate", 0): {'{forge_pipeline_name="p"}': 8, '{forge_pipeline_name="other"}': 6},
            ("cost", "Spend rate", 1): {'{forge_pipeline_name="p"}': 5},
        },
    )


def test_there_is_no_forecast_where_nothing_entered_or_was_spent_and_none_is_left_at_the_end(tmp_path: Path) -> None:
    def names(pipeline: str) -> str:
        return f'job="j",forge_pipeline_name="{pipeline}",instance="1"'

    spent = 'forge_stage_name="label",gen_ai_provider_name="openai",gen_ai_request_model="m",forge_cost_use="useful"'
    answers(
        tmp_path,
        {
            f"forge_source_remaining{{{names('idle')}}}": "7x40",
            f"forge_sample_admitted_total{{{names('idle')}}}": "0x40",
            f"forge_cost_amount_total{{{names('idle')},{spent}}}": "3x40",
            f"forge_source_remaining{{{names('free')}}}": "7x40",
            f"forge_sample_admitted_total{{{names('free')}}}": "0 5x39",
            f"forge_source_remaining{{{names('over')}}}": "5 0x39",
            f"forge_sample_admitted_total{{{names('over')}}}": "0 5x39",
            f"forge_cost_amount_total{{{names('over')},{spent}}}": "_x8 3x32",
        },
        {("cost", "Forecast for the rest of the run", 0): {'{forge_pipeline_name="over"}': 0}},
    )


def test_the_readme_says_what_embeddings_cost(tmp_path: Path) -> None:
    """The prices of the README, and its query: 12.5 million tokens at $0.0001 per 1k, in two processes."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (table,) = re.findall(r"^```yaml\n(prices:\n.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (query,) = re.findall(r"^```promql\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    file = tmp_path / "prices.yaml"
    file.write_text(table)
    model = "text-embedding-ada-002"
    series = {}
    for instance, tokens in (("1", 10_000_000), ("2", 2_500_000)):
        amount = Prices.load(file).amount(Usage(provider="openai", model=model, input_tokens=tokens), when=0)
        labels = f'instance="{instance}",forge_measurement_key="embedding",gen_ai_provider_name="openai"'
        spent = f'forge_cost_amount_total{{{HERE},{labels},gen_ai_request_model="{model}",forge_cost_use="useful"}}'
        series[spent] = f"_x8 {amount}"
    other = f'{HERE},instance="1",forge_stage_name="label",gen_ai_provider_name="openai",forge_cost_use="useful"'
    series[f'forge_cost_amount_total{{{other},gen_ai_request_model="gpt-4o-mini"}}'] = "7x40"
    computes(tmp_path, series, [(query, {"{}": 1.25})])
