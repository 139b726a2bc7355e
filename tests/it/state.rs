//! Several replicas on one Redis. Most of it needs a redis-server: `cargo test -- --ignored`, or
//! `.ci/run state`.

mod absence;
mod bounds;
mod fleet;
mod replica;
mod replicas;
mod tls;
