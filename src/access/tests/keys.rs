//! Keys: who is let in, and who is not.

use super::*;
use crate::{
    access::{local::LocalAccess, pepper::work},
    exchange::Route,
};

fn refusal(rig: &Rig, shown: &[(KeyField, &[u8])]) -> RefusalKind {
    let mut all = Shown::default();
    shown
        .iter()
        .for_each(|(field, value)| all.add(*field, value));
    rig.access.identify(&all, None, rig.now()).unwrap_err().kind
}

#[test]
fn a_key_is_known_by_its_secret_and_names_its_owner() {
    let rig = Rig::new(&[("ci", Some("core"), Some("ann"))], |_| {});
    let key = rig.key("ci");
    let owner = key.owner();
    assert_eq!((&*owner.name, &*owner.key), ("ci", &*key.id().to_string()));
    assert_eq!(
        (owner.team.as_deref(), owner.user.as_deref()),
        (Some("core"), Some("ann"))
    );
    assert!(rig.access.has_keys());
    assert!(!Rig::new(&[], |_| {}).access.has_keys());
    let shown = format!(
        "{:?} {key:?} {:?}",
        rig.access,
        rig.admit("ci", &generation(&price()))
    );
    assert!(!shown.contains(rig.keys["ci"].reveal()));
}

#[test]
fn an_unknown_id_and_a_wrong_secret_are_told_by_the_same_text() {
    let rig = Rig::new(&[("ci", None, None)], |_| {});
    let id = rig.key("ci").id();
    let wrong = rig.show(&FullKey::generate(id).unwrap()).unwrap_err();
    let unknown = rig
        .show(&FullKey::generate(KeyId::random().unwrap()).unwrap())
        .unwrap_err();
    assert_eq!(wrong, unknown);
    assert_eq!(wrong.kind.answer().0, 401);
    assert!(wrong.forbids_retry);
}

#[test]
fn an_unknown_id_and_a_wrong_secret_take_the_same_work_and_nothing_is_told_before_it() {
    let rig = Rig::new(
        &[
            ("ci", None, None),
            ("gone", None, None),
            ("two", None, None),
        ],
        |_| {},
    );
    let mut record = rig.key("gone").record();
    record.expires = Some(1);
    record.sources = vec!["10.0.0.0/8".parse().unwrap()];
    record.revoked = Some(Revocation {
        at: 1,
        reason: "left".into(),
        cut: false,
    });
    rig.access.put_key(&record);
    let mut record = rig.key("two").record();
    let second = FullKey::generate(record.id).unwrap();
    record.secrets.push(rig.access.pepper().record(&second, 1));
    rig.access.put_key(&record);
    let [ci, gone, two] = ["ci", "gone", "two"].map(|name| rig.keys[name].reveal()[3..13].parse());
    let (ci, gone, two): (KeyId, KeyId, KeyId) = (ci.unwrap(), gone.unwrap(), two.unwrap());
    let wrong = |id: KeyId| FullKey::generate(id).unwrap();
    let unknown = KeyId::random().unwrap();
    for (what, key) in [
        ("unknown", wrong(unknown)),
        ("wrong", wrong(ci)),
        ("wrong of a revoked one", wrong(gone)),
        ("wrong of one with two secrets", wrong(two)),
    ] {
        let (shown, work) = work::of(|| rig.show(&key));
        let refusal = shown.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::UnknownKey, "{what}");
        assert_eq!(work, (1, 2), "digests and comparisons: {what}");
    }
    let (shown, work) = work::of(|| rig.show(&rig.keys["ci"]));
    assert!(shown.is_ok());
    assert_eq!(work, (1, 2), "the right one");
}

#[test]
fn a_worker_tells_a_key_again_without_a_digest_and_judges_it_each_time() {
    let rig = Rig::new(&[("ci", Some("core"), None)], |_| {});
    let worker = LocalAccess::new(Arc::clone(&rig.access));
    let show = |key: &FullKey| {
        let mut shown = Shown::default();
        shown.add(KeyField::ApiKey, key.reveal().as_bytes());
        work::of(|| worker.identify(&shown, None, rig.now()))
    };
    let ci = &rig.keys["ci"];
    let wrong = FullKey::generate(ci.id()).unwrap();
    let unknown = FullKey::generate(KeyId::random().unwrap()).unwrap();
    for (again, digests) in [(1, 1), (2, 0)] {
        let (known, work) = show(ci);
        let known = known.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!(known.key().name(), "ci");
        assert_eq!(work, (digests, 2), "{again}");
        // unknown and wrong cost the same, also beside a key that was told
        for other in [&wrong, &unknown] {
            let (shown, work) = show(other);
            assert_eq!(shown.err().unwrap().kind, RefusalKind::UnknownKey);
            assert_eq!(work, (1, 2));
        }
    }
    let last_used = || {
        let key = rig.access.key(ci.id())?;
        key.last_used().next().flatten()
    };
    let before = last_used();
    rig.pass(60);
    assert!(show(ci).0.is_ok());
    assert_eq!(
        last_used(),
        before.map(|at| at + 60),
        "told again is used again"
    );

    // a limit that depends on the model, then an end, then a revocation: each holds for the next request
    assert!(!show(ci).0.is_ok_and(|known| known.needs_model()));
    let team = SubjectRecord {
        limits: vec![limit(LimitKind::OutputTokensPerMinute, 1_000_000)],
        ..SubjectRecord::default()
    };
    rig.access
        .put_subject(&SubjectId::Team("core".into()), team);
    assert!(show(ci).0.is_ok_and(|known| known.needs_model()));
    let mut record = rig.key("ci").record();
    record.expires = Some(1_000_100);
    rig.access.put_key(&record);
    assert!(show(ci).0.is_ok());
    rig.pass(60);
    let (shown, work) = show(ci);
    assert_eq!(shown.err().unwrap().kind, RefusalKind::ExpiredKey);
    assert_eq!(work.0, 0);
    record.revoked = Some(Revocation {
        at: 1,
        reason: "left".into(),
        cut: false,
    });
    rig.access.put_key(&record);
    let (shown, work) = show(ci);
    assert_eq!(shown.err().unwrap().kind, RefusalKind::RevokedKey);
    assert_eq!(work.0, 1, "what changed is looked up anew");
}

#[test]
fn what_is_no_key_is_refused_by_its_kind() {
    let rig = Rig::new(&[("one", None, None), ("two", None, None)], |_| {});
    let [one, two] = ["one", "two"].map(|name| rig.keys[name].reveal().as_bytes());
    assert_eq!(refusal(&rig, &[]), RefusalKind::NoKey);
    assert_eq!(
        refusal(&rig, &[(KeyField::ApiKey, b"sk-ant-x")]),
        RefusalKind::NoKey
    );
    assert_eq!(
        refusal(&rig, &[(KeyField::ApiKey, &one[..51])]),
        RefusalKind::MistypedKey
    );
    assert_eq!(
        refusal(&rig, &[(KeyField::ProxyKey, b"x")]),
        RefusalKind::MistypedKey
    );
    let both = [(KeyField::ApiKey, one), (KeyField::Authorization, two)];
    assert_eq!(refusal(&rig, &both), RefusalKind::ContradictoryKeys);
}

#[test]
fn revocation_expiry_and_rotation_take_effect_at_once() {
    let rig = Rig::new(&[("ci", None, None)], |_| {});
    let now = 1_000_000;
    let mut record = rig.key("ci").record();
    record.expires = Some(now);
    rig.access.put_key(&record);
    let expired = rig.show(&rig.keys["ci"]).unwrap_err();
    assert_eq!(expired.kind, RefusalKind::ExpiredKey);
    assert_eq!(
        expired.text,
        "The secret of key ci expired on 12 Jan 13:46 UTC."
    );
    // a rotation: the old secret is valid for another 10 s
    record.expires = None;
    record.secrets[0].expires = Some(now + 10);
    let new = FullKey::generate(record.id).unwrap();
    record.secrets.push(rig.access.pepper().record(&new, now));
    rig.access.put_key(&record);
    assert_eq!(rig.show(&rig.keys["ci"]).unwrap().record(), record);
    assert_eq!(
        rig.access
            .key(record.id)
            .unwrap()
            .last_used()
            .collect::<Vec<_>>(),
        [Some(now), None]
    );
    rig.pass(10);
    assert_eq!(
        rig.show(&rig.keys["ci"]).unwrap_err().kind,
        RefusalKind::ExpiredKey
    );
    let key = rig.show(&new).unwrap();
    assert_eq!(
        key.last_used().collect::<Vec<_>>(),
        [Some(now), Some(now + 10)]
    );
    assert!(!key.is_revoked());
    record.revoked = Some(Revocation {
        at: now,
        reason: "left".into(),
        cut: false,
    });
    rig.access.put_key(&record);
    assert_eq!(rig.show(&new).unwrap_err().kind, RefusalKind::RevokedKey);
    assert!(rig.access.key(record.id).unwrap().is_revoked());
    assert_eq!(rig.access.records().keys[&record.id], record);
    assert!(rig.access.has_keys(), "a revoked key is one");
}

#[test]
fn sources_are_networks_of_either_version() {
    let rig = Rig::new(&[("ci", None, None)], |records| {
        let key = records.keys.values_mut().next().unwrap();
        key.sources = ["10.0.0.0/8", "2001:db8::/32"]
            .map(|it| it.parse().unwrap())
            .into();
    });
    let mut shown = Shown::default();
    shown.add(KeyField::ApiKey, rig.keys["ci"].reveal().as_bytes());
    for (client, is_allowed) in [
        (Some("10.1.2.3"), true),
        (Some("::ffff:10.1.2.3"), true),
        (Some("2001:db8::1"), true),
        (Some("11.1.2.3"), false),
        (Some("::1"), false),
        (None, false),
    ] {
        let address = client.map(|it| it.parse().unwrap());
        let outcome = rig.access.identify(&shown, address, rig.now());
        assert_eq!(outcome.is_ok(), is_allowed, "{client:?}");
        if let Err(refusal) = outcome {
            assert_eq!(refusal.kind.answer().0, 403);
        }
    }
}

#[test]
fn models_are_those_of_the_patterns() {
    let rig = Rig::new(&[("ci", None, None)], |records| {
        let key = records.keys.values_mut().next().unwrap();
        key.models = ["m-1*", "n"].map(|it| it.parse().unwrap()).into();
    });
    let price = price();
    let asked = |model| Asked {
        model,
        ..generation(&price)
    };
    rig.granted("ci", &asked(Some("m-10")));
    let refusal = rig.refused("ci", &asked(Some("m-2")));
    assert_eq!(refusal.kind.answer().0, 400);
    assert_eq!(
        refusal.text,
        "Model m-2 is not allowed for key ci, which may use m-1*, n."
    );
    assert_eq!(rig.refused("ci", &asked(None)).kind, RefusalKind::Model);
    let list = Asked {
        is_generation: false,
        ..asked(None)
    };
    rig.granted("ci", &list);
    let key = rig.key("ci");
    assert!(key.allows_model("n") && !key.allows_model("n-1"));
}

#[test]
fn paths_that_are_not_metered_need_a_pattern() {
    let rig = Rig::new(&[("ci", None, None), ("batch", None, None)], |records| {
        let key = records
            .keys
            .values_mut()
            .find(|key| key.name == "batch")
            .unwrap();
        key.paths = vec!["/v1/messages/batches*".parse().unwrap()];
    });
    let check = |name: &str, method: &str, path: &str| {
        let route = Route::of(method, path.as_bytes());
        rig.access
            .check_path(&rig.key(name), route, method, path)
            .map_err(|it| it.kind.answer().0)
    };
    for (method, path, ci, batch) in [
        ("POST", "/v1/messages", Ok(()), Ok(())),
        ("POST", "/v1/messages/count_tokens", Ok(()), Ok(())),
        ("GET", "/v1/models", Ok(()), Ok(())),
        ("POST", "/v1/files", Ok(()), Ok(())),
        ("HEAD", "/", Ok(()), Ok(())),
        ("POST", "/v1/messages/batches", Err(501), Ok(())),
        ("POST", "/v1/complete", Err(501), Err(501)),
        ("GET", "/", Err(501), Err(501)),
        ("POST", "/v1/files/../complete", Err(501), Err(501)),
        (
            "POST",
            "/v1/messages/batches/..%2f..%2fcomplete",
            Err(501),
            Err(501),
        ),
    ] {
        assert_eq!(check("ci", method, path), ci, "{method} {path}");
        assert_eq!(check("batch", method, path), batch, "{method} {path}");
    }
}

#[test]
fn the_upstreams_credential_is_the_keys_else_the_teams() {
    let rig = Rig::new(
        &[
            ("ci", Some("core"), None),
            ("dev", Some("core"), None),
            ("lost", None, None),
            ("other", None, None),
        ],
        |records| {
            for key in records.keys.values_mut() {
                key.upstream_key_env = match key.name.as_str() {
                    "ci" => Some("KEY_OF_CI".into()),
                    "lost" => Some("KEY_OF_NONE".into()),
                    _ => None,
                };
            }
        },
    );
    let credential = |name: &str| {
        let credential = rig.access.credential(&rig.key(name)).map_err(|it| it.kind);
        let shown = |it: Arc<Credential>| format!("{} {}", it.name, it.value.to_str().unwrap());
        credential.map(|it| it.map(shown))
    };
    assert_eq!(credential("ci"), Ok(Some("authorization Bearer ci".into())));
    assert_eq!(credential("dev"), Ok(None));
    assert_eq!(credential("other"), Ok(None));
    assert_eq!(credential("lost"), Err(RefusalKind::UpstreamCredential));
    let record = SubjectRecord {
        upstream_key_env: Some("KEY_OF_CORE".into()),
        ..SubjectRecord::default()
    };
    rig.access
        .put_subject(&SubjectId::Team("core".into()), record);
    assert_eq!(credential("dev"), Ok(Some("x-api-key sk-core".into())));
    assert_eq!(credential("ci"), Ok(Some("authorization Bearer ci".into())));
}

#[test]
fn what_runs_with_a_key_is_cut_and_stays_so_when_the_key_changes() {
    let rig = Rig::new(&[("ci", None, None), ("dev", None, None)], |_| {});
    let (running, other) = (rig.key("ci"), rig.key("dev"));
    let mut record = running.record();
    record.revoked = Some(Revocation {
        at: 1_000_000,
        reason: "leaked".into(),
        cut: false,
    });
    rig.access.put_key(&record);
    assert!(
        !rig.access.is_cut(&running),
        "a revocation alone cuts nothing"
    );
    assert!(rig.access.cut(running.id()));
    assert!(rig.access.is_cut(&running) && !rig.access.is_cut(&other));
    record.name = "renamed".into();
    rig.access.put_key(&record);
    assert!(rig.access.is_cut(&running));
    record.revoked = None;
    rig.access.put_key(&record);
    assert!(!rig.access.is_cut(&rig.access.key(running.id()).unwrap()));
    assert!(!rig.access.cut("zzzzzzzzzz".parse().unwrap()));
}

#[test]
fn the_model_matters_to_tokens_money_and_patterns() {
    let rig = Rig::new(&[("ci", Some("core"), None)], |_| {});
    let core = SubjectId::Team("core".into());
    let needs_model = |rule: LimitRule| {
        let record = SubjectRecord {
            limits: vec![rule],
            ..SubjectRecord::default()
        };
        rig.access.put_subject(&core, record);
        rig.access.needs_model(&rig.key("ci"))
    };
    assert!(!rig.access.needs_model(&rig.key("ci")));
    assert!(!needs_model(limit(LimitKind::RequestsPerMinute, 1)));
    assert!(!needs_model(limit(LimitKind::AtOnce, 1)));
    assert!(needs_model(limit(LimitKind::OutputTokensPerMinute, 1)));
    assert!(needs_model(spend(Period::Day, 1)));
    let models = Some("m-*".parse().unwrap());
    assert!(needs_model(LimitRule {
        models,
        ..limit(LimitKind::AtOnce, 1)
    }));
}

#[test]
fn keys_are_small_and_rules_share_the_names_of_zones() {
    let counts = 2 * size_of::<usize>();
    // sizes that allocators have
    assert!(counts + size_of::<Key>() <= 192, "{}", size_of::<Key>());
    assert!(counts + size_of::<LimitRule>() <= 64);
    let rig = Rig::new(&[("a", None, None), ("b", None, None)], |records| {
        for (amount, key) in (1..).zip(records.keys.values_mut()) {
            key.limits = vec![spend(Period::Month, amount * DOLLAR)];
        }
    });
    let zone = |name| match &rig.key(name).limits()[0].kind {
        LimitKind::Spend {
            zone: Some(zone), ..
        } => (zone.to_string(), zone.as_ptr()),
        kind => panic!("{kind:?}"),
    };
    assert_eq!(zone("a").0, "Europe/Berlin");
    assert_eq!(zone("a"), zone("b"));
}

#[test]
fn workers_share_the_limits_whose_references_they_count_apart() {
    let rig = Rig::new(&[("ci", None, None)], |records| {
        for key in records.keys.values_mut() {
            key.limits = vec![limit(LimitKind::RequestsPerMinute, 1)];
        }
    });
    let worker = || LocalAccess::new(Arc::clone(&rig.access));
    let (one, other, price) = (worker(), worker(), price());
    let admit = |worker: &LocalAccess| worker.admit(&rig.key("ci"), &generation(&price), rig.now());
    assert!(matches!(admit(&one), Admitted::Granted(_)));
    for worker in [&one, &other] {
        assert!(matches!(admit(worker), Admitted::Refused(_)));
    }
}
