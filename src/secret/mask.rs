//! Masks credentials by their values, in any place of a text and in any encoding of it.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE},
};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use super::{names::names_credential, shape};

pub use super::shape::MASK;

/// A credential that is shorter is a word like any other.
const SHORTEST: usize = 4;
/// A value of a cookie that is shorter is not masked either.
const SHORTEST_COOKIE: usize = 8;
/// A part of a compound credential that is shorter is no secret by itself.
const SHORTEST_PART: usize = 16;
/// Layers of encoding that are undone: JSON in a string of JSON.
const ENCODED: usize = 2;
/// Shortest base64 form that is looked for: anything shorter is too likely to be something else.
const SHORTEST_BASE64: usize = 8;
/// Upper bound of credentials taken from one field, query or path: a head of 64 KiB holds thousands
/// of cookies, and each is compared with the others.
const MOST_OF_A_FIELD: usize = 32;

/// Credentials that are never shown: those of one request, say, and others that many requests share.
#[derive(Clone, Default)]
pub struct Secrets {
    own: SmallVec<[Needle; 1]>,
    shared: Option<Arc<Secrets>>,
}

/// A credential that is looked for.
#[derive(Clone)]
struct Needle {
    text: Box<str>,
    /// True if it may stand in a run of characters of base64 only: then a short run has none of it.
    is_run: bool,
    /// Its forms in base64, once they are needed.
    base64: OnceLock<BTreeSet<Vec<u8>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.len())
    }
}

impl Secrets {
    /// Adds a credential.
    pub fn add(&mut self, value: &str) {
        let value = value.trim();
        if value.len() >= SHORTEST && !self.needles().any(|known| *known.text == *value) {
            self.own.push(Needle {
                text: value.into(),
                is_run: value.bytes().all(is_base64),
                base64: OnceLock::new(),
            });
        }
    }

    /// Adds all of a set that is shared, in place of one that was.
    pub fn share(&mut self, others: &Arc<Self>) {
        self.shared = (!others.is_empty()).then(|| Arc::clone(others));
    }

    fn needles(&self) -> impl Iterator<Item = &Needle> {
        let shared = self.shared.as_ref().map(|shared| shared.own.iter());
        self.own.iter().chain(shared.into_iter().flatten())
    }

    /// The number of credentials.
    pub fn len(&self) -> usize {
        self.needles().count()
    }

    /// Tells if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells if a text of this length may have one of them.
    pub fn may_be_within(&self, length: usize) -> bool {
        self.needles().any(|needle| needle.shortest() <= length)
    }

    /// Memory that they take, in bytes, without those that are shared.
    pub fn bytes(&self) -> usize {
        let each = |needle: &Needle| size_of::<Needle>() + needle.text.len();
        self.own.iter().map(each).sum()
    }

    /// Adds the credentials of a field, if it is one that holds some.
    pub fn add_field(&mut self, name: &[u8], value: &[u8]) {
        if !names_credential(name) {
            return;
        }
        let value = String::from_utf8_lossy(value);
        if name.eq_ignore_ascii_case(b"cookie") {
            let values = value
                .split(';')
                .filter_map(|pair| Some(pair.split_once('=')?.1));
            let long = values.filter(|value| value.trim().len() >= SHORTEST_COOKIE);
            for value in long.take(MOST_OF_A_FIELD) {
                self.add(value.trim().trim_matches('"'));
                self.add(&percent_decode_str(value).decode_utf8_lossy());
            }
            return;
        }
        // without its scheme
        let value = value.trim();
        let (scheme, token) = value.split_once(' ').unwrap_or(("", value));
        self.add(token);
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD
                .decode(token.trim())
                .or_else(|_| STANDARD_NO_PAD.decode(token.trim()));
            let login = decoded.unwrap_or_default();
            let login = String::from_utf8_lossy(&login);
            if let Some((user, password)) = login.split_once(':') {
                self.add_login(user, password);
            }
        }
        // several in one, as `Credential=…, Signature=…`
        let parts = token.split([' ', ',', ';']).filter(|part| *part != token);
        let parts = parts.filter_map(|part| part.rsplit('=').next());
        let long = parts.filter(|part| part.len() >= SHORTEST_PART);
        long.take(MOST_OF_A_FIELD).for_each(|part| self.add(part));
    }

    /// Adds the values of a query whose names are those of credentials.
    pub fn add_query(&mut self, query: &str) {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let named = pairs.filter(|(name, _)| names_credential(name.as_bytes()));
        for (_, value) in named.take(MOST_OF_A_FIELD) {
            self.add(&percent_decode_str(value).decode_utf8_lossy());
        }
    }

    /// Adds a user and a password. A user is no secret, but it may be the key where there is no password.
    pub fn add_login(&mut self, user: &str, password: &str) {
        self.add(&format!("{user}:{password}"));
        self.add(password);
        if password.is_empty() || user.len() >= SHORTEST_PART {
            self.add(user);
        }
    }

    /// Adds what looks like a key in a path.
    pub fn add_path(&mut self, path: &str) {
        let keys = path.split('/').filter(|part| shape::is_key(part));
        for part in keys.take(MOST_OF_A_FIELD) {
            self.add(&percent_decode_str(part).decode_utf8_lossy());
        }
    }

    /// The text without them, as they are or encoded for a URL, HTML, JSON or in base64.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.hide_all(text, Extent::Whole)
    }

    /// The same for a text that may have been cut: then it may end with the beginning of one.
    pub fn hide_all<'t>(&self, text: &'t str, extent: Extent) -> Cow<'t, str> {
        if extent == Extent::Whole && self.is_free(text) {
            return Cow::Borrowed(text);
        }
        let mut spans = self.find(text, extent);
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        spans.sort_by_key(|span| span.start);
        let (mut masked, mut shown) = (String::with_capacity(text.len()), 0);
        for span in spans {
            if span.end <= shown {
                continue;
            }
            if span.start >= shown {
                masked.push_str(text.get(shown..span.start).unwrap_or_default());
                masked.push_str(MASK);
            }
            shown = span.end;
        }
        masked.push_str(text.get(shown..).unwrap_or_default());
        Cow::Owned(masked)
    }
}

/// The part of a text that is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Its beginning.
    Cut,
}

impl Secrets {
    /// True if a whole text certainly has none of them, in no encoding: most texts are short and plain.
    fn is_free(&self, text: &str) -> bool {
        let text = text.as_bytes();
        // most texts are shorter than any key
        if !self.may_be_within(text.len()) {
            return true;
        }
        if memchr::memchr3(b'\\', b'%', b'&', text).is_some() {
            return false;
        }
        let run = longest_run(text);
        self.needles().all(|needle| needle.is_absent(text, run))
    }

    /// The spans of them in a text.
    fn find(&self, text: &str, extent: Extent) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        let is_here = |needle: &&Needle| {
            needle.shortest() <= text.len() || (extent == Extent::Cut && !text.is_empty())
        };
        let needles: SmallVec<[&Needle; 8]> = self.needles().filter(is_here).collect();
        let mut views = vec![DecodedView::of(text)];
        for level in 0..=ENCODED {
            for view in &views {
                view.find(&needles, extent, &mut spans);
            }
            if level < ENCODED {
                views = views.iter().flat_map(DecodedView::decoded).collect();
            }
        }
        spans
    }
}

impl Needle {
    /// The length of the shortest text that it may be in.
    fn shortest(&self) -> usize {
        self.text.len().min(self.shortest_base64())
    }

    /// The length of its shortest form in base64.
    fn shortest_base64(&self) -> usize {
        // the groups of four characters without those that other octets have a part in
        (self.text.len() / 3 * 4)
            .saturating_sub(3)
            .max(SHORTEST_BASE64)
    }

    /// True if a text without escapes, whose runs of characters of base64 are at most this long, does not have
    /// it.
    fn is_absent(&self, text: &[u8], run: usize) -> bool {
        let value = self.text.as_bytes();
        let is_short = if self.is_run {
            run < value.len()
        } else {
            text.len() < value.len()
        };
        (is_short || memchr::memmem::find(text, value).is_none())
            && (run < self.shortest_base64()
                || self
                    .base64()
                    .iter()
                    .all(|form| run < form.len() || memchr::memmem::find(text, form).is_none()))
    }

    /// The base64 characters of it that do not depend on the bytes before and after it, for each of the three
    /// positions in a group (RFC 4648 §4 and §5).
    fn base64(&self) -> &BTreeSet<Vec<u8>> {
        self.base64.get_or_init(|| {
            let mut forms = BTreeSet::new();
            for before in 0..3 {
                let mut octets = vec![0; before];
                octets.extend_from_slice(self.text.as_bytes());
                let whole = octets.len() / 3 * 3;
                for encoded in [
                    STANDARD.encode(&octets[..whole]),
                    URL_SAFE.encode(&octets[..whole]),
                ] {
                    // of the first group, what the octets before it have a part in
                    let form = encoded
                        .as_bytes()
                        .get([0, 2, 3][before]..)
                        .unwrap_or_default();
                    if form.len() >= SHORTEST_BASE64 {
                        forms.insert(form.to_vec());
                    }
                }
            }
            forms
        })
    }
}

/// True for a character of base64, of either alphabet.
fn is_base64(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"+/-_=".contains(&octet)
}

/// The length of the longest run of characters of base64.
fn longest_run(text: &[u8]) -> usize {
    let runs = text.split(|octet| !is_base64(*octet));
    runs.map(<[u8]>::len).max().unwrap_or_default()
}

/// A decoded text, with the position in the original of each byte.
struct DecodedView {
    octets: Vec<u8>,
    /// One position more than there are bytes, the last for the end of the original; `None` for the
    /// original itself.
    from: Option<Vec<usize>>,
}

impl DecodedView {
    /// The text itself.
    fn of(text: &str) -> Self {
        Self {
            octets: text.as_bytes().to_vec(),
            from: None,
        }
    }

    fn find(&self, needles: &[&Needle], extent: Extent, spans: &mut Vec<Range<usize>>) {
        let end = self.octets.len();
        for needle in needles {
            let value = needle.text.as_bytes();
            for at in memchr::memmem::find_iter(&self.octets, value) {
                spans.push(self.span(at..at + value.len()));
            }
            let part = (SHORTEST..value.len())
                .rev()
                .find(|part| self.octets.ends_with(&value[..*part]));
            if let Some(part) = part.filter(|_| extent == Extent::Cut) {
                spans.push(self.span(end - part..end));
            }
            if needle.shortest_base64() > end {
                continue;
            }
            for form in needle.base64() {
                self.find_base64(form, spans);
            }
        }
    }

    fn find_base64(&self, form: &[u8], spans: &mut Vec<Range<usize>>) {
        // what a match has taken in is not looked at again
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&self.octets[from..], form) {
            let at = from + at;
            // its ends belong to it
            let before = self.octets[from..at].iter().rev();
            let before = before.take_while(|it| is_base64(**it)).count();
            let after = self.octets[at..]
                .iter()
                .take_while(|it| is_base64(**it))
                .count();
            spans.push(self.span(at - before..at + after));
            from = at + after;
        }
    }

    /// The views with one more encoding undone, as far as the text has one.
    fn decoded(&self) -> impl Iterator<Item = Self> {
        let decoders: [(u8, Decoder); 3] = [(b'\\', json), (b'%', percent), (b'&', reference)];
        let here = decoders.map(|(mark, decoder)| {
            memchr::memchr(mark, &self.octets).map(|_| self.undone(mark, decoder))
        });
        here.into_iter().flatten()
    }

    fn undone(&self, mark: u8, decoder: Decoder) -> Self {
        let mut octets = Vec::with_capacity(self.octets.len());
        let mut from = Vec::with_capacity(self.octets.len() + 1);
        let mut at = 0;
        while let Some(rest) = self.octets.get(at..).filter(|rest| !rest.is_empty()) {
            let mut buffer = [0; 4];
            let decoded = if rest[0] == mark { decoder(rest) } else { None };
            let (meant, len): (&[u8], usize) = match decoded {
                Some((Meant::Octet(octet), len)) => {
                    buffer[0] = octet;
                    (&buffer[..1], len)
                }
                Some((Meant::Char(c), len)) => (c.encode_utf8(&mut buffer).as_bytes(), len),
                None => (&rest[..1], 1),
            };
            for octet in meant {
                octets.push(*octet);
                from.push(self.origin(at));
            }
            at += len;
        }
        from.push(self.origin(self.octets.len()));
        Self {
            octets,
            from: Some(from),
        }
    }

    fn origin(&self, at: usize) -> usize {
        match &self.from {
            Some(from) => from[at],
            None => at,
        }
    }

    /// The span in the original from which these bytes were decoded.
    fn span(&self, octets: Range<usize>) -> Range<usize> {
        self.origin(octets.start)..self.origin(octets.end)
    }
}

/// The meaning of an escape: one byte or one character.
enum Meant {
    Octet(u8),
    Char(char),
}

/// Reads the escape at the beginning of these bytes; gives its meaning and its length.
type Decoder = fn(&[u8]) -> Option<(Meant, usize)>;

/// RFC 8259 §7.
fn json(octets: &[u8]) -> Option<(Meant, usize)> {
    let octet = match octets.get(1)? {
        b'u' => return Some((Meant::Char(unit(octets.get(2..6)?)?), 6)),
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'f' => 12,
        escaped @ (b'"' | b'\\' | b'/') => *escaped,
        _ => return None,
    };
    Some((Meant::Octet(octet), 2))
}

/// RFC 3986 §2.1.
fn percent(octets: &[u8]) -> Option<(Meant, usize)> {
    let digits = octets.get(1..3)?;
    let digit = |digit: u8| (digit as char).to_digit(16);
    let octet = digit(digits[0])? * 16 + digit(digits[1])?;
    Some((Meant::Octet(u8::try_from(octet).ok()?), 3))
}

/// A character reference of HTML.
fn reference(octets: &[u8]) -> Option<(Meant, usize)> {
    let end = octets
        .iter()
        .take(LONGEST_REFERENCE)
        .position(|it| *it == b';')?;
    let name = std::str::from_utf8(&octets[1..end]).ok()?;
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)?
        }
    };
    Some((Meant::Char(c), end + 1))
}

const LONGEST_REFERENCE: usize = 12;

/// The character of four hexadecimal digits.
fn unit(digits: &[u8]) -> Option<char> {
    let digits = std::str::from_utf8(digits).ok()?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let unit = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
    char::from_u32(unit)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn texts(secrets: &Secrets) -> Vec<&str> {
        secrets.needles().map(|needle| &*needle.text).collect()
    }

    fn of(values: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        for value in values {
            secrets.add(value);
        }
        secrets
    }

    #[test]
    fn the_credentials_of_a_field_are_found() {
        let found = |name: &str, value: &str| {
            let mut secrets = Secrets::default();
            secrets.add_field(name.as_bytes(), value.as_bytes());
            texts(&secrets).join(" | ")
        };
        for (name, value, expected) in [
            ("X-Api-Key", " sk-1234 ", "sk-1234"),
            ("api-key", "abcd", "abcd"),
            ("x-goog-api-key", "abc", ""),
            ("Authorization", "Bearer tok.en", "tok.en"),
            ("authorization", "naked-token", "naked-token"),
            (
                "Authorization",
                "Basic dXNlcjpwYXNzd29yZA==",
                "dXNlcjpwYXNzd29yZA== | user:password | password",
            ),
            (
                "authorization",
                "Basic a2V5LW9mLW1pbmU6",
                "a2V5LW9mLW1pbmU6 | key-of-mine: | key-of-mine",
            ),
            (
                "Authorization",
                "AWS4 Credential=AKIAIOSFODNN7EXAMPLE/2026, Signature=0123456789abcdef0123",
                "Credential=AKIAIOSFODNN7EXAMPLE/2026, Signature=0123456789abcdef0123 | \
                 AKIAIOSFODNN7EXAMPLE/2026 | 0123456789abcdef0123",
            ),
            (
                "Cookie",
                "theme=dark; sid=\"0123456789\"; x",
                "0123456789 | \"0123456789\"",
            ),
            ("user-agent", "sk-1234", ""),
        ] {
            assert_eq!(found(name, value), expected, "{name}: {value}");
        }
        let mut secrets = Secrets::default();
        secrets.add_query("beta=true&key=AIza%2F1&access_token=abcd&x");
        assert_eq!(texts(&secrets).join(" "), "AIza/1 abcd");
        assert_eq!(format!("{secrets:?}"), "Secrets(2)");
    }

    #[test]
    fn thousands_in_one_field_are_bounded() {
        let many = |between: &str| {
            let parts = (0..5_000).map(|at| format!("name=value-of-20-octets-{at:04}"));
            parts.collect::<Vec<_>>().join(between)
        };
        for (name, value) in [
            ("cookie", many("; ")),
            ("authorization", format!("AWS4-HMAC-SHA256 {}", many(", "))),
        ] {
            let mut secrets = Secrets::default();
            secrets.add_field(name.as_bytes(), value.as_bytes());
            assert!((32..100).contains(&secrets.len()), "{name}: {secrets:?}");
        }
        let mut secrets = Secrets::default();
        secrets.add_query(&many("&").replace("name", "key"));
        secrets.add_path(&"/sk-ant-api03-0123456789abcdefABCDEF".repeat(2_000));
        assert!(secrets.len() < 100, "{secrets:?}");
    }

    #[test]
    fn a_run_of_base64_is_one_span() {
        let run = "YWFh".repeat(10_000);
        let view = DecodedView::of(&run);
        let mut spans = Vec::new();
        let secrets = of(&["aaaaaaaa"]);
        view.find(&[&secrets.own[0]], Extent::Whole, &mut spans);
        // one for each form, and not one for each match
        assert!((1..=6).contains(&spans.len()), "{}", spans.len());
        assert_eq!(of(&["aaaaaaaa"]).hide(&run), MASK);
    }

    #[test]
    fn shared_ones_are_hidden_too() {
        let mut secrets = of(&["open sesame"]);
        let shared = Arc::new(of(&["open sesame", "abracadabra"]));
        secrets.share(&shared);
        assert_eq!(secrets.hide("open sesame, abracadabra"), "…, …");
        secrets.share(&Arc::default());
        assert_eq!(secrets.hide("open sesame, abracadabra"), "…, abracadabra");
    }

    #[test]
    fn every_encoding_is_hidden() {
        let secrets = of(&["k<e>y/1+2&3", "open sesame"]);
        for (text, expected) in [
            ("key: open sesame!", "key: …!"),
            ("k<e>y/1+2&3k<e>y/1+2&3", "……"),
            (r"a k\u003ce\u003ey\/1+2\u00263 b", "a … b"),
            (r#""{\"a\":\"k\\u003ce>y/1+2&3\"}""#, r#""{\"a\":\"…\"}""#),
            ("?k=k%3Ce%3ey%2F1%2b2%263&x", "?k=…&x"),
            ("?k=k%253Ce%253Ey%252F1%252B2%25263&x", "?k=…&x"),
            ("<p>k&lt;e&gt;y&#47;1+2&amp;3</p>", "<p>…</p>"),
            ("k&#x3c;e&#x3E;y/1&#43;2&#38;3.", "…."),
            ("open%20sesame", "…"),
            (
                "nothing of it: opensesame & more %20 \\",
                "nothing of it: opensesame & more %20 \\",
            ),
        ] {
            assert_eq!(secrets.hide(text), expected, "{text}");
        }
        assert_eq!(of(&["", " ", "abc"]).hide("abc "), "abc ");
        assert_eq!(secrets.hide_all("x open se", Extent::Cut), "x …");
        assert_eq!(secrets.hide_all("x open se", Extent::Whole), "x open se");
    }

    proptest! {
        #[test]
        fn a_credential_never_survives(
            secret in "[!-~]{6,120}",
            before in "[a-z é]{0,10}",
            after in "[a-z é]{0,10}",
            form in 0usize..8,
        ) {
            let spelt = match form {
                0 => secret.clone(),
                1 => utf8_percent_encode(&secret, NON_ALPHANUMERIC).to_string(),
                2 => secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
                3 => secret.bytes().map(|octet| format!("&#{octet};")).collect(),
                4 => STANDARD.encode(format!("user:{secret}")),
                5 => URL_SAFE_NO_PAD.encode(format!("u:{secret}x")),
                6 => STANDARD.encode(&secret),
                _ => secret.bytes().map(|octet| format!("\\u{octet:04x}")).collect(),
            };
            // too short to be told from other base64
            prop_assume!(!(4..=6).contains(&form) || secret.len() >= 12);
            let text = format!("{before} {spelt} {after}");
            let shown = of(&[&secret]).hide(&text).into_owned();
            prop_assert!(!shown.contains(&spelt), "{}", shown);
            prop_assert_eq!(shown, format!("{before} {MASK} {after}"));
        }

        #[test]
        fn no_text_makes_it_panic(
            words in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec!["\\", "\\u", "%", "%4", "%41", "&", "&#", "&amp;", "&#x41;", "é", "AB"])
                        .prop_map(str::to_owned),
                    ".{0,4}",
                ],
                0..20,
            ),
            secret in ".{0,8}",
        ) {
            let text = words.concat();
            of(&[&secret]).hide_all(&text, Extent::Cut);
        }
    }
}
