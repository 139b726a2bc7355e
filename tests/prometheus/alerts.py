#!/usr/bin/env python3
"""Writes the test of static/prometheus/alerts.yaml that `promtool test rules` runs, as JSON, which is YAML: each alert
fires on series that call for it, and not on others that are close to them.

    alerts.py RULES > TEST

The series of a case are written as promtool reads them: `start+step x samples`, one sample a minute. All cases are
series of one test, since promtool opens a database for each, and each case is a job of its own. At the end exactly
the alerts that are named fire for it, and none does for the job with its quiet series.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

TARGET = 'job="anthropic-proxy", instance="a:8089"'
OTHER = 'job="other", instance="b:80"'
MINUTES = 70
"""Some rules look back for an hour."""


def target(name: str, labels: str = "") -> str:
    """A series of one target."""
    return f"{name}{{{TARGET}{', ' if labels else ''}{labels}}}"


def steady(value: float) -> str:
    return f"{value}x{MINUTES}"


def each_minute(step: float) -> str:
    return f"0+{step}x{MINUTES}"


REQUESTS = target("anthropic_proxy_requests_total", 'result="succeeded", status="2xx"')
FAILED = target("anthropic_proxy_requests_total", 'result="failed", status="5xx"')
REFUSED = target("anthropic_proxy_requests_total", 'result="failed", status="4xx"')
GENERATIONS = target("gen_ai_server_request_duration_seconds_count", 'gen_ai_request_model="m"')
BUILD = target("anthropic_proxy_build_info", 'version="1"')


def error(kind: str) -> str:
    return target("anthropic_proxy_upstream_errors_total", f'error_type="{kind}"')


def circuit(state: str, upstream: str = "https://u") -> str:
    return target("anthropic_proxy_upstream_circuits", f'upstream="{upstream}", state="{state}"')


def first_token(below_10: float, below_30: float) -> dict[str, str]:
    name = "gen_ai_server_time_to_first_token_seconds"
    model = 'gen_ai_request_model="m"'
    return {
        target(f"{name}_bucket", f'{model}, le="10"'): each_minute(below_10),
        target(f"{name}_bucket", f'{model}, le="30"'): each_minute(below_30),
        target(f"{name}_bucket", f'{model}, le="+Inf"'): each_minute(below_30),
        target(f"{name}_count", model): each_minute(below_30),
    }


def refusals(reason: str) -> str:
    return target("anthropic_proxy_access_refusals_total", f'team="core", reason="{reason}"')


def breaks(cause: str) -> str:
    return target("anthropic_proxy_cache_breaks_total", f'cause="{cause}"')


CASES: list[tuple[set[str], dict[str, str], dict[str, str]]] = [
    ({"Down"},
     {target("up"): "1x60 0x10"}, {target("up"): steady(1)}),
    # a job of another name, that was once scraped as such
    ({"Down"},
     {f"up{{{OTHER}}}": "1x60 0x10", f"anthropic_proxy_build_info{{{OTHER}}}": "1x60 _x10"},
     {f"up{{{OTHER}}}": "1x60 0x10"}),
    ({"Restarts"},
     {target("process_start_time_seconds"): "0x50 1x5 2x5 3x10", BUILD: steady(1)},
     {target("process_start_time_seconds"): "0x50 1x5 2x15", BUILD: steady(1),
      f"process_start_time_seconds{{{OTHER}}}": "0x50 1x5 2x5 3x10"}),
    ({"MostRequestsFail", "Errors"},
     {REQUESTS: each_minute(4), FAILED: each_minute(6)},
     # clients' own errors are none of the proxy's
     {REQUESTS: each_minute(4), REFUSED: each_minute(6)}),
    # few requests have no share
    ({"Errors", "MostRequestsFail"}, {FAILED: each_minute(5)}, {FAILED: each_minute(3)}),
    ({"Errors"},
     {REQUESTS: each_minute(90), FAILED: each_minute(10)}, {REQUESTS: each_minute(97), FAILED: each_minute(3)}),
    # shorter than `for`
    ({"Errors"},
     {REQUESTS: each_minute(90), FAILED: "0x60 10+10x10"}, {REQUESTS: each_minute(90), FAILED: "0x67 10+10x3"}),
    ({"CredentialRefused"},
     {GENERATIONS: each_minute(10), error("authentication_error"): each_minute(3)},
     {GENERATIONS: each_minute(10), error("authentication_error"): each_minute(1),
      error("invalid_request_error"): each_minute(9)}),
    ({"RateLimited"},
     {GENERATIONS: each_minute(10), error("rate_limit_error"): each_minute(1)},
     {GENERATIONS: each_minute(100), error("rate_limit_error"): each_minute(1)}),
    ({"UpstreamOverloaded"},
     {GENERATIONS: each_minute(10), error("overloaded_error"): each_minute(1)},
     {GENERATIONS: each_minute(100), error("overloaded_error"): each_minute(1)}),
    ({"FirstTokenSlow"}, first_token(5, 10), first_token(9.9, 10)),
    # fast enough, and too few for a quantile
    ({"FirstTokenSlow"}, first_token(0, 3), first_token(0, 1)),
    ({"CircuitOpen", "NoUpstream"},
     {circuit("open"): steady(1), circuit("closed"): steady(0)},
     {circuit("open"): steady(0), circuit("closed"): steady(1)}),
    ({"CircuitOpen"},
     {circuit("half_open"): steady(1), circuit("closed", "https://v"): steady(1)},
     {circuit("failing"): steady(1), circuit("unknown", "https://v"): steady(1)}),
    ({"ConnectFailures"},
     {target("anthropic_proxy_upstream_connects_total", 'outcome="ok"'): each_minute(5),
      target("anthropic_proxy_upstream_connects_total", 'outcome="dns_error"'): each_minute(5)},
     {target("anthropic_proxy_upstream_connects_total", 'outcome="ok"'): each_minute(50),
      target("anthropic_proxy_upstream_connects_total", 'outcome="dns_error"'): each_minute(5)}),
    ({"Saturated"},
     {target("anthropic_proxy_aborts_total", 'side="proxy", reason="too_many_in_flight"'): each_minute(1)},
     {target("anthropic_proxy_aborts_total", 'side="proxy", reason="dns_error"'): each_minute(1),
      target("anthropic_proxy_aborts_total", 'side="proxy", reason="too_many_connections"'): steady(7)}),
    ({"DescriptorsNearLimit"},
     {target("process_open_fds"): steady(900), target("process_max_fds"): steady(1024), BUILD: steady(1)},
     {target("process_open_fds"): steady(700), target("process_max_fds"): steady(1024), BUILD: steady(1),
      f"process_open_fds{{{OTHER}}}": steady(900), f"process_max_fds{{{OTHER}}}": steady(1024)}),
    ({"ReloadFailed"},
     {target("anthropic_proxy_config_last_reload_successful"): steady(0)},
     {target("anthropic_proxy_config_last_reload_successful"): steady(1)}),
    ({"LogLinesDropped"},
     {target("anthropic_proxy_log_lines_dropped_total", 'log="access_log"'): each_minute(1)},
     {target("anthropic_proxy_log_lines_dropped_total", 'log="access_log"'): steady(9)}),
    ({"TelemetryDropped"},
     {target("anthropic_proxy_telemetry_dropped_exchanges_total"): each_minute(1)},
     {target("anthropic_proxy_telemetry_dropped_exchanges_total"): steady(9)}),
    ({"MeteringFailures"},
     {GENERATIONS: each_minute(10), target("anthropic_proxy_metering_failures_total", 'reason="broken"'): each_minute(1)},
     {GENERATIONS: each_minute(1000), target("anthropic_proxy_metering_failures_total", 'reason="broken"'): each_minute(1)}),
    ({"Unpriced"},
     {target("anthropic_proxy_unpriced_requests_total", 'gen_ai_request_model="m"'): "0x60 1x10"},
     {target("anthropic_proxy_unpriced_requests_total", 'gen_ai_request_model="m"'): steady(3)}),
    # a series that begins with its first request
    ({"Unpriced"},
     {target("anthropic_proxy_unpriced_requests_total", 'gen_ai_request_model="m"'): "_x60 1x10"},
     {target("anthropic_proxy_unpriced_requests_total", 'gen_ai_request_model="m"'): "_x60 0x10"}),
    ({"CostHigh"},
     {target("anthropic_proxy_cost_usd_total", 'gen_ai_request_model="m"'): each_minute(1.8),
      target("anthropic_proxy_cost_usd_total", 'gen_ai_request_model="n"'): each_minute(0.1)},
     {target("anthropic_proxy_cost_usd_total", 'gen_ai_request_model="m"'): each_minute(1.5)}),
    ({"CacheBreaks"},
     {GENERATIONS: each_minute(3), breaks("tools_changed"): each_minute(1)},
     {GENERATIONS: each_minute(30), breaks("tools_changed"): each_minute(1)}),
    # few breaks
    ({"CacheBreaks"},
     {GENERATIONS: each_minute(1), breaks("ttl_lapsed"): each_minute(0.5)},
     {GENERATIONS: each_minute(1), breaks("ttl_lapsed"): each_minute(0.3)}),
    ({"StateDown"},
     {target("anthropic_proxy_state_up"): steady(0)}, {target("anthropic_proxy_state_up"): steady(1)}),
    ({"SharedLimitsLost"},
     {target("anthropic_proxy_shared_limits_silent_seconds"): steady(31)},
     {target("anthropic_proxy_shared_limits_silent_seconds"): steady(29)}),
    ({"LimitUnreachable"},
     {refusals("limit_state_unreachable"): "_x68 1x2"}, {refusals("limit_state_unreachable"): steady(4)}),
    ({"SpendLimitReached"},
     {refusals("spend_limit"): "_x68 1x2"}, {refusals("spend_limit"): steady(4), refusals("key_unknown"): each_minute(1)}),
]
"""Alerts, series on which exactly they fire, and series on which none does."""


def main() -> int:
    rules = pathlib.Path(sys.argv[1]).resolve()
    names = set(re.findall(r"- alert: AnthropicProxy(\w+)", rules.read_text()))
    tried = set().union(*(alerts for alerts, _, _ in CASES))
    if names != tried:
        print(f"rules without a case, and cases without a rule: {sorted(names ^ tried)}", file=sys.stderr)
        return 1
    series: dict[str, str] = {}
    firing = []
    for at, (alerts, loud, quiet) in enumerate(CASES):
        for kind, of_case in (("loud", loud), ("quiet", quiet)):
            for name, values in of_case.items():
                series[re.sub(r'job="([^"]*)"', rf'job="\1-{at}-{kind}"', name)] = values
        [job] = {re.search(r'job="([^"]*)"', name)[1] for name in loud}
        firing += [f'{{alertname="AnthropicProxy{name}", job="{job}-{at}-loud"}}' for name in alerts]
    groups = [{
        "name": "alerts",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{
            "expr": 'count by (alertname, job) (ALERTS{alertstate="firing"})',
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"labels": labels, "value": 1} for labels in firing],
        }],
    }]
    # the words of one of them, filled in
    groups.append({
        "name": "words",
        "interval": "1m",
        "input_series": [{"series": target("process_open_fds"), "values": steady(900)},
                         {"series": target("process_max_fds"), "values": steady(1000)},
                         {"series": BUILD, "values": steady(1)}],
        "alert_rule_test": [{
            "alertname": "AnthropicProxyDescriptorsNearLimit",
            "eval_time": f"{MINUTES}m",
            "exp_alerts": [{
                "exp_labels": {"job": "anthropic-proxy", "instance": "a:8089", "severity": "warning"},
                "exp_annotations": {
                    "summary": "anthropic-proxy at a:8089 has 90% of its file descriptors open.",
                    "description": "At the limit, connections and requests are refused. Raise LimitNOFILE or `ulimit -n`, or "
                                   "add a replica.",
                    "runbook": "docs/operations.md#limits",
                },
            }],
        }],
    })
    json.dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": groups}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
