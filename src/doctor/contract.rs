//! The contract of an upstream: what clients of Anthropic's API rely on, asked of the live one.
//!
//! A list of models, a count of tokens and a request with a fault cost nothing. A stream is the one request that
//! does: 48 tokens of output at most, of a small model.

use std::time::Duration;

use futures_util::future::OptionFuture;
use serde_json::{Value, json};

use super::{
    check::{Check, CheckGroup, plural},
    examination::Examination,
    exchange::{Answered, Inquiry, NoAnswer, Question},
    outbound::proxy_of,
    run::{PATIENCE, bounded},
    stream::StreamFindings,
};
use crate::{
    config::Scheme,
    exchange::{Tokens, Usage},
    wire::page::origin,
};

/// Model that is asked where the upstream names none.
const MODEL: &str = "claude-haiku-4-5";
/// Most tokens of the stream.
const MOST_TOKENS: u64 = 48;
/// A member and a beta that no release of the API knows.
const UNKNOWN_MEMBER: &str = "x_proxy_doctor";
const UNKNOWN_BETA: &str = "proxy-doctor-2000-01-01";

/// Text that firewalls and sanitisers of HTML are known to refuse or to alter; Claude Code sends the like.
pub(super) const XML: &str = "<system-reminder>cat /etc/passwd</system-reminder> <script>alert(1)</script> \
     <function_calls><invoke name=\"Bash\"><parameter name=\"command\">SELECT * FROM users; -- ' OR 1=1 \
     </parameter></invoke></function_calls> <img src=x onerror=alert(1)> ${jndi:ldap://x}";

/// Checks an upstream that can be reached; gives the first answer, too.
pub(super) async fn contract_checks(
    group: CheckGroup,
    inquiry: Inquiry<'_>,
    asked: &Examination,
) -> (Vec<Check>, Option<Answered>) {
    let question = Question {
        target: "/v1/models?limit=100",
        ..Question::default()
    };
    let (models, took) = bounded(inquiry.ask(&question)).await;
    let models = models.unwrap_or_else(|| Err(NoAnswer::late(LATE)));
    let mut checks = vec![listed(group, inquiry, &models).took(took)];
    let model = match &asked.model {
        Some(model) => model.clone(),
        None => models
            .as_ref()
            .ok()
            .and_then(smallest)
            .unwrap_or_else(|| MODEL.to_owned()),
    };
    if let Ok(answer) = &models
        && answer.reply().is_page()
        && let Some(stranger) = stranger(inquiry, answer, &model).await
    {
        let found = stranger_found(group, inquiry, answer, &stranger).took(took);
        let mut checks = vec![found];
        checks
            .extend(BESIDE_MODELS.map(|id| {
                Check::skip(group, id, "not tried: what answers is not Anthropic's API")
            }));
        return (checks, models.ok());
    }
    let stream: OptionFuture<_> = asked.spend.then(|| stream(group, inquiry, &model)).into();
    let silence = asked.slow.map(|slow| silence(group, inquiry, &model, slow));
    let silence: OptionFuture<_> = silence.into();
    let question = faulty(&model);
    let (refusal, counts, stream, silence) = tokio::join!(
        bounded(inquiry.ask(&question)),
        counts(group, inquiry, &model),
        stream,
        silence
    );
    let is_answered =
        models.as_ref().is_ok_and(|answer| answer.status == 200) || counts.are_counted;
    let (refusal, took) = (
        refusal.0.unwrap_or_else(|| Err(NoAnswer::late(LATE))),
        refusal.1,
    );
    checks.extend(match &refusal {
        Ok(answer) if !is_answered && is_nowhere(answer, &model) => {
            vec![nowhere(group, inquiry, answer).took(took)]
        }
        refusal => shape(group, inquiry, refusal, took),
    });
    checks.extend(counts.checks);
    checks.push(stream.unwrap_or_else(|| {
        let why = "not tried: it costs money, less than a cent; at a terminal `doctor --spend` asks for it";
        Check::skip(group, "stream", why)
    }));
    checks.push(silence.unwrap_or_else(|| {
        let why = "not tried: it takes 100 s; at a terminal `doctor --slow` asks for it";
        Check::skip(group, "silence", why)
    }));
    (checks, models.ok())
}

const LATE: &str = "no answer within 5 s";

/// Checks that a stranger's answers say nothing about.
const BESIDE_MODELS: [&str; 7] = [
    "error_shape",
    "request_id",
    "count_tokens",
    "unknown_fields",
    "unknown_betas",
    "stream",
    "silence",
];

/// The answer to a message with a fault, where it is none of the API either: then all that comes is of a stranger.
async fn stranger(inquiry: Inquiry<'_>, listed: &Answered, model: &str) -> Option<String> {
    let (answer, _) = bounded(inquiry.ask(&faulty(model))).await;
    let answer = answer?.ok()?;
    let is_stranger = answer.reply().is_page();
    is_stranger.then(|| {
        let (listed, answer) = (listed.reply().told(), answer.reply().told());
        format!("GET /v1/models got {listed}, POST /v1/messages got {answer}")
    })
}

/// The one finding on answers of a stranger.
fn stranger_found(group: CheckGroup, inquiry: Inquiry<'_>, listed: &Answered, told: &str) -> Check {
    if is_clear(inquiry) && listed.reply().wants_tls() {
        return refused(group, "models", inquiry, listed);
    }
    let found = format!("what answers is not Anthropic's API: {told}");
    let fix = match (listed.status, proxy_of(&inquiry.live.endpoints[inquiry.endpoint])) {
        (300..=399, _) => refused(group, "models", inquiry, listed).fix.unwrap_or_default(),
        (_, None) => "correct API_BASE_URL: its host and its path (without /v1); if that is a page to sign in or of a \
             firewall, have requests of this machine pass without it (a key sent there is given away)"
            .to_owned(),
        (_, Some(proxy)) => format!(
            "if that is a page to sign in or to block, have the operator of the {proxy} let requests of this machine \
             pass without it (a key sent there is given away); otherwise correct API_BASE_URL: its host and its path \
             (without /v1)"
        ),
    };
    Check::fail(group, "models", found, fix).with_evidence(shown(listed))
}

/// A message that no server of the API takes.
fn faulty(model: &str) -> Question<'static> {
    Question {
        target: MESSAGES,
        content: Some(json!({"model": model, "max_tokens": 1, "messages": []})),
        ..Question::default()
    }
}

/// The smallest model of a list: the cheapest kind, the newest first.
fn smallest(models: &Answered) -> Option<String> {
    let json = models.json();
    let ids: Vec<&str> = json["data"]
        .as_array()?
        .iter()
        .filter_map(|model| model["id"].as_str())
        .filter(|id| id.len() <= 100 && !id.contains(char::is_control))
        .collect();
    let of = |kind: &str| ids.iter().find(|id| id.contains(kind));
    let id = of("haiku").or_else(|| of("sonnet")).or(ids.first())?;
    Some((*id).to_owned())
}

/// The list of models, with the configured credential.
fn listed(group: CheckGroup, inquiry: Inquiry<'_>, models: &Result<Answered, NoAnswer>) -> Check {
    const ID: &str = "models";
    let answer = match models {
        Ok(answer) => answer,
        Err(none) => return Check::fail(group, ID, &*none.why, &*none.fix),
    };
    let status = answer.status;
    let ids = answer.json()["data"].as_array().map(Vec::len);
    match (status, ids) {
        (200, Some(count)) => {
            let found = match inquiry.has_credential() {
                true => format!("{}; the credential is accepted", plural(count, "model")),
                false => format!("{}, without a credential", plural(count, "model")),
            };
            Check::ok(group, ID, found).with_evidence(shown(answer))
        }
        (401 | 403, _) if !answer.is_html() && !inquiry.has_credential() => {
            let found = format!(
                "answers {status} to a request without a credential: clients bring theirs (ANTHROPIC_AUTH_TOKEN)"
            );
            Check::ok(group, ID, found).with_evidence(shown(answer))
        }
        (404 | 405 | 501, _) if !answer.is_html() => Check::warn(
            group,
            ID,
            format!("answers {status}: it has no list of models"),
            "none is needed by Claude Code; if all requests fail with 404, correct the path in API_BASE_URL \
             (without /v1)",
        )
        .with_evidence(shown(answer)),
        _ => refused(group, ID, inquiry, answer),
    }
}

/// A refusal that clients would meet, too.
fn refused(group: CheckGroup, id: &'static str, inquiry: Inquiry<'_>, answer: &Answered) -> Check {
    let status = answer.status;
    if let Some(label) = answer.field("x-proxy-error") {
        let message = answer.json()["error"]["message"]
            .as_str()
            .map(str::to_owned);
        let message = message.unwrap_or_else(|| "no reason is given".to_owned());
        let found = format!("the proxy itself answers {status} ({label}): {message}");
        let fix = "run anthropic-proxy doctor where the proxy runs: it names the cause";
        return Check::fail(group, id, found, fix).with_evidence(shown(answer));
    }
    let (found, fix) = match status {
        400 if is_clear(inquiry) && answer.reply().wants_tls() => (
            "answers 400: its port speaks TLS".to_owned(),
            "write https:// in API_BASE_URL, in place of http://".to_owned(),
        ),
        300..=399 => (
            format!("redirects with {status}: clients do not follow it with their content"),
            match answer.field("location").and_then(|it| origin(&it)) {
                Some(origin) => format!(
                    "it leads to {origin}: if that is the API at a new address, set API_BASE_URL to it; if it is a \
                     page to sign in or a block page, have this machine's requests pass without it (a key sent \
                     there is given away)"
                ),
                None => "correct API_BASE_URL: its host and its path (without /v1)".to_owned(),
            },
        ),
        401 => (
            "refuses the credential (401)".to_owned(),
            "correct the credential: UPSTREAM_API_KEYS, or the field in HEADERS_FILE (`Bearer ` before a token, \
             nothing before a key); as a client, ANTHROPIC_AUTH_TOKEN or ANTHROPIC_API_KEY"
                .to_owned(),
        ),
        403 if answer.is_html() => (
            "answers 403 in HTML: a firewall stands before the API".to_owned(),
            "have its operator let requests of this machine and of the API's kind pass".to_owned(),
        ),
        403 => (
            "does not permit it (403)".to_owned(),
            "use a credential that may, or ask the upstream's operator".to_owned(),
        ),
        407 => (
            "an outbound proxy wants a password (407)".to_owned(),
            "put the right user and password into HTTPS_PROXY or HTTP_PROXY".to_owned(),
        ),
        429 => (
            "limits the rate of requests (429)".to_owned(),
            "wait, or use a credential with a higher limit".to_owned(),
        ),
        200..=299 => (
            format!("answers {status} with something that is not Anthropic's API"),
            "correct API_BASE_URL: its host and its path (without /v1)".to_owned(),
        ),
        _ => (
            format!("answers {status}"),
            "look at the upstream's own log or status page; the proxy passes such answers on as they are".to_owned(),
        ),
    };
    Check::fail(group, id, found, fix).with_evidence(shown(answer))
}

fn is_clear(inquiry: Inquiry<'_>) -> bool {
    inquiry.live.endpoints[inquiry.endpoint].upstream.scheme == Scheme::Http
}

/// An answer in a line: status, media type, time of the head. Its content may repeat a secret.
fn shown(answer: &Answered) -> String {
    let kind = answer
        .field("content-type")
        .unwrap_or_else(|| "no media type".to_owned());
    let kind: String = kind
        .chars()
        .filter(|it| !it.is_control())
        .take(60)
        .collect();
    let error = answer.error().map(|(kind, _)| {
        let is_of_name = |it: &char| it.is_ascii_alphanumeric() || *it == '_';
        let kind: String = kind.chars().filter(is_of_name).take(40).collect();
        format!(", {kind}")
    });
    format!(
        "{} {kind}{} after {} ms",
        answer.status,
        error.unwrap_or_default(),
        answer.head_after.as_millis()
    )
}

const MESSAGES: &str = "/v1/messages";

/// Reports that nothing is at the path of messages. An unknown model is told with the same status, and by its name.
fn is_nowhere(answer: &Answered, model: &str) -> bool {
    let names_model = || {
        answer
            .error()
            .is_some_and(|(_, message)| message.contains(model))
    };
    let is_of_proxy = answer.field("x-proxy-error").is_some();
    matches!(answer.status, 404 | 405) && !is_of_proxy && !names_model()
}

/// The failure of a base URL that leads to another path than that of messages.
fn nowhere(group: CheckGroup, inquiry: Inquiry<'_>, answer: &Answered) -> Check {
    let upstream = &inquiry.live.endpoints[inquiry.endpoint].upstream;
    let found = format!(
        "POST {upstream}{MESSAGES} answers {}: there are no messages at this path, so every request of a client fails",
        answer.status
    );
    // clients append the rest themselves
    let appended = upstream.prefix.find("/v1/").or_else(|| {
        let end = upstream.prefix.strip_suffix("/v1")?;
        Some(end.len())
    });
    let fix = match appended {
        Some(at) => {
            let mut base = upstream.clone();
            base.prefix.truncate(at);
            format!("API_BASE_URL ends too late: set it to {base}")
        }
        None => format!(
            "correct API_BASE_URL: its host and its path, to which clients append {MESSAGES}"
        ),
    };
    Check::fail(group, "messages", found, fix).with_evidence(shown(answer))
}

/// The shape of an error, and the id of a request.
fn shape(
    group: CheckGroup,
    inquiry: Inquiry<'_>,
    answer: &Result<Answered, NoAnswer>,
    took: Duration,
) -> Vec<Check> {
    const ID: &str = "error_shape";
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer { why, fix }) => {
            return vec![Check::fail(group, ID, &**why, &**fix).took(took)];
        }
    };
    let check = match (answer.status, answer.error()) {
        (400..=499, Some(_)) => Check::ok(group, ID, "errors have Anthropic's shape"),
        (300..=399, _) => refused(group, ID, inquiry, answer),
        (200..=299, _) => Check::warn(
            group,
            ID,
            "a request without messages is accepted: something before the API answers in its place",
            "ask the upstream's operator; clients may show empty answers instead of errors",
        ),
        (500.., Some(_)) => refused(group, ID, inquiry, answer),
        (status, _) => Check::fail(
            group,
            ID,
            format!("the error {status} has not Anthropic's shape: clients do not understand it"),
            "have the upstream's operator answer {\"type\":\"error\",\"error\":{\"type\":…,\"message\":…}}; if it is a \
             page of a firewall, have it let the request pass",
        ),
    };
    let id = match answer
        .field("request-id")
        .or_else(|| answer.field("x-request-id"))
    {
        Some(_) => Check::ok(group, "request_id", "answers carry the id of their request"),
        None => Check::warn(
            group,
            "request_id",
            "answers carry no request-id: the upstream's operator cannot find a request that failed",
            "ask the upstream's operator to pass request-id on",
        ),
    };
    vec![check.with_evidence(shown(answer)).took(took), id.took(took)]
}

/// Counts of tokens: of markup, of the same without it, of next to nothing; with an unknown member, with an
/// unknown beta.
async fn counts(group: CheckGroup, inquiry: Inquiry<'_>, model: &str) -> Counts {
    let beta = [("anthropic-beta", UNKNOWN_BETA)];
    let bare = without_markup(XML);
    let (marked, bare, tiny, member, beta) = tokio::join!(
        bounded(count(inquiry, model, XML, &[], false)),
        bounded(count(inquiry, model, &bare, &[], false)),
        bounded(count(inquiry, model, "x", &[], false)),
        bounded(count(inquiry, model, XML, &[], true)),
        bounded(count(inquiry, model, XML, &beta, false)),
    );
    let (marked, took) = (
        marked.0.unwrap_or_else(|| Err(NoAnswer::late(LATE))),
        marked.1,
    );
    let beside = Beside {
        bare: bare.0.and_then(Result::ok),
        tiny: tiny.0.and_then(Result::ok),
    };
    let counted = match &marked {
        Ok(answer) => counted(group, inquiry, answer, &beside),
        Err(none) => Check::fail(group, "count_tokens", &*none.why, &*none.fix),
    };
    let is_counted = marked.as_ref().is_ok_and(|it| tokens_of(it).is_some());
    let is_stranger = marked.as_ref().is_ok_and(Answered::is_html);
    let mut checks = vec![counted.took(took)];
    for (id, what, word, (answer, took)) in [
        ("unknown_fields", "members", UNKNOWN_MEMBER, member),
        ("unknown_betas", "betas", UNKNOWN_BETA, beta),
    ] {
        checks.push(if is_counted {
            let answer = answer.unwrap_or_else(|| Err(NoAnswer::late(LATE)));
            passed(group, id, what, word, &answer).took(took)
        } else if is_stranger {
            Check::skip(group, id, "not tried: what answers is not Anthropic's API")
        } else {
            Check::skip(
                group,
                id,
                "not tried: tokens are not counted, and anything else costs money",
            )
        });
    }
    Counts {
        checks,
        are_counted: is_counted,
    }
}

/// The checks of counts.
struct Counts {
    checks: Vec<Check>,
    are_counted: bool,
}

async fn count(
    inquiry: Inquiry<'_>,
    model: &str,
    text: &str,
    fields: &[(&str, &str)],
    has_member: bool,
) -> Result<Answered, NoAnswer> {
    let mut content = json!({"model": model, "messages": [{"role": "user", "content": text}]});
    if has_member {
        content[UNKNOWN_MEMBER] = Value::Bool(true);
    }
    let question = Question {
        target: "/v1/messages/count_tokens",
        fields,
        content: Some(content),
        ..Question::default()
    };
    inquiry.ask(&question).await
}

/// A text as a sanitiser of HTML leaves it: without tags.
fn without_markup(text: &str) -> String {
    let mut is_tag = false;
    let is_kept = |it: &char| {
        is_tag = *it == '<' || (is_tag && *it != '>');
        !is_tag && *it != '>'
    };
    text.chars().filter(is_kept).collect()
}

fn tokens_of(answer: &Answered) -> Option<u64> {
    let tokens = answer.json()["input_tokens"].as_u64();
    tokens.filter(|_| answer.status == 200)
}

/// Counts that the one of markup is held against.
struct Beside {
    /// Count of the same text without its tags.
    bare: Option<Answered>,
    /// Count of one letter.
    tiny: Option<Answered>,
}

impl Beside {
    /// True if a text with markup has no more tokens than it would have without.
    fn is_stripped(&self, marked: u64) -> bool {
        let tokens = |answer: &Option<Answered>| answer.as_ref().and_then(tokens_of);
        match (tokens(&self.bare), tokens(&self.tiny)) {
            // one that does not tell texts apart tells nothing
            (Some(bare), Some(tiny)) => tiny < bare && marked <= bare + bare / 4,
            _ => false,
        }
    }

    /// True if it is the markup for which a text is answered with this status.
    fn blames_markup(&self, answer: &Answered) -> bool {
        let refusals = [400, 403, 405, 406, 413, 418, 422];
        match &self.tiny {
            Some(tiny) if tokens_of(tiny).is_some() => refusals.contains(&answer.status),
            Some(tiny) => {
                let is_usual = [403, 406].contains(&answer.status) && answer.error().is_none();
                is_usual && tiny.status != answer.status
            }
            None => false,
        }
    }
}

fn counted(group: CheckGroup, inquiry: Inquiry<'_>, answer: &Answered, beside: &Beside) -> Check {
    const ID: &str = "count_tokens";
    match (answer.status, tokens_of(answer)) {
        (_, Some(tokens)) if beside.is_stripped(tokens) => Check::fail(
            group,
            ID,
            format!("a text with XML in it arrives without its tags: {tokens} tokens of it are counted"),
            "have what stands before the API (a sanitiser of HTML, a firewall, a gateway) leave content as it is: \
             prompts of Claude Code hold tags",
        ),
        (_, Some(tokens)) => Check::ok(group, ID, format!("tokens are counted: {tokens}")),
        (401 | 403, _) if answer.error().is_some() && !inquiry.has_credential() => Check::skip(
            group,
            ID,
            "not tried: there is no credential; UPSTREAM_API_KEYS sets one for all requests, and at a terminal \
             `doctor --key-env VARIABLE` takes one for the checks alone",
        ),
        _ if beside.blames_markup(answer) => Check::fail(
            group,
            ID,
            format!("a text with XML in it is answered {}: a firewall reads the content", answer.status),
            "have its operator except this API from rules on content (SQL, scripts, HTML): prompts look like that",
        ),
        (404 | 405 | 501, _) => Check::warn(
            group,
            ID,
            format!("answers {}: it does not count tokens", answer.status),
            "none is needed: Claude Code estimates them instead",
        ),
        (400, _) if answer.error().is_some() => Check::warn(
            group,
            ID,
            "refuses the request (400): it may not have the model",
            "name one that it has, at a terminal: `doctor --model MODEL`",
        ),
        _ => return refused(group, ID, inquiry, answer),
    }
    .with_evidence(shown(answer))
}

/// Tells whether an unknown word came through: it is accepted, or refused by its name.
fn passed(
    group: CheckGroup,
    id: &'static str,
    what: &str,
    word: &str,
    answer: &Result<Answered, NoAnswer>,
) -> Check {
    let answer = match answer {
        Ok(answer) => answer,
        Err(none) => return Check::fail(group, id, &*none.why, &*none.fix),
    };
    let is_named = answer
        .error()
        .is_some_and(|(_, message)| message.contains(word));
    match answer.status {
        200 if tokens_of(answer).is_some() => {
            Check::ok(group, id, format!("unknown {what} are accepted"))
        }
        400..=499 if is_named => Check::ok(
            group,
            id,
            format!("unknown {what} reach the API, which refuses them by name"),
        ),
        _ => Check::warn(
            group,
            id,
            format!(
                "unknown {what} are answered {} without being named: something before the API reads them",
                answer.status
            ),
            format!(
                "have the upstream's operator pass {what} that it does not know on: a new release of Claude Code may \
                 send some; until then, CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS=1 helps its users"
            ),
        ),
    }
    .with_evidence(shown(answer))
}

/// A stream of a few tokens: the one request that costs money.
async fn stream(group: CheckGroup, inquiry: Inquiry<'_>, model: &str) -> Check {
    const ID: &str = "stream";
    let content = json!({
        "model": model,
        "max_tokens": MOST_TOKENS,
        "stream": true,
        "messages": [{"role": "user", "content": "Count from 1 to 30, separated by spaces. Numbers only."}],
    });
    let question = Question {
        target: "/v1/messages",
        content: Some(content),
        ..Question::default()
    };
    let (answer, took) = bounded(inquiry.ask(&question)).await;
    let answer = match answer.unwrap_or_else(|| Err(NoAnswer::late("no whole stream within 5 s"))) {
        Ok(answer) => answer,
        Err(NoAnswer { why, fix }) => return Check::fail(group, ID, why, fix).took(took),
    };
    if answer.status != 200 {
        return refused(group, ID, inquiry, &answer).took(took);
    }
    let kind = answer.field("content-type").unwrap_or_default();
    let found = StreamFindings::of(&answer.content, &answer.pieces);
    let cost = cost(inquiry, model, found.tokens);
    let pace = format!(
        "first octet after {} ms, {} events in {} pieces over {} ms, longest gap {} ms",
        found.first.as_millis(),
        found.events,
        found.pieces,
        found.spread.as_millis(),
        found.longest_gap.as_millis()
    );
    let check = if let Some(why) = &answer.cut {
        Check::fail(
            group,
            ID,
            format!("the stream was cut: {why}"),
            "look at the upstream's status page, and for a proxy before it that ends long answers",
        )
    } else if !kind.starts_with("text/event-stream") {
        Check::fail(
            group,
            ID,
            "a stream was asked for, and none came",
            "have the upstream's operator pass `stream: true` on",
        )
    } else if let Some(fault) = &found.fault {
        Check::fail(
            group,
            ID,
            format!("the events are not intact: {fault}"),
            "ask the upstream's operator: clients fail at such streams",
        )
    } else if found.is_buffered() {
        Check::warn(
            group,
            ID,
            format!("the stream is buffered on the way: {pace}"),
            "find the proxy that collects answers: nginx needs `proxy_buffering off`, a company's proxy an exception \
             for this host, a CDN one for text/event-stream",
        )
    } else {
        Check::ok(group, ID, format!("not buffered: {pace}"))
    };
    check
        .with_evidence(shown(&answer))
        .with_evidence(format!("cost: {cost}"))
        .took(took)
}

/// Tokens of the stream, and their price.
fn cost(inquiry: Inquiry<'_>, model: &str, (input, output): (u64, u64)) -> String {
    let mut usage = Usage {
        model: Some(model.into()),
        tokens: Tokens {
            input,
            output,
            ..Tokens::default()
        },
        ..Usage::default()
    };
    inquiry.live.prices.apply(&mut usage);
    let tokens = format!("{input} tokens of input, {output} of output");
    match usage.cost {
        // billionths of a dollar
        Some(cost) => format!("{tokens}, ${:.6}", cost as f64 / 1e9),
        None => format!("{tokens}, of a model whose price is not known"),
    }
}

/// The silence that a connection bears in the middle of a request.
async fn silence(group: CheckGroup, inquiry: Inquiry<'_>, model: &str, silence: Duration) -> Check {
    const ID: &str = "silence";
    let content = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
    let question = Question {
        target: "/v1/messages/count_tokens",
        content: Some(content),
        silence: Some(silence),
        ..Question::default()
    };
    let began = std::time::Instant::now();
    let answer = tokio::time::timeout(silence + PATIENCE, inquiry.ask(&question)).await;
    let took = began.elapsed();
    let fix = "have the proxies on the way wait for at least 600 s (nginx: proxy_read_timeout, \
               client_body_timeout; a load balancer: idle timeout): a model may think for minutes";
    // the connections to the upstream are those of the server
    let fix = match group == CheckGroup::Client || took < silence {
        true => fix.to_owned(),
        false => format!(
            "if a firewall on the way drops idle connections without a word, set UPSTREAM_KEEP_ALIVE below {} s, so \
             that none is used after it; and {fix}",
            silence.as_secs()
        ),
    };
    let check = match answer {
        // it was answered before the request was whole
        Ok(Ok(answer)) if took < silence => Check::warn(
            group,
            ID,
            format!(
                "answered {} after {} s of silence",
                answer.status,
                took.as_secs()
            ),
            fix,
        ),
        Ok(Ok(_)) => Check::ok(
            group,
            ID,
            format!("a connection bears {} s of silence", silence.as_secs()),
        ),
        Ok(Err(none)) => Check::fail(
            group,
            ID,
            format!(
                "the connection ended after {} s of silence: {}",
                took.as_secs(),
                none.why
            ),
            fix,
        ),
        Err(_) => Check::fail(
            group,
            ID,
            format!("no answer after {} s of silence", silence.as_secs()),
            fix,
        ),
    };
    check.took(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_markup_has_its_words() {
        assert_eq!(without_markup("a <b c=\"d\">e</b> f > g"), "a e f  g");
        let bare = without_markup(XML);
        assert!(bare.contains("SELECT * FROM users") && !bare.contains("system-reminder"));
        // even if each word is a token
        assert!(XML.len() > 2 * bare.len(), "{bare}");
    }
}
