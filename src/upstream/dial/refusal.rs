//! Refusals by an outbound proxy: its answer to CONNECT in words, and their kind.
//!
//! Status, title, origin of the target and names of schemes are kept of its answer: bounded, in one line.
//! Nothing repeats what was sent to it, since that holds credentials.

use std::{fmt, io, time::Duration};

use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_socks::Error::{
    AuthorizationRequired, ConnectionNotAllowedByRuleset, InvalidAuthValues, InvalidReservedByte,
    InvalidResponseVersion, NoAcceptableAuthMethods, PasswordAuthFailure, UnknownAddressType,
    UnknownAuthMethod,
};

use crate::{
    error::{ProxyFault, UpstreamError},
    wire::page,
};

/// Failures between this proxy and the outbound proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutboundProxyError {
    #[error("the outbound proxy answered CONNECT with {0}")]
    Refused(Box<ConnectAnswer>),
    #[error("the outbound proxy closed the connection without an answer to CONNECT")]
    Closed,
    #[error("the outbound proxy's answer to CONNECT is not HTTP")]
    Malformed,
    #[error("the head of the outbound proxy's answer to CONNECT is larger than 16 KiB")]
    HeadTooLarge,
    #[error("unexpected bytes after the outbound proxy's answer to CONNECT")]
    EarlyOctets,
    #[error("the connection to the outbound proxy failed")]
    Io(#[from] io::Error),
    #[error("the outbound SOCKS5 proxy did not connect")]
    Socks(#[from] tokio_socks::Error),
    /// The answer to a request in absolute-form.
    #[error("the outbound proxy answered with status 407{0}")]
    Challenge(Schemes),
}

impl From<OutboundProxyError> for UpstreamError {
    fn from(error: OutboundProxyError) -> Self {
        let fault = match &error {
            OutboundProxyError::Refused(answer) => match answer.status {
                407 => answer.schemes.fault(),
                403 => ProxyFault::Policy,
                _ => ProxyFault::Other,
            },
            OutboundProxyError::Challenge(schemes) => schemes.fault(),
            OutboundProxyError::Socks(
                AuthorizationRequired | NoAcceptableAuthMethods | PasswordAuthFailure(_),
            ) => ProxyFault::Login,
            OutboundProxyError::Socks(ConnectionNotAllowedByRuleset) => ProxyFault::Policy,
            // an HTTP proxy hangs up on it
            OutboundProxyError::Socks(tokio_socks::Error::Io(error))
                if error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                ProxyFault::Protocol
            }
            OutboundProxyError::Closed
            | OutboundProxyError::Malformed
            | OutboundProxyError::Socks(
                InvalidResponseVersion
                | InvalidReservedByte
                | InvalidAuthValues(_)
                | UnknownAddressType
                | UnknownAuthMethod,
            ) => ProxyFault::Protocol,
            OutboundProxyError::HeadTooLarge
            | OutboundProxyError::EarlyOctets
            | OutboundProxyError::Io(_)
            | OutboundProxyError::Socks(_) => ProxyFault::Other,
        };
        Self::ProxyConnectionRefused(fault, io::Error::other(error))
    }
}

/// The failure of a request in absolute-form to which the outbound proxy answered with 407 and these values of
/// `Proxy-Authenticate`.
pub fn proxy_challenge<'a>(challenges: impl Iterator<Item = &'a [u8]>) -> UpstreamError {
    OutboundProxyError::Challenge(Schemes::of(challenges)).into()
}

/// Answer to CONNECT, as far as it is told.
#[derive(Debug)]
pub(super) struct ConnectAnswer {
    status: u16,
    /// Title of its page.
    title: Option<String>,
    /// Origin of its `Location`.
    location: Option<String>,
    schemes: Schemes,
}

impl fmt::Display for ConnectAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        if let Some(origin) = &self.location {
            write!(f, ", which leads to {origin}")?;
        }
        if let Some(title) = &self.title {
            write!(f, ", a page titled {title:?}")?;
        }
        write!(f, "{}", self.schemes)
    }
}

/// Schemes of authentication that a proxy offers (RFC 9110 §11.7.1).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Schemes(Vec<String>);

impl Schemes {
    /// The first word of each challenge. Several in one field are told from parameters by their missing `=`.
    fn of<'a>(challenges: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut found = Vec::new();
        for challenge in challenges {
            let text = String::from_utf8_lossy(challenge);
            for part in text.split(',') {
                let word = part.split_whitespace().next().unwrap_or_default();
                let is_token = |it: char| it.is_ascii_alphanumeric() || it == '-';
                let is_scheme = (1..=20).contains(&word.len()) && word.chars().all(is_token);
                if is_scheme && found.len() < 8 && !found.iter().any(|it| it == word) {
                    found.push(word.to_owned());
                }
            }
        }
        Self(found)
    }

    /// Without Basic, a user and password are in vain.
    fn fault(&self) -> ProxyFault {
        let is_basic = |it: &String| it.eq_ignore_ascii_case("basic");
        match self.0.is_empty() || self.0.iter().any(is_basic) {
            true => ProxyFault::Login,
            false => ProxyFault::Scheme,
        }
    }
}

impl fmt::Display for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => Ok(()),
            false => write!(f, ", and offers {}", self.0.join(", ")),
        }
    }
}

/// Reads what tells of a refusal: fields of the head, and the title of its page.
pub(super) async fn refused(
    tcp: &mut TcpStream,
    status: u16,
    fields: &[httparse::Header<'_>],
) -> OutboundProxyError {
    let of = |name: &'static str| {
        let fields = fields.iter();
        let named = fields.filter(move |it| it.name.eq_ignore_ascii_case(name));
        named.map(|it| it.value)
    };
    let text = |name| of(name).next().map(String::from_utf8_lossy);
    let location = text("location").and_then(|it| page::origin(&it));
    let schemes = match status {
        407 => Schemes::of(of("proxy-authenticate")),
        _ => Schemes::default(),
    };
    let is_html = text("content-type").is_some_and(|it| it.to_ascii_lowercase().contains("html"));
    let title = match is_html && status != 407 {
        true => title(tcp).await,
        false => None,
    };
    OutboundProxyError::Refused(Box::new(ConnectAnswer {
        status,
        title,
        location,
        schemes,
    }))
}

/// The title of a page that may still be on its way.
async fn title(tcp: &mut TcpStream) -> Option<String> {
    let mut page = Vec::new();
    let read = async {
        while page.len() < LARGEST_PAGE && !has_title(&page) {
            match tcp.read_buf(&mut page).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    // one that is late or endless is judged by its beginning
    let _ = timeout(PAGE_TIME, read).await;
    page::title(&page)
}

fn has_title(page: &[u8]) -> bool {
    memchr::memmem::find(&page.to_ascii_lowercase(), b"</title").is_some()
}

/// Octets of a page that are read.
const LARGEST_PAGE: usize = 16 * 1024;
/// Time for them.
const PAGE_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_the_words_before_parameters() {
        let of = |challenges: &[&str]| Schemes::of(challenges.iter().map(|it| it.as_bytes()));
        for (challenges, told, fault) in [
            (&[][..], "", ProxyFault::Login),
            (
                &["Basic realm=\"hunter2, x=y\""],
                ", and offers Basic",
                ProxyFault::Login,
            ),
            (
                &["Negotiate", "NTLM"],
                ", and offers Negotiate, NTLM",
                ProxyFault::Scheme,
            ),
            (
                &["NTLM, basic realm=hunter2"],
                ", and offers NTLM, basic",
                ProxyFault::Login,
            ),
            (
                &["Negotiate TlRMTVNTUAAC=="],
                ", and offers Negotiate",
                ProxyFault::Scheme,
            ),
            (&["\u{1b}[1m hunter2=x"], "", ProxyFault::Login),
        ] {
            let schemes = of(challenges);
            assert_eq!(schemes.to_string(), told, "{challenges:?}");
            assert_eq!(schemes.fault(), fault, "{challenges:?}");
        }
    }
}
