//! TCP, TLS, outbound proxies.
