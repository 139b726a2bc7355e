//! Stands for `systemd`, where there is none.

use std::sync::Arc;

pub(super) fn ready() {}

pub(super) fn stopping() {}

pub(super) fn reloading() {}

pub(super) fn main_process(_: u32) {}

/// Never asked for.
#[derive(Debug)]
pub(super) enum Watchdog {}

impl Watchdog {
    pub(super) fn asked_for() -> Option<Arc<Self>> {
        None
    }

    pub(super) async fn live(self: Arc<Self>) {
        match *self {}
    }

    pub(super) async fn watch(self: Arc<Self>) {
        match *self {}
    }
}
