//! Text of an IP address, without the machinery of formatting: each request has one in `X-Forwarded-For`.

use std::{
    fmt::{self, Write},
    net::IpAddr,
};

/// Text of an IP address, as its `Display` gives it.
#[derive(Clone, Copy)]
pub struct AddressText {
    octets: [u8; LONGEST],
    length: usize,
}

impl AddressText {
    /// The text of an address.
    pub fn of(address: IpAddr) -> Self {
        let mut text = Self {
            octets: [0; LONGEST],
            length: 0,
        };
        match address {
            IpAddr::V4(address) => {
                for (at, number) in address.octets().into_iter().enumerate() {
                    if at > 0 {
                        text.push(b".");
                    }
                    text.push(itoa::Buffer::new().format(number).as_bytes());
                }
            }
            IpAddr::V6(address) => {
                // there is room for each
                let _ = write!(text, "{address}");
            }
        }
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.octets
            .get(..self.length)
            .and_then(|octets| str::from_utf8(octets).ok())
            .unwrap_or_default()
    }

    /// The text as octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, part: &[u8]) {
        for (to, from) in self.octets.iter_mut().skip(self.length).zip(part) {
            *to = *from;
            self.length += 1;
        }
    }
}

impl Write for AddressText {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.push(part.as_bytes());
        Ok(())
    }
}

/// Octets of the longest: one of IPv6 that ends as one of IPv4.
const LONGEST: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn addresses_are_written_in_full() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "2001:db8::5",
            "::ffff:255.255.255.255",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            let text = AddressText::of(address.parse().unwrap());
            assert_eq!(
                (text.as_str(), text.as_bytes()),
                (address, address.as_bytes())
            );
        }
    }

    proptest! {
        #[test]
        fn each_is_written_as_it_is_shown(address in any::<IpAddr>()) {
            let text = AddressText::of(address);
            prop_assert_eq!(text.as_str(), address.to_string());
        }
    }
}
