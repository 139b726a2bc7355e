//! docs/contract.md §6.5, §7.1, §7.3: what a start says, what it refuses, and what is left after a clean
//! stop.

use crate::support::{Proxy, ProxyBuilder, Upstream, get};

#[test]
fn too_few_file_descriptors_are_a_failed_start() {
    for files in [12, 16, 20, 22] {
        let builder = ProxyBuilder::new().env("WORKERS", 2).descriptors(files);
        let ended = builder.run();
        assert_eq!(ended.code, Some(1), "{files}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{files}: {ended:?}");
        assert!(ended.stderr.contains("ulimit -n"), "{files}: {ended:?}");
    }
}

#[test]
fn the_fewest_file_descriptors_are_enough_for_an_exchange() {
    let upstream = Upstream::ok();
    let builder = Proxy::to(upstream.url()).env("WORKERS", 2).descriptors(32);
    let proxy = builder.start();
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    assert!(!proxy.stderr().contains("panicked"), "{}", proxy.stderr());
}

#[test]
fn the_database_has_no_log_after_a_clean_stop() {
    let upstream = Upstream::ok();
    for _ in 0..5 {
        let proxy = Proxy::to(upstream.url())
            .env("ENABLE_DASHBOARD", "true")
            .env("DATA_DIR", "data")
            .start();
        proxy.send(get("/"));
        proxy.signal("TERM");
        let directory = proxy.wait_and_keep();
        let files = std::fs::read_dir(directory.path().join("data")).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        // beside it: the generated key of the dashboard, and what keys of clients would need
        names.sort();
        let expected = [
            "access.pepper",
            "activity.sqlite",
            "admin.lock",
            "dashboard.key",
            "state.lock",
        ];
        assert_eq!(names, expected);
    }
}

#[test]
fn the_first_lines_say_what_to_use() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", "true")
        .env("MAX_CONNECTIONS", 10)
        .env("MAX_IN_FLIGHT", 10)
        .start();
    let url = format!("http://{}", proxy.addr());
    let said = proxy.stderr();
    for line in [
        format!("ANTHROPIC_BASE_URL={url}"),
        format!("sign in at {url}/admin#key="),
        format!("upstream={}", upstream.url()),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    // nothing here is to be mended
    assert!(!said.contains("WARN"), "{said}");
    assert!(!said.contains("default upstream"), "{said}");
}

#[test]
fn an_upstream_that_is_the_proxy_itself_is_a_fault_at_the_start() {
    let ended = ProxyBuilder::new()
        .env("PORT", 4711)
        .env("API_BASE_URL", "http://localhost:4711")
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("this proxy itself"), "{ended:?}");
}

#[test]
fn the_default_upstream_is_named_with_what_goes_there() {
    let proxy = ProxyBuilder::new().start();
    let line = proxy.wait_for_line(|line| line.contains("no upstream is named"));
    let said = "requests go to the default one, https://anyrouter.top, with the keys of clients in them; \
                set API_BASE_URL";
    assert!(line.contains(said), "{line}");
    // once is enough
    let _ = proxy.wait_for_line(|line| line.contains("upstream=https://anyrouter.top"));
    let said = proxy.stderr();
    let named = said.lines().filter(|line| line.contains("API_BASE_URL"));
    assert_eq!(named.count(), 1, "{said}");
    let missing = proxy.path("env/.env");
    assert!(
        said.contains(&format!("no {}; settings from flags", missing.display())),
        "{said}"
    );
}

#[test]
fn the_files_of_settings_are_named_from_the_root_on() {
    let upstream = Upstream::ok();
    let text = format!("API_BASE_URL={}\n", upstream.url());
    let proxy = ProxyBuilder::new()
        .file("env/.env", &text)
        .file("env/.env.headers.json", "{\"X-Team\": \"blue\"}")
        .start();
    let line = proxy.wait_for_line(|line| line.contains("[Config] settings from "));
    let read = ["env/.env", "env/.env.headers.json"].map(|it| proxy.path(it));
    let read = format!("{}, {}", read[0].display(), read[1].display());
    assert!(line.ends_with(&read), "{line}");
}

#[test]
fn few_file_descriptors_are_no_warning_where_no_limit_was_set() {
    let upstream = Upstream::ok();
    let start = |limit: Option<u32>| {
        let mut builder = Proxy::to(upstream.url()).env("WORKERS", 2).descriptors(512);
        if let Some(limit) = limit {
            builder = builder.env("MAX_CONNECTIONS", limit);
        }
        let proxy = builder.start();
        proxy.wait_for_line(|line| line.contains("the limit of open files is 512"));
        let _ = proxy.wait_for_line(|line| line.contains("upstream="));
        proxy.stderr()
    };
    let said = start(None);
    assert!(!said.contains("WARN"), "{said}");
    assert_eq!(said.matches("open files").count(), 1, "{said}");
    let said = start(Some(5000));
    assert!(said.contains("MAX_CONNECTIONS=5000 needs"), "{said}");
    assert_eq!(said.matches("WARN").count(), 1, "{said}");
}
