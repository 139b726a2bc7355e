//! Prices of the models that one worker met of late: nearly all of its requests are for the same few.

use std::{cell::RefCell, sync::Arc};

use super::{Price, Prices};
use crate::exchange::Usage;

/// Prices with the places of those that were asked for last, for one thread.
#[derive(Debug, Default)]
pub struct RecentPrices {
    prices: Arc<Prices>,
    /// The oldest first.
    recent: RefCell<Vec<(Box<str>, Option<usize>)>>,
}

impl RecentPrices {
    /// Prices of which none was asked for.
    pub fn new(prices: &Arc<Prices>) -> Self {
        Self {
            prices: Arc::clone(prices),
            recent: RefCell::default(),
        }
    }

    /// Reports whether they are these prices.
    pub fn is_of(&self, prices: &Arc<Prices>) -> bool {
        Arc::ptr_eq(&self.prices, prices)
    }

    /// The price of a model, as [`Prices::of`] gives it.
    pub fn of(&self, model: &str) -> Option<&Price> {
        let known = {
            let recent = self.recent.borrow();
            let known = recent.iter().find(|(known, _)| **known == *model);
            known.map(|(_, place)| *place)
        };
        let place = match known {
            Some(place) => place,
            None => self.look_up(model),
        };
        self.prices.at(place?)
    }

    /// As [`Prices::apply`].
    pub fn apply(&self, usage: &mut Usage) {
        let price = usage.model.as_deref().and_then(|model| self.of(model));
        self.prices.apply_with(price, usage);
    }

    #[cold]
    fn look_up(&self, model: &str) -> Option<usize> {
        let place = self.prices.place_of(model);
        if model.len() <= LONGEST {
            let mut recent = self.recent.borrow_mut();
            if recent.len() == MOST {
                recent.remove(0);
            }
            recent.push((model.into(), place));
        }
        place
    }
}

/// Models that are kept, and bytes of a name: names are a client's to choose.
const MOST: usize = 8;
const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_those_of_the_table_however_often_they_are_asked_for() {
        let prices = Arc::new(Prices::built_in());
        let recent = RecentPrices::new(&prices);
        assert!(recent.is_of(&prices) && !recent.is_of(&Arc::default()));
        let long = "claude-opus-4-5".to_owned() + &"-x".repeat(LONGEST);
        let strange: Vec<String> = (0..MOST)
            .map(|n| format!("claude-sonnet-4-5-{n}x"))
            .collect();
        let names = [
            "claude-opus-4-5",
            "",
            "gpt",
            "anthropic/claude-opus-4.5",
            &long,
        ];
        for _ in 0..2 {
            for name in names.into_iter().chain(strange.iter().map(String::as_str)) {
                for _ in 0..2 {
                    assert_eq!(recent.of(name), prices.of(name), "{name}");
                }
            }
            assert!(recent.recent.borrow().len() <= MOST);
        }
        let usage = |model: &str| Usage {
            model: Some(model.into()),
            tokens: crate::exchange::Tokens {
                output: 1000,
                ..Default::default()
            },
            ..Usage::default()
        };
        let (mut one, mut other) = (usage("claude-opus-4-5"), usage("claude-opus-4-5"));
        recent.apply(&mut one);
        prices.apply(&mut other);
        assert!(one.cost.is_some());
        assert_eq!(one, other);
    }
}
