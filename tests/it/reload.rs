//! docs/contract.md §6.4: a file of the configuration that loses what it had changes nothing.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use crate::{
    lifecycle::eventually,
    support::{Answering, Proxy, ProxyBuilder, Upstream, get},
};

const FIELDS: &str = r#"{"x-ours": "yes"}"#;
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A proxy whose upstream, credential, dashboard key and fields all come from files.
fn configured(upstream: &Answering) -> Proxy {
    ProxyBuilder::new()
        .file("env/.env", settings(upstream))
        .file("h.json", FIELDS)
        .start()
}

fn settings(upstream: &Answering) -> String {
    format!(
        "API_BASE_URL={}\nUPSTREAM_API_KEYS=sk-ours\nENABLE_DASHBOARD=true\nDASHBOARD_API_KEY={KEY}\n\
         HEADERS_FILE=h.json\n",
        upstream.url()
    )
}

/// Everything is as it was: where requests go, with what, and who gets in.
#[track_caller]
fn is_unharmed(proxy: &Proxy, upstream: &Answering) {
    for _ in 0..4 {
        let sent = "GET /x HTTP/1.1\r\nHost: x\r\nx-api-key: sk-client\r\n\r\n";
        assert_eq!(proxy.send(sent).content(), b"ok");
        let (head, _) = upstream.request();
        assert_eq!(head.one("x-api-key"), Some("sk-ours"));
        assert_eq!(head.one("x-ours"), Some("yes"));
        assert_eq!(proxy.send(get("/admin/api/v1/configuration")).status(), 401);
    }
}

#[track_caller]
fn harm_is_refused(harm: impl Fn(&Path), problem: &str) {
    let upstream = Upstream::ok();
    let proxy = configured(&upstream);
    is_unharmed(&proxy, &upstream);
    harm(&proxy.path("env/.env"));
    proxy.wait_for_line(|line| line.contains("ERROR") && line.contains(problem));
    is_unharmed(&proxy, &upstream);
    // whoever asks for it gets no other answer
    proxy.signal("HUP");
    is_unharmed(&proxy, &upstream);
    proxy.write("h.json", FIELDS);
    proxy.write(
        "env/.env",
        settings(&upstream).replace("sk-ours", "sk-later"),
    );
    proxy.wait_for_line(|line| line.contains("reloaded: changed UPSTREAM_API_KEYS"));
}

#[test]
fn an_emptied_env_file_changes_nothing() {
    harm_is_refused(
        |file| fs::write(file, "").unwrap(),
        "had 5 settings and is now empty",
    );
}

#[test]
fn a_deleted_env_file_changes_nothing() {
    harm_is_refused(
        |file| fs::remove_file(file).unwrap(),
        "had 5 settings and is now missing",
    );
}

#[test]
fn an_env_file_whose_folder_is_gone_changes_nothing() {
    harm_is_refused(
        |file| fs::remove_dir_all(file.parent().unwrap()).unwrap(),
        "had 5 settings and is now missing",
    );
}

#[test]
fn a_dangling_link_changes_nothing() {
    harm_is_refused(
        |file| {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("nowhere", file).unwrap();
        },
        "is a link to nothing",
    );
}

#[test]
fn an_env_file_cut_within_a_line_changes_nothing() {
    harm_is_refused(
        |file| {
            let text = fs::read_to_string(file).unwrap();
            fs::write(file, &text[..text.len() - 3]).unwrap();
        },
        "ends in the middle of a line",
    );
}

#[test]
fn an_env_file_cut_between_lines_keeps_keys_and_fields() {
    harm_is_refused(
        |file| {
            let text = fs::read_to_string(file).unwrap();
            let first = text.lines().next().unwrap();
            fs::write(file, format!("{first}\n")).unwrap();
        },
        "DASHBOARD_API_KEY",
    );
}

#[test]
fn a_fields_file_that_is_gone_changes_nothing() {
    harm_is_refused(
        |file| fs::remove_file(file.parent().unwrap().parent().unwrap().join("h.json")).unwrap(),
        "h.json",
    );
}

#[test]
fn a_write_with_a_pause_is_seen_at_its_end_only() {
    let (one, two) = (Upstream::ok(), Upstream::ok());
    let proxy = configured(&one);
    is_unharmed(&proxy, &one);
    let mut file = File::create(proxy.path("env/.env")).unwrap();
    is_unharmed(&proxy, &one);
    let text = settings(&two);
    let half = text.find("ENABLE").unwrap();
    file.write_all(&text.as_bytes()[..half]).unwrap();
    is_unharmed(&proxy, &one);
    file.write_all(&text.as_bytes()[half..]).unwrap();
    drop(file);
    proxy.wait_for_line(|line| line.contains("reloaded: changed API_BASE_URL"));
    is_unharmed(&proxy, &two);
}

#[test]
fn a_config_map_that_is_swapped_is_taken_without_a_warning() {
    use std::os::unix::fs::symlink;
    let upstream = Upstream::ok();
    let builder =
        ProxyBuilder::new().file("env/..1/.env", format!("API_BASE_URL={}\n", upstream.url()));
    symlink("..1", builder.path("env/..data")).unwrap();
    symlink("..data/.env", builder.path("env/.env")).unwrap();
    let proxy = builder.start();
    let root = proxy.path("env");
    // the first swap may come before the watch
    for (n, path) in [(2, "two"), (3, "three")] {
        fs::create_dir(root.join(format!("..{n}"))).unwrap();
        let text = format!("API_BASE_URL={}/{path}\n", upstream.url());
        fs::write(root.join(format!("..{n}/.env")), text).unwrap();
        symlink(format!("..{n}"), root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        fs::remove_dir_all(root.join(format!("..{}", n - 1))).unwrap();
        let reloads = || {
            proxy
                .stderr()
                .matches("reloaded: changed API_BASE_URL")
                .count()
        };
        eventually("the reload", || reloads() == n - 1);
        proxy.send(get("/"));
        assert_eq!(upstream.request().0.target(), format!("/{path}/"));
    }
    assert!(!proxy.stderr().contains("watches"), "{}", proxy.stderr());
}
