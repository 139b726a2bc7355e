use super::*;

#[test]
fn the_built_in_prices_are_read() {
    let prices = Prices::built_in();
    assert_eq!(prices.date.len(), 10);
    let sonnet = prices.of("claude-sonnet-4-5-20250929").unwrap();
    assert_eq!((sonnet.rates.input, sonnet.rates.output), (3_000, 15_000));
    assert_eq!(prices.of("gpt-4"), None);
    assert_eq!(prices.of(""), None);
}

#[test]
fn the_longest_prefix_counts_and_cost_is_tokens_times_price() {
    let row = |input: u32| {
        format!(
            r#"{{"input":{input},"output":2.5,"cache_read":0.1,"cache_write_5m":1.25,"cache_write_1h":2}}"#
        )
    };
    let text = format!(
        r#"{{"date":"2026-01-02","models":{{"m":{},"m-big":{}}}}}"#,
        row(1),
        row(7)
    );
    let prices = Prices::parse(&text).unwrap();
    assert_eq!(prices.of("m-small").unwrap().rates.input, 1_000);
    let big = prices.of("m-big-1").unwrap();
    let tokens = Tokens {
        input: 10,
        output: 3,
        cache_read: 100,
        cache_write_5m: 4,
        cache_write_1h: 1,
    };
    assert_eq!(big.of(&tokens), 70_000 + 7_500 + 10_000 + 5_000 + 2_000);
}

#[test]
fn a_number_in_a_name_is_not_cut() {
    let prices = Prices::built_in();
    assert!(prices.of("claude-opus-4-1-20250805").is_some());
    assert!(prices.of("claude-opus-4-1").is_some());
    for unknown in [
        "claude-opus-4-10",
        "claude-opus-4-9",
        "claude-opus-5-6",
        "claude-opus-5-6-20270101",
        "claude-opus-50",
        "claude-opus",
    ] {
        assert_eq!(prices.of(unknown), None, "{unknown}");
    }
    let five = prices.of("claude-opus-5").unwrap();
    for known in [
        "claude-opus-5-20260724",
        "claude-opus-5-latest",
        "claude-opus-5[1m]",
    ] {
        assert_eq!(prices.of(known), Some(five), "{known}");
    }
    assert_ne!(prices.of("claude-opus-5-5"), Some(five));
}

#[test]
fn a_long_prompt_costs_what_it_costs() {
    let prices = Prices::built_in();
    let haiku = prices.of("claude-haiku-5-5").unwrap();
    let tokens = |cache_read| Tokens {
        input: 40_000,
        output: 1_000,
        cache_read,
        cache_write_5m: 20_000,
        cache_write_1h: 10_000,
    };
    // 40,000 × 100 + 1,000 × 500 + 30,000 × 10 + 20,000 × 125 + 10,000 × 200
    assert_eq!(haiku.of(&tokens(30_000)), 9_300_000);
    // one token more, and all of them cost five times as much
    assert_eq!(haiku.of(&tokens(30_001)), 5 * 9_300_010);
}

#[test]
fn spellings_of_providers_are_read() {
    let prices = Prices::built_in();
    for (spelling, model) in [
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "claude-sonnet-4-5",
        ),
        ("anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-opus-4-1-20250805-v1:0",
            "claude-opus-4-1",
        ),
        ("global.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("anthropic/claude-3.7-sonnet:thinking", "claude-3-7-sonnet"),
        ("anthropic/claude-opus-5.5", "claude-opus-5-5"),
        ("claude-opus-5.5", "claude-opus-5-5"),
        ("anthropic/claude-opus-4", "claude-opus-4"),
        ("claude-opus-4@20250514", "claude-opus-4"),
        ("Claude-Sonnet-4-5", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929:beta", "claude-sonnet-4-5"),
        ("claude-opus-4-6-thinking", "claude-opus-4-6"),
        ("claude-opus-4-8[1m]", "claude-opus-4-8"),
        (" claude-sonnet-4 ", "claude-sonnet-4"),
    ] {
        let expected = prices.place_of_prefix(model).and_then(|at| prices.at(at));
        assert!(expected.is_some(), "{model}");
        assert_eq!(prices.of(spelling), expected, "{spelling}");
    }
    for unknown in [
        "claude-opus-latest",
        "anthropic/claude-opus-4.9",
        "us.anthropic.claude-opus-9-v1:0",
        "claude-sonnet-4.1",
        "anthropic.",
        "/",
        ":",
        "-v:",
    ] {
        assert_eq!(prices.of(unknown), None, "{unknown}");
    }
    // a table's own spelling goes first
    let row = r#"{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}"#;
    let text = format!(r#"{{"date":"2026-01-02","models":{{"Vendor/M.1":{row}}}}}"#);
    let prices = Prices::parse(&text).unwrap();
    assert!(prices.of("Vendor/M.1").is_some() && prices.of("vendor/m.1").is_none());
}

/// Its cost in millionths of a dollar, and whether that is a floor.
fn priced(
    prices: &Prices,
    model: &str,
    tokens: (u64, u64),
    change: impl FnOnce(&mut Usage),
) -> (f64, bool) {
    let mut usage = Usage {
        model: Some(model.into()),
        tokens: Tokens {
            input: tokens.0,
            output: tokens.1,
            ..Tokens::default()
        },
        ..Usage::default()
    };
    change(&mut usage);
    prices.apply(&mut usage);
    (usage.total_cost().unwrap() as f64 / 1e3, usage.at_least)
}

#[test]
fn terms_multiply_and_searches_have_a_fee() {
    let prices = Prices::built_in();
    let many = (100_000, 10_000);
    let geo = |geo: &str| {
        priced(&prices, "claude-sonnet-4-6", many, |usage| {
            usage.terms.inference_geo = Some(geo.into());
        })
    };
    assert_eq!(geo("us"), (495_000.0, false));
    assert_eq!(geo("global"), (450_000.0, false));
    assert_eq!(geo("not_available"), (450_000.0, false));
    assert_eq!(geo("moon"), (450_000.0, true), "no multiplier is guessed");
    let speed = |model, speed: &str| {
        priced(&prices, model, many, |usage| {
            usage.terms.speed = Some(speed.into());
            usage.terms.service_tier = Some("standard".into());
        })
    };
    assert_eq!(speed("claude-opus-4-8", "fast"), (1_500_000.0, false));
    assert_eq!(speed("claude-opus-4-8", "standard"), (750_000.0, false));
    assert_eq!(speed("claude-opus-4-6", "fast"), (4_500_000.0, false));
    assert_eq!(speed("claude-sonnet-5", "fast"), (300_000.0, true));
    let batch = |usage: &mut Usage| {
        usage.terms.service_tier = Some("batch".into());
        usage.terms.inference_geo = Some("us".into());
    };
    assert_eq!(
        priced(&prices, "claude-opus-4-8", many, batch),
        (412_500.0, false)
    );
    let search = |usage: &mut Usage| {
        usage.web_searches = 3;
        usage.server_tools = 5;
    };
    let cost = priced(&prices, "claude-sonnet-4-5", (10, 10), search);
    assert_eq!(cost, (30_180.0, false));
}

#[test]
fn compactions_and_advisors_are_priced_each_by_itself() {
    let prices = Prices::built_in();
    let tokens = |input, output| Tokens {
        input,
        output,
        ..Tokens::default()
    };
    let mut usage = Usage {
        model: Some("claude-opus-4-6".into()),
        tokens: tokens(23_000, 1_000),
        compactions: vec![tokens(180_000, 3_500)],
        ..Usage::default()
    };
    prices.apply(&mut usage);
    assert_eq!(usage.cost, Some(1_127_500_000));
    assert_eq!(usage.tokens, tokens(203_000, 4_500));
    let mut usage = Usage {
        model: Some("claude-sonnet-4-6".into()),
        tokens: tokens(2, 491),
        others: vec![crate::exchange::OtherModel {
            model: "claude-opus-4-7".into(),
            tokens: tokens(159_419, 7_805),
            cost: None,
        }],
        ..Usage::default()
    };
    prices.apply(&mut usage);
    assert_eq!(usage.total_cost(), Some(999_591_000));
    assert_eq!((usage.cost, usage.at_least), (Some(7_371_000), false));
    assert_eq!(usage.all_tokens(), tokens(159_421, 8_296));
    usage.others[0].model = "unknown".into();
    prices.apply(&mut usage);
    assert_eq!(
        (usage.total_cost(), usage.at_least),
        (Some(7_371_000), true)
    );
    // the length of a prompt is that of one of them
    let mut usage = Usage {
        model: Some("claude-haiku-5-5".into()),
        tokens: tokens(60_000, 0),
        compactions: vec![tokens(60_000, 0)],
        ..Usage::default()
    };
    prices.apply(&mut usage);
    assert_eq!(usage.cost, Some(2 * 6_000_000));
}

#[test]
fn a_file_without_multipliers_has_the_built_in_ones() {
    let row = r#"{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}"#;
    let cost = |sections: &str| {
        let text = format!(r#"{{"date":"2026-01-02","models":{{"m":{row}}}{sections}}}"#);
        let prices = Prices::parse(&text).unwrap();
        priced(&prices, "m", (1_000_000, 0), |usage| {
            usage.web_searches = 1;
            usage.terms.inference_geo = Some("us".into());
        })
    };
    assert_eq!(cost(""), (1_110_000.0, false));
    assert_eq!(cost(r#","multipliers":{},"fees":{}"#), (1_000_000.0, true));
    let own = r#","multipliers":{"inference_geo":{"us":1}},"fees":{"web_search":0.5}"#;
    assert_eq!(cost(own), (1_500_000.0, false));
}

#[test]
fn faults_of_multipliers_and_fees_say_what_is_wrong() {
    let fault = |sections: &str| {
        let text = format!(r#"{{"date":"2026-01-02","models":{{}},{sections}}}"#);
        Prices::parse(&text).unwrap_err().problem.into_owned()
    };
    for (sections, expected) in [
        (r#""multipliers":{"speed":{"fast":0}}"#, "\"fast\""),
        (r#""multipliers":{"speed":{"fast":101}}"#, "at most 100"),
        (
            r#""multipliers":{"sped":{"fast":1}}"#,
            "unknown field `sped`",
        ),
        (r#""fees":{"web_search":-1}"#, "a fee"),
        (r#""fees":{"web_search":"1"}"#, "line 1 column"),
        (r#""fee":{}"#, "unknown field `fee`"),
    ] {
        let problem = fault(sections);
        assert!(problem.contains(expected), "{sections}: {problem}");
    }
    let row = r#"{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":-1}"#;
    let text = format!(r#"{{"date":"2026-01-02","models":{{"m-1":{row}}}}}"#);
    let problem = Prices::parse(&text).unwrap_err().problem;
    assert!(problem.contains("m-1"), "{problem}");
}

#[test]
fn what_is_no_file_of_prices_is_a_fault() {
    for text in [
        "",
        "[]",
        r#"{"date":"2026-01-02"}"#,
        r#"{"date":"today","models":{}}"#,
        r#"{"date":"2026-01-02","models":{"m":{"input":1}}}"#,
        r#"{"date":"2026-01-02","models":{"m":{"input":-1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}}}"#,
        r#"{"date":"2026-01-02","models":{"m":{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1,"x":1}}}"#,
    ] {
        assert!(Prices::parse(text).is_err(), "{text}");
    }
}
