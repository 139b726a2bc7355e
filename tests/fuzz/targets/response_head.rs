//! The parser of response heads: it takes a head whole or leaves the octets alone, and never panics.
#![no_main]

use actix_http::Method;
use anthropic_proxy::upstream::http1::parse_head;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for method in [Method::GET, Method::HEAD] {
        let mut buffer = BytesMut::from(input);
        match parse_head(&mut buffer, &method) {
            Ok(Some(found)) => {
                assert!(buffer.len() < input.len());
                let octets: usize = found
                    .head
                    .fields
                    .iter()
                    .map(|field| field.name.len() + field.value.len())
                    .sum();
                assert!(octets <= input.len() - buffer.len());
            }
            Ok(None) => assert_eq!(buffer, input),
            Err(_) => {}
        }
    }
});
