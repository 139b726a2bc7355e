//! Facts of a certificate that webpki does not tell: names and validity (RFC 5280 §4.1).
//!
//! A reader of the few members of DER that are shown. It judges nothing: a chain is verified by rustls.

use std::{fmt::Write as _, net::IpAddr};

use jiff::{civil::Date, tz::TimeZone};

/// Facts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Name of its holder.
    pub subject: String,
    /// Name of the authority that signed it.
    pub issuer: String,
    /// Begin of its validity, in Unix seconds.
    pub begins: i64,
    /// End of its validity, in Unix seconds.
    pub ends: i64,
    /// Names and addresses that it is for, at most 20 of them.
    pub names: Vec<String>,
}

/// Days before its end from which a certificate is a warning.
pub const CERTIFICATE_ENDS_SOON: i64 = 14;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
/// `[0]`, the version.
const VERSION: u8 = 0xa0;
/// `[3]`, the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[2]` and `[7]` of a GeneralName.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// subjectAltName (2.5.29.17).
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 29, 17];
/// Names that are read.
const MOST_NAMES: usize = 20;

/// commonName and organizationName (2.5.4.3, 2.5.4.10).
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];

impl CertificateFacts {
    /// Reads a certificate in DER; none if it is not one.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut outer = Der(Der(der).value(SEQUENCE)?);
        let mut body = Der(outer.value(SEQUENCE)?);
        if body.peek() == Some(VERSION) {
            body.value(VERSION)?;
        }
        body.value(INTEGER)?;
        body.value(SEQUENCE)?;
        let issuer = name(body.value(SEQUENCE)?);
        let mut validity = Der(body.value(SEQUENCE)?);
        let (begins, ends) = (validity.time()?, validity.time()?);
        let subject = name(body.value(SEQUENCE)?);
        Some(Self {
            subject,
            issuer,
            begins,
            ends,
            names: names(body).unwrap_or_default(),
        })
    }

    /// Days until its end; negative after it.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.ends - now).div_euclid(86_400)
    }
}

/// Octets that are read from the front.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: its tag and its content.
    fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let octets = usize::from(first & 0x7f);
            if octets == 0 || octets > 4 {
                return None;
            }
            let (long, after) = rest.split_at_checked(octets)?;
            length = long.iter().fold(0, |sum, &it| sum << 8 | usize::from(it));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content))
    }

    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.element()?;
        (found == tag).then_some(content)
    }

    /// A time, in Unix seconds.
    fn time(&mut self) -> Option<i64> {
        let (tag, content) = self.element()?;
        let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                let year: i16 = year.parse().ok()?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (year.parse().ok()?, rest)
            }
            _ => return None,
        };
        let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
        let date = Date::new(year, two(0)?, two(2)?).ok()?;
        let time = jiff::civil::Time::new(two(4)?, two(6)?, two(8)?, 0).ok()?;
        let moment = date.to_datetime(time).to_zoned(TimeZone::UTC).ok()?;
        Some(moment.timestamp().as_second())
    }
}

/// Names of the extension subjectAltName (RFC 5280 §4.2.1.6), after the subject.
fn names(mut body: Der<'_>) -> Option<Vec<String>> {
    // behind the key, and ids that nothing has any more
    let extensions = loop {
        let (tag, content) = body.element()?;
        if tag == EXTENSIONS {
            break content;
        }
    };
    let mut extensions = Der(Der(extensions).value(SEQUENCE)?);
    while let Some(extension) = extensions.value(SEQUENCE) {
        let mut extension = Der(extension);
        if extension.value(OBJECT)? != ALTERNATIVE_NAMES {
            continue;
        }
        if extension.peek() == Some(BOOLEAN) {
            extension.value(BOOLEAN)?;
        }
        let mut names = Der(Der(extension.value(OCTETS)?).value(SEQUENCE)?);
        let mut found = Vec::new();
        while let (Some((tag, content)), true) = (names.element(), found.len() < MOST_NAMES) {
            match tag {
                DNS_NAME => found.push(text(tag, content)),
                IP_ADDRESS => found.extend(address(content)),
                _ => {}
            }
        }
        return Some(found);
    }
    None
}

fn address(content: &[u8]) -> Option<String> {
    let address = match content.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(content).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(content).ok()?),
        _ => return None,
    };
    Some(address.to_string())
}

/// Common name and organization of a Name, as far as it has them.
fn name(content: &[u8]) -> String {
    let (mut common, mut organization) = (None, None);
    let mut sets = Der(content);
    while let Some(set) = sets.value(SET) {
        let mut attributes = Der(set);
        while let Some(attribute) = attributes.value(SEQUENCE) {
            let mut attribute = Der(attribute);
            let kind = attribute.value(OBJECT);
            let text = attribute.element().map(|(tag, content)| text(tag, content));
            match kind {
                Some(COMMON_NAME) => common = text,
                Some(ORGANIZATION) => organization = text,
                _ => {}
            }
        }
    }
    match (common, organization) {
        (Some(common), Some(organization)) if common != organization => {
            format!("{common} ({organization})")
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => "(no name)".to_owned(),
    }
}

/// A text of a name, without control characters.
fn text(tag: u8, content: &[u8]) -> String {
    const BMP: u8 = 0x1e;
    let text = match tag {
        BMP => {
            let units: Vec<u16> = content
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                .collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(content).into_owned(),
    };
    let mut shown = String::new();
    for character in text.chars().take(100) {
        match character.is_control() {
            true => shown.push('?'),
            false => {
                let _ = write!(shown, "{character}");
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = [
        "upstream.test",
        "*.upstream.test",
        "192.0.2.7",
        "2001:db8::1",
    ];

    fn certificate(year: i32) -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, "Zscaler \u{e9} Root");
        name.push(rcgen::DnType::OrganizationName, "Corp");
        params.distinguished_name = name;
        params.not_before = rcgen::date_time_ymd(2020, 2, 29);
        params.not_after = rcgen::date_time_ymd(year, 1, 2);
        params
    }

    #[test]
    fn names_and_validity_are_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (year, ends) in [(2030, 1_893_542_400), (2060, 2_840_227_200_i64)] {
            let made = certificate(year).self_signed(&key).unwrap();
            let facts = CertificateFacts::read(made.der()).unwrap();
            assert_eq!(facts.subject, "Zscaler é Root (Corp)");
            assert_eq!(facts.issuer, facts.subject);
            assert_eq!(facts.names, NAMES);
            assert_eq!(facts.begins, 1_582_934_400);
            assert_eq!(facts.ends, ends);
            assert_eq!(facts.days_left(ends - 86_400), 1);
            assert_eq!(facts.days_left(ends + 1), -1);
        }
    }

    #[test]
    fn no_part_of_a_certificate_is_one() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = certificate(2030).self_signed(&key).unwrap();
        for length in 0..made.der().len() {
            assert_eq!(CertificateFacts::read(&made.der()[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(octets: Vec<u8>, at: usize, value: u8) {
            let _ = CertificateFacts::read(&octets);
            let key = rcgen::KeyPair::generate().unwrap();
            let mut der = certificate(2030).self_signed(&key).unwrap().der().to_vec();
            let at = at % der.len();
            der[at] = value;
            let _ = CertificateFacts::read(&der);
        }
    }
}
