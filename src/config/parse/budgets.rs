//! Budgets of memory for held request bodies, compared with each other and with the limits of the process.

use super::reader::Reader;
use crate::config::{memory::MemoryLimits, model::Config, origin::Origin, scalar::InvalidValue};

impl Reader {
    /// One body must fit into the memory for all of them, or it would wait for ever.
    pub(super) fn compare_sizes(
        &mut self,
        (one, largest): (&'static str, u64),
        (all, memory): (&'static str, u64),
    ) {
        if memory < largest && !self.is_faulty(one) && !self.is_faulty(all) {
            let bad = InvalidValue::because(format!(
                "is less than {one}, so the largest body never fits"
            ))
            .hint(format!("raise {all} or lower {one}"));
            self.fault(all, bad);
        }
    }

    /// Lowers the budgets of held bodies to what the process may have, in proportion, and the largest
    /// body of each kind to its budget, or it would wait for ever.
    pub(super) fn bound_memory(&mut self, config: &mut Config, limits: MemoryLimits) {
        let (boot, live) = (&mut config.boot, &mut config.live);
        let asked = boot.edit_memory.saturating_add(boot.replay_memory);
        let Some(room) = limits.for_bodies().filter(|room| *room < asked) else {
            return;
        };
        let part = |budget: u64| {
            let part = u128::from(budget) * u128::from(room) / u128::from(asked);
            // a part is less than the whole
            u64::try_from(part).unwrap_or(budget).max(LEAST_BUDGET)
        };
        let mut lower = |name: &'static str, value: &mut u64, to: u64| {
            let setting = self.merged.setting(name);
            let said = setting.filter(|setting| setting.origin != Origin::Default);
            if let Some(setting) = said.filter(|_| to < *value) {
                let message = format!(
                    "is more than {limits} leaves: using {} KiB; raise the limit or lower {name}",
                    to >> 10
                );
                let origin = setting.origin.clone();
                self.merged.warn(name, origin, message);
            }
            *value = to.min(*value);
        };
        let (edit, replay) = (part(boot.edit_memory), part(boot.replay_memory));
        lower("EDIT_MEMORY", &mut boot.edit_memory, edit);
        lower("REPLAY_MEMORY", &mut boot.replay_memory, replay);
        live.max_held_body = live.max_held_body.min(edit);
        if let Some(it) = &mut live.edit {
            lower("MAX_EDIT_BODY", &mut it.max_body, edit);
        }
        lower("MAX_REPLAY_BODY", &mut live.max_replay_body, replay);
        boot.memory_limit = Some(limits.to_string());
    }
}

/// A budget below this holds no conversation at all.
const LEAST_BUDGET: u64 = 1 << 20;
