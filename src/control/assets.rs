//! The dashboard's files: compressed while building, embedded, and known by their digests. Clients that take no
//! compressed content are few: for them a file is decompressed each time.
//!
//! Only what is listed here is served; what else lies in `static/` is none of a browser's business.

use std::io::Read as _;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
};
use brotli_decompressor::Decompressor;
use bytes::Bytes;
use ring::digest;

use super::problem::Problem;

/// Name, content coding, content; `build.rs` writes the table.
const FILES: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Coding of the content as it stands in `static/` (RFC 9110 §8.4.1).
const IDENTITY: &str = "identity";

/// Coding in which most files are kept (RFC 7932).
const BROTLI: &str = "br";

/// The one file behind all pages: the browser tells them apart by their paths.
pub(super) const INDEX: &str = "index.html";

/// The dashboard's icon.
pub(super) const ICON: &str = "icon.svg";

/// Files at the root that are served, each at `/admin/` and its name.
pub(super) const AT_ROOT: [&str; 2] = ["manifest.webmanifest", ICON];

/// The description of the API, which has a path of its own.
pub(super) const DESCRIPTION: &str = "openapi.json";

/// Answers with a file of `static/`.
pub(super) fn answer(request: &HttpRequest, name: &str) -> Result<HttpResponse, Problem> {
    let is_served = name == INDEX
        || name == DESCRIPTION
        || AT_ROOT.contains(&name)
        || name.starts_with("assets/")
        || name.starts_with("grafana/")
        || name.starts_with("prometheus/");
    let file = content(name, BROTLI).or_else(|| content(name, IDENTITY));
    let file = file.filter(|_| is_served).ok_or(Problem::NotFound)?;
    let fields = request.headers();
    let coded = [BROTLI, "gzip"].into_iter().find_map(|coding| {
        let compressed = content(name, coding)?;
        accepts(fields, coding).then_some((coding, compressed))
    });
    let digest = digest::digest(&digest::SHA256, file);
    let digest = digest.as_ref()[..16].iter();
    let digest: String = digest.map(|it| format!("{it:02x}")).collect();
    // RFC 9110 §8.8.3.3: each coding has a tag of its own
    let tag = match coded {
        Some((coding, _)) => format!("\"{digest}-{coding}\""),
        None => format!("\"{digest}\""),
    };
    let is_known = fields
        .get_all(header::IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .any(|tags| is_among(&tag, tags));
    let mut response = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::VARY, "accept-encoding"));
    if is_known {
        return Ok(response.finish());
    }
    response.insert_header((header::CONTENT_TYPE, media_type(name)));
    if let Some((coding, content)) = coded {
        response.insert_header((header::CONTENT_ENCODING, coding));
        return Ok(response.body(Bytes::from_static(content)));
    }
    Ok(response.body(original(name).ok_or(Problem::NotFound)?))
}

/// A file as it stands in `static/`.
fn original(name: &str) -> Option<Bytes> {
    if let Some(file) = content(name, IDENTITY) {
        return Some(Bytes::from_static(file));
    }
    let mut file = Vec::new();
    let mut decoder = Decompressor::new(content(name, BROTLI)?, 4096);
    decoder.read_to_end(&mut file).ok()?;
    Some(file.into())
}

/// A file in a content coding, if it is kept in it.
fn content(name: &str, coding: &str) -> Option<&'static [u8]> {
    let mut files = FILES.iter();
    let found = files.find(|(other, its, _)| *other == name && *its == coding)?;
    Some(found.2)
}

/// Answers a page that does not exist: the dashboard, which says so.
pub(super) fn unknown_page() -> Result<HttpResponse, Problem> {
    let file = original(INDEX).ok_or(Problem::NotFound)?;
    let mut response = HttpResponse::NotFound();
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "accept"))
        .insert_header((header::CONTENT_TYPE, media_type(INDEX)));
    Ok(response.body(file))
}

/// Tells whether a tag is one of `If-None-Match`, compared weakly (RFC 9110 §13.1.2).
fn is_among(tag: &str, tags: &str) -> bool {
    let mut tags = tags.split(',').map(str::trim);
    tags.any(|other| other == "*" || other.strip_prefix("W/").unwrap_or(other) == tag)
}

/// Tells whether a coding is acceptable (RFC 9110 §12.5.3); none is without the field.
fn accepts(fields: &HeaderMap, coding: &str) -> bool {
    let mut any = false;
    for value in fields.get_all(header::ACCEPT_ENCODING) {
        for member in value.to_str().unwrap_or_default().split(',') {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let is_wanted = weight.is_none_or(|it| it.parse().is_ok_and(|it: f32| it > 0.0));
            if name.eq_ignore_ascii_case(coding) {
                return is_wanted;
            }
            any |= name == "*" && is_wanted;
        }
    }
    any
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("yaml") => "application/yaml",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{body::MessageBody as _, http::StatusCode, test::TestRequest};

    use super::*;

    fn get(name: &str, fields: &[(&str, &str)]) -> Result<HttpResponse, Problem> {
        let mut request = TestRequest::default();
        for field in fields {
            request = request.append_header(*field);
        }
        answer(&request.to_http_request(), name)
    }

    fn field(response: &HttpResponse, name: &str) -> String {
        let value = response.headers().get(name);
        value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn files_come_compressed_with_a_tag_and_not_twice() {
        let plain = get(INDEX, &[]).unwrap();
        let brotli = get(INDEX, &[("accept-encoding", "gzip, deflate, br")]).unwrap();
        let gzip = get(INDEX, &[("accept-encoding", "gzip;q=0.5, br;q=0")]).unwrap();
        assert_eq!(field(&plain, "content-encoding"), "");
        assert_eq!(field(&brotli, "content-encoding"), "br");
        assert_eq!(field(&gzip, "content-encoding"), "gzip");
        assert_eq!(field(&plain, "content-type"), "text/html; charset=utf-8");
        let tags = [&plain, &brotli, &gzip].map(|response| field(response, "etag"));
        assert!(tags[0] != tags[1] && tags[1] != tags[2]);

        let list = format!("\"x\", W/{}", tags[1]);
        let again = [("accept-encoding", "br"), ("if-none-match", &list)];
        let again = get(INDEX, &again).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(again.into_body().try_into_bytes().unwrap().is_empty());
        let other = [("accept-encoding", "gzip"), ("if-none-match", &list)];
        assert_eq!(get(INDEX, &other).unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn every_file_comes_as_it_is_in_the_repository_in_each_coding() {
        for (name, coding, kept) in FILES {
            let path = format!("{}/static/{name}", env!("CARGO_MANIFEST_DIR"));
            let expected = std::fs::read(path).unwrap();
            assert_eq!(original(name).unwrap(), expected, "{name}");
            if *coding == "gzip" {
                let mut decoded = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(*kept);
                decoder.read_to_end(&mut decoded).unwrap();
                assert_eq!(decoded, expected, "{name}");
            }
        }
    }

    #[test]
    fn only_what_is_listed_is_served() {
        for name in [
            "prices.json",
            "jsconfig.json",
            "dashboard.png",
            "types/api.d.ts",
            "assets/vendor/htm-preact-standalone.module.d.ts",
            "",
            "x",
            "../Cargo.toml",
            "assets/../prices.json",
        ] {
            assert_eq!(get(name, &[]).unwrap_err(), Problem::NotFound, "{name}");
        }
        let for_operators = ["grafana/anthropic-proxy.json", "prometheus/alerts.yaml"];
        for name in AT_ROOT.into_iter().chain(for_operators) {
            assert_eq!(get(name, &[]).unwrap().status(), StatusCode::OK, "{name}");
        }
    }

    #[test]
    fn codings_are_taken_where_they_are_wanted() {
        for (value, expected) in [
            ("br", true),
            ("BR;q=0.1", true),
            ("*", true),
            ("gzip", false),
            ("br;q=0, *", false),
            ("*;q=0", false),
            ("br;q=x", false),
            ("", false),
        ] {
            let request = TestRequest::default().append_header(("accept-encoding", value));
            let request = request.to_http_request();
            assert_eq!(accepts(request.headers(), "br"), expected, "{value}");
        }
    }
}
