//! Names of samples and labels that the panels of Grafana and the rules of Prometheus ask for: each exists.
//! (`process_*` is Linux's.)

#![cfg(target_os = "linux")]

use super::*;

#[test]
fn the_grafana_dashboard_uses_only_what_is_exposed() {
    let text = std::fs::read_to_string("static/grafana/anthropic-proxy.json").unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    assert!(expressions.len() > 30, "{}", expressions.len());
    let used = used(&expressions);
    assert!(used.len() > 25, "{used:?}");
}

#[test]
fn the_alerts_use_only_what_is_exposed() {
    let text = std::fs::read_to_string("static/prometheus/alerts.yaml").unwrap();
    let expressions = rule_expressions(&text);
    let rules = text.matches("- alert: ").count();
    assert_eq!(expressions.len(), rules);
    assert!(rules > 20, "{rules}");
    let used = used(&expressions);
    assert!(used.len() > 15, "{used:?}");
}

/// Names of the samples that expressions ask for. Each of their words must be exposed, or be PromQL.
#[track_caller]
fn used(expressions: &[String]) -> BTreeSet<String> {
    let exposition = filled().expose(&gauges(), Format::OpenMetrics);
    let mut labels_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // what Prometheus itself has
    labels_of.insert("up".to_owned(), BTreeSet::new());
    for series in samples(&exposition).into_keys() {
        let series = series.replace("\\\"", "");
        let (name, rest) = series.split_once('{').unwrap_or((&series, ""));
        let labels = labels_of.entry(name.to_owned()).or_default();
        labels.extend(identifiers(&unquoted(rest)).map(str::to_owned));
    }
    let mut used = BTreeSet::new();
    for expression in expressions {
        let bare = unquoted(expression);
        let names: Vec<&str> = identifiers(&bare)
            .filter(|word| labels_of.contains_key(*word))
            .collect();
        assert!(!names.is_empty(), "`{expression}` asks for nothing");
        for word in identifiers(&bare).filter(|word| !names.contains(word)) {
            let is_known = names.iter().any(|name| labels_of[*name].contains(word))
                || ADDED.contains(&word)
                || PROMQL.contains(&word);
            assert!(is_known, "`{word}` of `{expression}` is not exposed");
        }
        used.extend(names.into_iter().map(str::to_owned));
    }
    used
}

/// Every `expr`, and the queries of variables.
fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" => found.push(text.to_owned()),
                    Some(text) if name == "definition" => found.push(text.to_owned()),
                    _ => collect(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| collect(value, found));
        }
        _ => {}
    }
}

/// The expressions of a file of rules, each on the line of `expr` or on deeper ones below it.
fn rule_expressions(text: &str) -> Vec<String> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut expressions = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(inline) = line.trim_start().strip_prefix("expr:") else {
            continue;
        };
        let mut expression = inline.trim_matches([' ', '|']).to_owned();
        while let Some(next) = lines.next_if(|next| depth(next) > depth(line)) {
            expression.push('\n');
            expression += next;
        }
        expressions.push(expression);
    }
    expressions
}

/// A text without what is in quotes.
fn unquoted(text: &str) -> String {
    text.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// The words of a PromQL expression: no numbers, durations or variables of Grafana.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"_:$".contains(c))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase() || c == '_'))
}

/// Labels that Prometheus adds to a target.
const ADDED: &[&str] = &["instance", "job", "namespace"];

const PROMQL: &[&str] = &[
    "sum",
    "max",
    "min",
    "by",
    "rate",
    "increase",
    "histogram_quantile",
    "clamp_min",
    "topk",
    "time",
    "or",
    "and",
    "unless",
    "on",
    "offset",
    "vector",
    "label_values",
    "changes",
    "present_over_time",
];
