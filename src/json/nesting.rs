//! Stack of open objects and arrays: one bit a level, on the heap, whatever the depth.

/// Container of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// `[…]`
    Array,
    /// `{…}`
    Object,
}

/// The innermost open containers, one bit each; the others are in `outer`, which the caller keeps.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Nesting {
    /// Number of open containers.
    pub(super) depth: u64,
    /// The innermost levels, the last in the lowest bit; at most 64.
    inner: u64,
}

/// The levels outside of the innermost, by 64.
pub(super) type OuterLevels = Vec<u64>;

impl Nesting {
    /// Opens a container.
    #[inline(always)]
    pub(super) fn enter(&mut self, container: Container, outer: &mut OuterLevels) {
        if self.depth.is_multiple_of(64) && self.depth != 0 {
            outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(container == Container::Object);
        self.depth += 1;
    }

    /// Closes the innermost container.
    #[inline(always)]
    pub(super) fn leave(&mut self, outer: &mut OuterLevels) {
        self.inner >>= 1;
        self.depth -= 1;
        if self.depth.is_multiple_of(64) {
            self.inner = outer.pop().unwrap_or_default();
        }
    }

    /// Innermost container; meaningless when none is open.
    #[inline(always)]
    pub(super) fn container(&self) -> Container {
        if self.inner & 1 == 1 {
            Container::Object
        } else {
            Container::Array
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_come_back_in_order_and_cost_a_bit_each() {
        let container = |level: u64| {
            if level.is_multiple_of(3) {
                Container::Object
            } else {
                Container::Array
            }
        };
        let (mut nesting, mut outer) = (Nesting::default(), OuterLevels::new());
        // as deep as MAX_EDIT_BODY allows by default
        let depth = 32 * 1024 * 1024 / if cfg!(debug_assertions) { 32 } else { 1 };
        for level in 0..depth {
            nesting.enter(container(level), &mut outer);
        }
        assert_eq!(nesting.depth, depth);
        assert!(outer.capacity() as u64 * 64 <= 2 * depth);
        for level in (0..depth).rev() {
            assert_eq!(nesting.container(), container(level));
            nesting.leave(&mut outer);
        }
        assert_eq!(nesting.depth, 0);
        assert!(outer.is_empty());
    }
}
