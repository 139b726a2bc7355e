//! Names of models: as Anthropic spells them, and where one may be cut.

/// A name as Anthropic spells it, from the spelling of a provider: in lower case, without the provider and
/// its region (`us.anthropic.…`, `anthropic/…`, an ARN), with `-` for `@` and for the point of a version, and
/// without Bedrock's version or a variant behind a colon.
///
/// ```
/// # use anthropic_proxy::config::prices::canonical;
/// for spelling in ["us.anthropic.claude-opus-4-5-20251101-v1:0", "anthropic/claude-opus-4.5-20251101:beta"] {
///     assert_eq!(canonical(spelling), "claude-opus-4-5-20251101");
/// }
/// ```
pub fn canonical(model: &str) -> String {
    let mut name = model.trim().to_ascii_lowercase();
    if let Some(at) = name.rfind('/') {
        name.drain(..=at);
    }
    if let Some(at) = name.find("anthropic.") {
        name.drain(..at + "anthropic.".len());
    }
    if let Some(at) = name.find(':') {
        name.truncate(at);
        let version = name.rfind("-v").map(|at| (at, name.get(at + 2..)));
        if let Some((at, Some(digits))) = version
            && !digits.is_empty()
            && digits.bytes().all(|octet| octet.is_ascii_digit())
        {
            name.truncate(at);
        }
    }
    name.replace(['@', '.'], "-")
}

/// True if the beginning of a name up to here may stand for the whole: it ends within no character, number or
/// version.
pub(super) fn may_end(model: &str, end: usize) -> bool {
    let is_digit = |at: usize| model.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    model.is_char_boundary(end)
        && !(is_digit(end - 1) && (is_digit(end) || begins_with_version(&model[end..])))
}

/// Reports that the rest of a name begins with `-` or `.` and a number that is no date.
fn begins_with_version(rest: &str) -> bool {
    let number = rest.strip_prefix(['-', '.']).unwrap_or_default();
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    (1..6).contains(&digits)
}
