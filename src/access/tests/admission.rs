//! Admission: one pass over all limits, and what is told of it.

use futures_util::FutureExt;

use super::*;

fn core() -> SubjectId {
    SubjectId::Team("core".into())
}

fn ann() -> SubjectId {
    SubjectId::User("ann".into())
}

/// A key of ann in team core, with limits of these subjects; the key's own are those of `key`.
fn rig(limits: &[(&str, LimitRule)]) -> Rig {
    Rig::new(&[("ci", Some("core"), Some("ann"))], |records| {
        for (subject, rule) in limits {
            let key = records.keys.values_mut().next().unwrap();
            if *subject == "key" {
                key.limits.push(rule.clone());
                continue;
            }
            let (subject, is_default) = match subject.strip_suffix("/users") {
                Some(subject) => (subject, true),
                None => (*subject, false),
            };
            let record = records
                .subjects
                .entry(subject.parse().unwrap())
                .or_default();
            if is_default {
                record.user_limits.push(rule.clone());
            } else {
                record.limits.push(rule.clone());
            }
        }
    })
}

fn put(rig: &Rig, subject: SubjectId, change: impl FnOnce(&mut SubjectRecord)) {
    let mut records = rig.access.records();
    let mut record = records.subjects.remove(&subject).unwrap_or_default();
    change(&mut record);
    rig.access.put_subject(&subject, record);
}

fn states(rig: &Rig) -> Vec<(String, u64, u64, u64)> {
    let states = rig.access.explain_key(&rig.key("ci"), rig.now());
    let shown = |it: LimitState| (it.subject.to_string(), it.spent, it.held, it.left);
    states.into_iter().map(shown).collect()
}

/// Exchanges that are admitted until one is refused, and the refusal.
fn until_refused(rig: &Rig, asked: &Asked<'_>) -> (Vec<Grant>, Refusal) {
    let mut grants = Vec::new();
    loop {
        match rig.admit("ci", asked) {
            Admitted::Granted(grant) => grants.push(grant),
            Admitted::Refused(refusal) => return (grants, refusal),
            Admitted::Queued(wait) => panic!("{wait:?}"),
        }
        assert!(grants.len() < 1000, "no limit");
    }
}

#[test]
fn each_level_has_limits_and_the_strictest_wins() {
    let rate = |amount| limit(LimitKind::RequestsPerMinute, amount);
    for (strictest, who) in [
        ("org", "the organisation"),
        ("team:core", "team core"),
        ("team:core/users", "user ann"),
        ("user:ann", "user ann"),
        ("key", "key ci"),
    ] {
        let limits: Vec<_> = ["org", "team:core", "team:core/users", "user:ann", "key"]
            .into_iter()
            .filter(|subject| !(strictest == "team:core/users" && *subject == "user:ann"))
            .map(|subject| (subject, rate(if subject == strictest { 3 } else { 10 })))
            .collect();
        let rig = rig(&limits);
        let price = price();
        let (grants, refusal) = until_refused(&rig, &generation(&price));
        assert_eq!(
            (grants.len(), refusal.kind),
            (3, RefusalKind::Requests),
            "{strictest}"
        );
        let expected =
            format!("Rate limit reached: {who}, 3 requests a minute. Try again in 20 s.");
        assert_eq!(refusal.text, expected);
        assert_eq!(
            (refusal.retry_after, refusal.forbids_retry),
            (Some(20), false)
        );
        rig.pass(20);
        drop(rig.granted("ci", &generation(&price)));
    }
}

#[test]
fn all_limits_agree_or_nothing_is_taken() {
    let rig = rig(&[
        ("org", limit(LimitKind::RequestsPerMinute, 100)),
        ("org", limit(LimitKind::OutputTokensPerMinute, 100_000)),
        ("team:core", limit(LimitKind::InputTokensPerMinute, 100_000)),
        ("team:core", spend(Period::Month, DOLLAR)),
        ("user:ann", limit(LimitKind::AtOnce, 1)),
        ("key", limit(LimitKind::RequestsPerMinute, 2)),
    ]);
    let price = price();
    let asked = generation(&price);
    let first = rig.granted("ci", &asked);
    let before = states(&rig);
    // a slot is waited for with nothing taken
    let Admitted::Queued(wait) = rig.admit("ci", &asked) else {
        panic!("a second slot");
    };
    assert_eq!(states(&rig), before);
    drop(wait);
    drop(first);
    drop(rig.granted("ci", &asked));
    let before = states(&rig);
    assert_eq!(rig.refused("ci", &asked).kind, RefusalKind::Requests);
    assert_eq!(states(&rig), before);
}

#[test]
fn a_spent_budget_is_told_with_its_end_and_its_fields() {
    let rig = rig(&[("team:core", spend(Period::Month, DOLLAR / 2))]);
    rig.access.set_contact(Some("in #claude"));
    let price = price();
    let asked = generation(&price);
    let mut grant = rig.granted("ci", &asked);
    assert_eq!(grant.notice().unwrap().fields()[0].1, "allowed");
    grant.settle(&tokens(0, 40_000), Some(400_000_000));
    let mut grant = rig.granted("ci", &asked);
    let notice = grant.notice().unwrap();
    assert_eq!(
        (notice.utilization, notice.verdict),
        (0.8, SpendVerdict::Allowed)
    );
    grant.settle(&tokens(0, 10_500), Some(105_000_000));
    let refusal = rig.refused("ci", &asked);
    assert_eq!(
        refusal.text,
        "Spend limit reached: team core, $0.50 a month. Resets 1 Feb 00:00 Europe/Berlin. Ask in #claude."
    );
    // 1970-01-31T23:00:00Z
    let end = 31 * 86_400 - 3600;
    assert_eq!(refusal.retry_after, Some(end - 1_000_000));
    assert!(refusal.forbids_retry);
    let fields = refusal.notice.unwrap().fields();
    let field = |name: &str| {
        let mut found = fields.iter().filter(|(field, _)| field.ends_with(name));
        found.next().map(|(_, value)| value.to_string())
    };
    assert_eq!(field("-overage-utilization").as_deref(), Some("1.01"));
    assert_eq!(field("unified-reset"), Some(end.to_string()));
    // the next month
    rig.pass(end - 1_000_000);
    let grant = rig.granted("ci", &asked);
    assert_eq!(grant.notice().unwrap().utilization, 0.0);
    // requests that cost nothing pass in any case
    rig.now.store(1_000_000, SeqCst);
    let free = Asked {
        is_generation: false,
        ..asked
    };
    assert!(rig.granted("ci", &free).notice().is_none());
}

#[test]
fn money_that_is_held_is_not_spent_yet() {
    // room for two and a half: an exchange of 100 tokens and 90 of output is held at $0.001
    let rig = rig(&[("key", spend(Period::Day, 2_500_000))]);
    let price = price();
    let (mut grants, refusal) = until_refused(&rig, &generation(&price));
    assert_eq!(
        (grants.len(), refusal.kind),
        (2, RefusalKind::SpendReserved)
    );
    assert_eq!(refusal.kind.answer().0, 429);
    assert_eq!(
        (refusal.retry_after, refusal.forbids_retry),
        (Some(5), false)
    );
    // the input is certain, and the output is still to come
    grants[0].progress(&tokens(100, 1), Some(110_000));
    assert_eq!(states(&rig), [(rig_key(&rig), 110_000, 1_890_000, 500_000)]);
    grants[0].progress(&tokens(100, 50), Some(600_000));
    assert_eq!(states(&rig), [(rig_key(&rig), 600_000, 1_400_000, 500_000)]);
    // more than was estimated
    grants[0].progress(&tokens(100, 200), Some(2_100_000));
    assert_eq!(states(&rig), [(rig_key(&rig), 2_100_000, 1_000_000, 0)]);
    // an abort costs what was metered
    grants.remove(0);
    assert_eq!(states(&rig), [(rig_key(&rig), 2_100_000, 1_000_000, 0)]);
    grants.remove(0);
    assert_eq!(states(&rig), [(rig_key(&rig), 2_100_000, 0, 400_000)]);
    // less is left than the estimate: one exchange may have it
    let last = rig.granted("ci", &generation(&price));
    assert_eq!(states(&rig), [(rig_key(&rig), 2_100_000, 400_000, 0)]);
    assert_eq!(
        rig.refused("ci", &generation(&price)).kind,
        RefusalKind::SpendReserved
    );
    drop(last);
    drop(rig.granted("ci", &generation(&price)));
}

fn rig_key(rig: &Rig) -> String {
    SubjectId::Key(rig.key("ci").id()).to_string()
}

#[test]
fn changed_limits_take_effect_at_once_and_keep_what_is_spent() {
    let rig = rig(&[("team:core", spend(Period::Total, DOLLAR))]);
    let price = price();
    let asked = generation(&price);
    let key = rig.key("ci");
    rig.granted("ci", &asked)
        .settle(&tokens(0, 1), Some(DOLLAR * 9 / 10));
    let running = rig.granted("ci", &asked);
    let admit = |key: &Arc<Key>| rig.access.admit(key, &asked, rig.now());
    put(&rig, core(), |record| record.limits[0].amount = DOLLAR / 2);
    // a worker that has found its key already sees it, too
    assert!(matches!(admit(&key), Admitted::Refused(_)));
    put(&rig, core(), |record| record.limits[0].amount = 2 * DOLLAR);
    assert!(matches!(admit(&key), Admitted::Granted(_)));
    assert_eq!(states(&rig)[0].1, DOLLAR * 9 / 10);
    put(&rig, core(), |record| record.limits.clear());
    assert!(rig.granted("ci", &asked).notice().is_none());
    put(&rig, core(), |record| {
        record.limits = vec![spend(Period::Total, DOLLAR)]
    });
    assert_eq!(states(&rig)[0].1, DOLLAR * 9 / 10);
    drop(running);
    // a subject that had no limit before
    assert_eq!(states(&rig).len(), 1);
    put(&rig, SubjectId::Org, |record| {
        record.limits = vec![limit(LimitKind::RequestsPerMinute, 1)];
    });
    assert!(matches!(admit(&key), Admitted::Granted(_)));
    assert_eq!(rig.refused("ci", &asked).kind, RefusalKind::Requests);
}

#[test]
fn grants_add_to_the_budgets_of_their_subject_until_their_end() {
    let rig = rig(&[("key", spend(Period::Total, DOLLAR))]);
    let price = price();
    let asked = generation(&price);
    rig.granted("ci", &asked)
        .settle(&tokens(0, 1), Some(DOLLAR));
    assert_eq!(
        rig.refused("ci", &asked).text,
        "Spend limit reached: key ci, $1 in total."
    );
    put(&rig, SubjectId::Key(rig.key("ci").id()), |record| {
        record.grants = vec![BudgetGrant {
            amount: DOLLAR / 2,
            until: 1_000_060,
            reason: "release".into(),
            created: 1_000_000,
        }];
    });
    drop(rig.granted("ci", &asked));
    let state = &rig.access.explain_key(&rig.key("ci"), rig.now())[0];
    assert_eq!(
        (state.amount, state.granted, state.left),
        (DOLLAR * 3 / 2, DOLLAR / 2, DOLLAR / 2)
    );
    rig.pass(60);
    assert_eq!(rig.refused("ci", &asked).kind, RefusalKind::Spend);
}

#[test]
fn a_users_own_limit_replaces_the_default_of_its_team() {
    let rig = rig(&[
        ("team:core/users", limit(LimitKind::RequestsPerMinute, 1)),
        ("team:core/users", spend(Period::Month, DOLLAR)),
    ]);
    let price = price();
    let asked = generation(&price);
    drop(rig.granted("ci", &asked));
    let refusal = rig.refused("ci", &asked);
    assert!(
        refusal.text.contains("user ann, 1 requests"),
        "{}",
        refusal.text
    );
    put(&rig, ann(), |record| {
        record.limits = vec![limit(LimitKind::RequestsPerMinute, 5)]
    });
    drop(rig.granted("ci", &asked));
    let kinds = |subject: &SubjectId| {
        let states = rig.access.explain(subject, rig.now());
        let shown = |it: LimitState| (it.default_of, it.amount);
        states.into_iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&ann()), [(None, 5), (Some("core".into()), DOLLAR)]);
    assert_eq!(kinds(&core()), []);
}

#[test]
fn limits_of_some_models_count_them_in_any_spelling() {
    let rig = rig(&[(
        "key",
        LimitRule {
            models: Some("claude-opus-*".parse().unwrap()),
            ..limit(LimitKind::RequestsPerMinute, 3)
        },
    )]);
    let price = price();
    let asked = |model| Asked {
        model,
        ..generation(&price)
    };
    for model in ["claude-haiku-4-5", "x"] {
        (0..5).for_each(|_| drop(rig.granted("ci", &asked(Some(model)))));
    }
    // another spelling, or none, is no way around it
    for model in [
        Some("claude-opus-4-5"),
        Some("us.anthropic.claude-opus-4-5-20251101-v1:0"),
        None,
    ] {
        drop(rig.granted("ci", &asked(model)));
    }
    let refusal = rig.refused("ci", &asked(Some("claude-opus-4-5")));
    assert!(
        refusal
            .text
            .contains("3 requests a minute for claude-opus-*."),
        "{}",
        refusal.text
    );
}

#[test]
fn token_rates_go_into_debt_and_get_back_what_was_not_used() {
    let rig = rig(&[
        ("key", limit(LimitKind::InputTokensPerMinute, 1000)),
        ("key", limit(LimitKind::OutputTokensPerMinute, 600)),
    ]);
    let price = price();
    let asked = generation(&price);
    let used = || states(&rig).iter().map(|it| it.1).collect::<Vec<_>>();
    let aborted = rig.granted("ci", &asked);
    assert_eq!(used(), [100, 90]);
    drop(aborted);
    assert_eq!(used(), [0, 0]);
    let mut grant = rig.granted("ci", &asked);
    let cached = Tokens {
        cache_read: 100_000,
        cache_write_5m: 50,
        ..tokens(50, 1200)
    };
    grant.settle(&cached, None);
    drop(grant);
    assert_eq!(used(), [100, 1200]);
    // 600 of debt, and what is estimated now: all that 600 a minute allow, at once
    let refusal = rig.refused("ci", &asked);
    assert_eq!(refusal.kind, RefusalKind::OutputTokens);
    assert_eq!(
        (refusal.retry_after, refusal.forbids_retry),
        (Some(69), true)
    );
    let list = Asked {
        is_generation: false,
        ..asked
    };
    drop(rig.granted("ci", &list));
    rig.pass(69);
    drop(rig.granted("ci", &asked));
}

#[test]
fn the_most_used_rates_and_slots_come_first_and_unused_ones_last() {
    let price = price();
    let asked = generation(&price);
    let rig = Rig::new(
        &[
            ("ci", Some("core"), Some("ann")),
            ("idle", None, Some("bob")),
            ("gone", None, Some("eve")),
        ],
        |records| {
            for key in records.keys.values_mut() {
                key.limits = match &*key.name {
                    "ci" => vec![
                        limit(LimitKind::OutputTokensPerMinute, 120),
                        spend(Period::Day, DOLLAR),
                    ],
                    _ => vec![limit(LimitKind::RequestsPerMinute, 7)],
                };
                if key.name == "gone" {
                    key.revoked = Some(Revocation {
                        at: 1000,
                        reason: "left".to_owned(),
                        cut: false,
                    });
                }
            }
            let team = records.subjects.entry(core()).or_default();
            team.limits = vec![
                limit(LimitKind::RequestsPerMinute, 4),
                limit(LimitKind::AtOnce, 10),
            ];
            team.user_limits = vec![limit(LimitKind::InputTokensPerMinute, 1000)];
            let user = SubjectId::User("bob".to_owned());
            records.subjects.entry(user).or_default().limits = vec![limit(LimitKind::AtOnce, 3)];
        },
    );
    let listed = |most: usize| {
        let found = rig.access.most_used(most, rig.now());
        let rows = found.states.iter().map(|state| {
            let subject = match &state.subject {
                SubjectId::Key(_) => "key".to_owned(),
                other => other.to_string(),
            };
            (
                subject,
                state.amount,
                state.spent,
                state.percent.round() as u64,
            )
        });
        (rows.collect::<Vec<_>>(), found.total)
    };
    let row = |subject: &str, amount, spent, percent| (subject.to_owned(), amount, spent, percent);
    let (unused, total) = listed(10);
    assert_eq!(total, 6, "neither budgets nor limits of revoked keys");
    assert!(
        unused.len() == 6 && unused.iter().all(|it| it.2 == 0),
        "{unused:?}"
    );
    drop(rig.granted("ci", &asked));
    drop(rig.granted("ci", &asked));
    let running = rig.granted("ci", &asked);
    // 90 tokens of output are taken for the one that runs; those of the others were given back
    let (rows, total) = listed(10);
    assert_eq!((rows.len(), total), (6, 6));
    let percents: Vec<_> = rows.iter().map(|it| it.3).collect();
    assert!(percents.is_sorted_by(|one, other| one >= other), "{rows:?}");
    assert!(rows.contains(&row("key", 120, 90, 75)), "{rows:?}");
    assert!(rows.contains(&row("team:core", 10, 1, 10)), "{rows:?}");
    assert!(rows.contains(&row("user:bob", 3, 0, 0)), "{rows:?}");
    let (two, total) = listed(2);
    assert_eq!((&two[..], total), (&rows[..2], 6));
    drop(running);
    rig.pass(60);
    let (rows, _) = listed(10);
    assert!(rows.iter().all(|it| it.2 == 0), "{rows:?}");
}

#[test]
fn slots_are_waited_for_in_turns_and_at_most_twice_as_many() {
    let rig = rig(&[("team:core", limit(LimitKind::AtOnce, 2))]);
    let price = price();
    let asked = generation(&price);
    let mut running = vec![rig.granted("ci", &asked), rig.granted("ci", &asked)];
    let queued = || match rig.admit("ci", &asked) {
        Admitted::Queued(wait) => wait,
        other => panic!("{other:?}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut waits: Vec<_> = (0..4).map(|_| queued()).collect();
        let refusal = rig.refused("ci", &asked);
        assert_eq!(refusal.kind, RefusalKind::AtOnce);
        assert_eq!(
            (refusal.retry_after, refusal.forbids_retry),
            (Some(5), false)
        );
        assert_eq!(
            refusal.text,
            "Too many requests at once: team core, 2 at once. Try again shortly."
        );
        // a list of models needs no slot
        let list = Asked {
            is_generation: false,
            ..asked
        };
        drop(rig.granted("ci", &list));
        let mut first = waits.remove(0);
        assert!((&mut first).now_or_never().is_none());
        running.remove(0);
        running.push(first.await.unwrap());
        assert_eq!(rig.access.explain(&core(), rig.now())[0].waiting, 3);
        // the others wait for 10 s
        let started = tokio::time::Instant::now();
        let refusal = waits.remove(0).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::AtOnce);
        assert_eq!(started.elapsed().as_secs(), 10);
        drop(waits);
        running.clear();
        let state = &rig.access.explain(&core(), rig.now())[0];
        assert_eq!((state.spent, state.waiting), (0, 0));
    });
}

#[test]
fn a_wait_goes_on_at_another_limit_that_is_full_by_then() {
    let rig = Rig::new(
        &[("ci", Some("core"), None), ("dev", Some("core"), None)],
        |records| {
            let team = records.subjects.entry(core()).or_default();
            team.limits.push(limit(LimitKind::AtOnce, 1));
            records
                .keys
                .values_mut()
                .for_each(|key| key.limits = vec![limit(LimitKind::AtOnce, 1)]);
        },
    );
    let price = price();
    let asked = generation(&price);
    put(&rig, core(), |record| record.limits[0].amount = 2);
    let own = rig.granted("ci", &asked);
    let Admitted::Queued(mut wait) = rig.admit("ci", &asked) else {
        panic!("a slot");
    };
    put(&rig, core(), |record| record.limits[0].amount = 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert!((&mut wait).now_or_never().is_none());
        // the key's slot becomes free; the team's is taken by the other key at once
        drop(own);
        let other = rig.granted("dev", &asked);
        assert!((&mut wait).now_or_never().is_none());
        // nothing is kept while it waits for the team's
        assert_eq!(
            states(&rig).iter().map(|it| it.1).collect::<Vec<_>>(),
            [1, 0]
        );
        drop(other);
        drop(wait.await.unwrap());
    });
    assert_eq!(
        states(&rig).iter().map(|it| it.1).collect::<Vec<_>>(),
        [0, 0]
    );
}

#[test]
fn spend_survives_a_clean_end_exactly_and_a_kill_as_at_least_what_was_spent() {
    let rules = [("team:core", spend(Period::Month, DOLLAR))];
    let rig = rig(&rules);
    let urgent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&urgent);
    rig.access.on_urgent(move || {
        count.fetch_add(1, SeqCst);
    });
    let price = price();
    let asked = generation(&price);
    let mut running = rig.granted("ci", &asked);
    assert_eq!(urgent.load(SeqCst), 1, "nothing is reserved yet");
    let rows = rig.access.take_dirty();
    // what is held, and a step of a hundredth
    let expected = SpendRow {
        subject: "team:core".into(),
        cell: "1970-01@Europe/Berlin".into(),
        spent: 0,
        upto: 1_000_000 + DOLLAR / 100,
    };
    assert_eq!(rows, std::slice::from_ref(&expected));
    let more: Vec<Grant> = (0..5).map(|_| rig.granted("ci", &asked)).collect();
    assert_eq!(
        (urgent.load(SeqCst), rig.access.take_dirty()),
        (1, Vec::new())
    );
    let even_more = rig.granted("ci", &asked);
    assert_eq!(urgent.load(SeqCst), 2, "less than half a step is left");
    assert_eq!(rig.access.take_dirty()[0].upto, 7_000_000 + DOLLAR / 100);
    running.settle(&tokens(100, 50), Some(600_000));
    drop((more, even_more));
    let rows = rig.access.take_dirty();
    assert_eq!(
        (rows[0].spent, rows[0].upto),
        (600_000, 600_000 + DOLLAR / 100)
    );
    let spent = |spends: &[SpendRow]| {
        let again = access(&rig.access.records(), spends, 1_000_000);
        again.explain(&core(), rig.now())[0].spent
    };
    assert_eq!(spent(&rows), 600_000 + DOLLAR / 100, "killed");
    drop(running);
    let last = rig.access.close();
    assert_eq!(
        last,
        [SpendRow {
            spent: 600_000,
            upto: 600_000,
            ..expected
        }]
    );
    assert_eq!(spent(&last), 600_000);
    assert_eq!(
        spent(&[last, rows].concat()),
        1_200_000 + DOLLAR / 100,
        "two processes"
    );
}

#[test]
fn an_exchange_whose_use_is_unknown_costs_its_estimate() {
    let rig = rig(&[
        ("key", spend(Period::Day, DOLLAR)),
        ("key", limit(LimitKind::OutputTokensPerMinute, 1000)),
    ]);
    let price = price();
    let mut grant = rig.granted("ci", &generation(&price));
    grant.settle_at_estimate();
    drop(grant);
    let used: Vec<_> = states(&rig).iter().map(|it| (it.1, it.2)).collect();
    assert_eq!(used, [(1_000_000, 0), (90, 0)]);
}

/// Spend in the first budget of a subject.
fn spent(rig: &Rig, subject: &SubjectId) -> u64 {
    rig.access.explain(subject, rig.now())[0].spent
}

#[test]
fn a_key_that_changes_before_its_first_use_counts_with_its_running_requests() {
    let budget = |amount| vec![spend(Period::Month, amount)];
    let rig = Rig::new(&[("ci", None, None)], |records| {
        records.keys.values_mut().next().unwrap().limits = budget(DOLLAR);
    });
    let before = rig.key("ci");
    assert!(before.used().is_none());
    let mut record = before.record();
    record.limits = budget(2 * DOLLAR);
    rig.access.put_key(&record);
    let price = price();
    // a request that was identified before the change, and one after it
    for key in [&before, &rig.key("ci")] {
        let asked = generation(&price);
        let Admitted::Granted(mut grant) = rig.access.admit(key, &asked, rig.now()) else {
            panic!("refused");
        };
        grant.settle(&tokens(100, 10), Some(DOLLAR / 4));
    }
    let subject = SubjectId::Key(record.id);
    assert_eq!(spent(&rig, &subject), DOLLAR / 2);
    let states = rig.access.explain(&subject, rig.now());
    assert_eq!(states[0].amount, 2 * DOLLAR);
    assert_eq!(rig.access.take_dirty().len(), 1, "one register");
}

#[test]
fn workers_that_use_a_key_first_at_the_same_time_count_together() {
    for _ in 0..20 {
        let rig = Rig::new(&[("ci", Some("core"), Some("ann"))], |records| {
            let limits = vec![spend(Period::Month, 100 * DOLLAR)];
            records.keys.values_mut().next().unwrap().limits = limits.clone();
            let team = SubjectRecord {
                limits: limits.clone(),
                user_limits: limits,
                ..SubjectRecord::default()
            };
            records
                .subjects
                .insert(SubjectId::Team("core".into()), team);
        });
        let price = price();
        let key = rig.key("ci");
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    let asked = generation(&price);
                    let Admitted::Granted(mut grant) = rig.access.admit(&key, &asked, rig.now())
                    else {
                        panic!("refused");
                    };
                    grant.settle(&tokens(100, 10), Some(DOLLAR));
                });
            }
        });
        let subjects = [
            SubjectId::Key(key.id()),
            SubjectId::Team("core".into()),
            SubjectId::User("ann".into()),
        ];
        assert_eq!(subjects.map(|it| spent(&rig, &it)), [4 * DOLLAR; 3]);
    }
}

#[test]
fn stored_spends_count_from_the_first_use_on_and_those_of_others_are_followed() {
    let rig = Rig::new(&[("ci", None, None)], |_| {});
    let mut record = rig.key("ci").record();
    record.limits = vec![spend(Period::Total, DOLLAR)];
    let id = SubjectId::Key(record.id);
    let row = |spent, upto| SpendRow {
        subject: id.to_string(),
        cell: "total".into(),
        spent,
        upto,
    };
    let mut records = Records::default();
    records.keys.insert(record.id, record.clone());
    let access = access(&records, &[row(DOLLAR / 2, DOLLAR / 2)], 1_000_000);
    let key = access.key(record.id).unwrap();
    assert!(key.used().is_none() && access.is_used(&key));
    access.follow(&[row(DOLLAR / 4, DOLLAR)]);
    assert!(key.used().is_none(), "nothing is made for it");
    let price = price();
    let asked = generation(&price);
    let Admitted::Refused(refusal) = access.admit(&key, &asked, rig.now()) else {
        panic!("granted");
    };
    assert_eq!(refusal.kind, RefusalKind::SpendReserved);
    access.follow(&[row(DOLLAR / 4, DOLLAR / 4)]);
    let Admitted::Granted(_grant) = access.admit(&key, &asked, rig.now()) else {
        panic!("refused");
    };
    access.follow(&[row(DOLLAR, DOLLAR)]);
    let Admitted::Refused(refusal) = access.admit(&key, &asked, rig.now()) else {
        panic!("granted");
    };
    assert_eq!(refusal.kind, RefusalKind::Spend);
}
