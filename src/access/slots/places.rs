//! Slots of a process as one number, so that those that may run and those that do change together.

/// Slots of a process: those that may run, and those that do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) most: u32,
    pub(super) running: u32,
}

impl Places {
    pub(super) const fn of(packed: u64) -> Self {
        Self {
            most: (packed >> 32) as u32,
            running: packed as u32,
        }
    }

    pub(super) const fn packed(self) -> u64 {
        (self.most as u64) << 32 | self.running as u64
    }

    pub(super) fn taken(self) -> Option<Self> {
        let running = self.running + 1;
        (self.running < self.most).then_some(Self { running, ..self })
    }
}

/// A number of slots: four billion are as good as any number.
pub(super) fn narrow(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
