use super::*;

/// Keys of many makers.
pub(crate) const KEYS: [&str; 14] = [
    "sk-ant-api03-AbCdEfGh12345678-IjKlMnOp_QrStUvWx-yz0123AA",
    "sk-proj-1a2b3c4d5e6f7g8h9i0j",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_MNOPQRST",
    "xoxb-123456789012-abcdefGHIJKL",
    "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "glpat-AbCdEfGhIjKlMnOpQrSt",
    "gsk_a1B2c3D4e5F6g7H8i9J0",
    "d41d8cd98f00b204e9800998ecf8427e",
    "123e4567-e89b-12d3-a456-426614174000",
    "0123abcd4567.ZyXwVuTs98",
    "a1b2c3d4",
];

#[test]
fn keys_are_told_from_ids_models_and_words() {
    for key in KEYS {
        assert!(is_key(key), "{key}");
        assert_eq!(path(&format!("/k/{key}/v1")), "/k/…/v1");
        assert_eq!(prefix(&format!("/k/{key}/v1")), "/k/***/v1");
        assert!(hidden(&format!("/k/{key}")).eq([key]));
    }
    for part in [
        "",
        "v1",
        "messages",
        "count_tokens",
        "msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d",
        "file_011CNha8iCJcU1wXNR6q4V8w",
        "claude-sonnet-4-5-20250929",
        "us.anthropic.claude-opus-4-20250514-v1:0",
        "claude-opus-4@20250514",
        "streamRawPredict",
        "organizations",
        "event_logging",
        "2026-11-28",
        "risk-assessment-and-more-of-it",
    ] {
        assert!(!is_key(part), "{part}");
    }
    assert!(is_key("%73k-ant-api03-x1"));
    assert_eq!(path("/v1/messages?"), "/v1/messages?");
}

#[test]
fn of_an_upstreams_path_words_are_shown() {
    for word in [
        "",
        "v1",
        "v1beta1",
        "api",
        "us-east-1",
        "claude_code",
        "Proxy",
        "eu2",
    ] {
        assert_eq!(prefix(word), word);
    }
    for part in ["s3cr3t", "a.b", "ABC", "x%2Fy", "k9x2", &"x".repeat(33)] {
        assert_eq!(prefix(part), STARS, "{part}");
    }
}
