//! The limiter against a model of it: any interleaving of admissions, progress, settlements, aborts, ends
//! of the process, jumps of the clock, periods, and changes of limits.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::access::{cell::Share, estimate::Estimate, rate::MINUTE};

#[derive(Debug, Clone)]
enum Step {
    Admit {
        octets: u64,
        max_tokens: u64,
    },
    Progress {
        exchange: usize,
        output: u64,
    },
    Settle {
        exchange: usize,
        output: u64,
    },
    Abort {
        exchange: usize,
    },
    Flush,
    /// An end of the process: a clean one, or a kill a second after the ledger was told, or right after.
    End {
        is_clean: bool,
        is_told: bool,
    },
    /// Sets the time of day: seconds after the first one.
    Jump {
        to: u64,
    },
    Pass {
        seconds: u64,
    },
    Budget {
        amount: u64,
    },
    Rate {
        amount: u64,
    },
    Slots {
        amount: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let exchange = any::<usize>();
    prop_oneof![
        8 => (1_u64..5000, 1_u64..500).prop_map(|(octets, max_tokens)| Step::Admit { octets, max_tokens }),
        4 => (exchange, 0_u64..600).prop_map(|(exchange, output)| Step::Progress { exchange, output }),
        4 => (exchange, 0_u64..600).prop_map(|(exchange, output)| Step::Settle { exchange, output }),
        2 => exchange.prop_map(|exchange| Step::Abort { exchange }),
        2 => Just(Step::Flush),
        1 => any::<(bool, bool)>().prop_map(|(is_clean, is_told)| Step::End { is_clean, is_told }),
        1 => (0_u64..2 * DAY).prop_map(|to| Step::Jump { to }),
        3 => (0_u64..40).prop_map(|seconds| Step::Pass { seconds }),
        1 => (1_u64..100_000_000).prop_map(|amount| Step::Budget { amount }),
        1 => (1_u64..30).prop_map(|amount| Step::Rate { amount }),
        1 => (1_u64..5).prop_map(|amount| Step::Slots { amount }),
    ]
}

const DAY: u64 = 86_400;

/// The first second: noon, in UTC.
const START: u64 = 20_000 * DAY + DAY / 2;

/// Spend of one day.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    /// Spend of processes that have ended, as counted.
    before: u64,
    /// Spend of this process.
    spent: u64,
    held: u64,
    /// Real spend of all processes.
    really: u64,
}

struct Running {
    grant: Grant,
    day: u64,
    estimate: Estimate,
    octets: u64,
    share: Share,
}

struct World {
    access: Arc<Access>,
    key: KeyId,
    now: u64,
    is_urgent: Arc<AtomicUsize>,
    running: Vec<Running>,
    // the model
    budget: u64,
    rate: u64,
    slots: u64,
    days: HashMap<u64, Day>,
    full_at: u64,
    largest_budget: u64,
    // the store
    ended: Vec<SpendRow>,
    rows: HashMap<String, SpendRow>,
}

impl World {
    fn new() -> Self {
        let mut records = Records::default();
        let id = KeyId::random().unwrap();
        let full = FullKey::generate(id).unwrap();
        let mut key = record(&pepper(), id, &full, ("ci", Some("core"), None));
        key.limits = vec![
            limit(LimitKind::RequestsPerMinute, 10),
            limit(LimitKind::AtOnce, 3),
        ];
        records.keys.insert(id, key);
        let team = records
            .subjects
            .entry(SubjectId::Team("core".into()))
            .or_default();
        team.limits = vec![daily(50_000_000)];
        let mut world = Self {
            access: Arc::new(access(&records, &[], START)),
            key: id,
            now: START,
            is_urgent: Arc::default(),
            running: Vec::new(),
            budget: 50_000_000,
            rate: 10,
            slots: 3,
            days: HashMap::new(),
            full_at: 0,
            largest_budget: 50_000_000,
            ended: Vec::new(),
            rows: HashMap::new(),
        };
        world.watch();
        world
    }

    fn watch(&mut self) {
        let is_urgent = Arc::new(AtomicUsize::new(0));
        self.is_urgent = Arc::clone(&is_urgent);
        self.access.on_urgent(move || is_urgent.store(1, SeqCst));
    }

    fn steady(&self) -> u64 {
        steady(&self.access).load(SeqCst)
    }

    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.now)
    }

    fn day(&mut self, day: u64) -> &mut Day {
        self.days.entry(day).or_default()
    }

    fn put(&self, change: impl FnOnce(&mut Records)) {
        let mut records = self.access.records();
        change(&mut records);
        for (id, record) in records.subjects {
            self.access.put_subject(&id, record);
        }
        self.access.put_key(&records.keys[&self.key]);
    }

    /// The ledger writes at once when it is woken.
    fn flush_if_urgent(&mut self) {
        if self.is_urgent.swap(0, SeqCst) == 1 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        for row in self.access.take_dirty() {
            self.rows.insert(row.cell.clone(), row);
        }
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        let pick = |exchange: usize, running: &[Running]| {
            (!running.is_empty()).then(|| exchange % running.len())
        };
        match step {
            Step::Admit { octets, max_tokens } => self.admit(octets, max_tokens)?,
            Step::Progress { exchange, output } => {
                if let Some(at) = pick(exchange, &self.running) {
                    self.progress(at, output);
                }
            }
            Step::Settle { exchange, output } => {
                if let Some(at) = pick(exchange, &self.running) {
                    let mut running = self.running.swap_remove(at);
                    let (tokens, cost) = used(&running, output);
                    running.grant.settle(&tokens, Some(cost));
                    self.charge(
                        &mut running,
                        Share {
                            committed: cost,
                            spent: cost,
                        },
                    );
                }
            }
            Step::Abort { exchange } => {
                if let Some(at) = pick(exchange, &self.running) {
                    let mut running = self.running.swap_remove(at);
                    let spent = running.share.spent;
                    self.charge(
                        &mut running,
                        Share {
                            committed: spent,
                            spent,
                        },
                    );
                }
            }
            Step::Flush => self.flush(),
            Step::End { is_clean, is_told } => self.end(is_clean, is_told)?,
            Step::Jump { to } => self.now = START + to,
            Step::Pass { seconds } => {
                self.now = (self.now + seconds).min(START + 2 * DAY);
                steady(&self.access).fetch_add(seconds * 1_000_000_000, SeqCst);
            }
            Step::Budget { amount } => {
                self.budget = amount;
                self.largest_budget = self.largest_budget.max(amount);
                self.put(|records| {
                    records
                        .subjects
                        .values_mut()
                        .for_each(|team| team.limits = vec![daily(amount)]);
                });
            }
            Step::Rate { amount } => {
                self.rate = amount;
                self.put(|records| {
                    records
                        .keys
                        .values_mut()
                        .for_each(|key| key.limits[0].amount = amount)
                });
            }
            Step::Slots { amount } => {
                self.slots = amount;
                self.put(|records| {
                    records
                        .keys
                        .values_mut()
                        .for_each(|key| key.limits[1].amount = amount)
                });
            }
        }
        self.flush_if_urgent();
        self.compare()
    }

    fn admit(&mut self, octets: u64, max_tokens: u64) -> Result<(), TestCaseError> {
        let price = price();
        let asked = Asked {
            octets,
            max_tokens: Some(max_tokens),
            ..generation(&price)
        };
        let key = self.access.key(self.key).unwrap();
        let estimate = Need::new(&self.access.context, &key, &asked).estimate;
        prop_assert!(estimate.output <= max_tokens);
        let admitted = self.access.admit(&key, &asked, self.time());
        // the model: the team's budget, then the key's rate, then its slots
        let (now, steady, budget) = (self.now / DAY, self.steady(), self.budget);
        let day = *self.day(now);
        let left = budget.saturating_sub(day.before + day.spent);
        let hold = if left == 0 {
            Err(RefusalKind::Spend)
        } else if estimate.cost + day.held <= left {
            Ok(estimate.cost)
        } else if day.held == 0 {
            Ok(left)
        } else {
            Err(RefusalKind::SpendReserved)
        };
        let full_at = self.full_at.max(steady) + MINUTE / self.rate;
        let expected = hold.and_then(|hold| match full_at <= steady + MINUTE {
            true => Ok(hold),
            false => Err(RefusalKind::Requests),
        });
        match (admitted, expected) {
            (Admitted::Refused(refusal), Err(kind)) => prop_assert_eq!(refusal.kind, kind),
            (Admitted::Queued(_), Ok(_)) => prop_assert!(self.running.len() as u64 >= self.slots),
            (Admitted::Granted(grant), Ok(hold)) => {
                prop_assert!((self.running.len() as u64) < self.slots);
                self.day(now).held += hold;
                self.full_at = full_at;
                let share = Share {
                    committed: hold,
                    spent: 0,
                };
                self.running.push(Running {
                    grant,
                    day: now,
                    estimate,
                    octets,
                    share,
                });
            }
            (admitted, expected) => prop_assert!(false, "{admitted:?} instead of {expected:?}"),
        }
        Ok(())
    }

    fn progress(&mut self, at: usize, output: u64) {
        let mut running = self.running.swap_remove(at);
        let (tokens, cost) = used(&running, output);
        running.grant.progress(&tokens, Some(cost));
        let spent = cost.max(running.share.spent);
        let to_come =
            running.estimate.output.saturating_sub(output) * running.estimate.output_price;
        self.charge(
            &mut running,
            Share {
                committed: spent + to_come,
                spent,
            },
        );
        self.running.push(running);
    }

    fn charge(&mut self, running: &mut Running, to: Share) {
        let from = std::mem::replace(&mut running.share, to);
        let day = self.day(running.day);
        day.spent = day.spent + to.spent - from.spent;
        day.really = day.really + to.spent - from.spent;
        day.held = day.held + (to.committed - to.spent) - (from.committed - from.spent);
    }

    /// The process ends, and another one starts with what is stored.
    fn end(&mut self, is_clean: bool, is_told: bool) -> Result<(), TestCaseError> {
        if is_told {
            self.flush();
        }
        if is_clean {
            while let Some(mut running) = self.running.pop() {
                let spent = running.share.spent;
                self.charge(
                    &mut running,
                    Share {
                        committed: spent,
                        spent,
                    },
                );
            }
            for row in self.access.close() {
                prop_assert_eq!(row.spent, row.upto);
                self.rows.insert(row.cell.clone(), row);
            }
        }
        self.ended.extend(self.rows.drain().map(|(_, row)| row));
        self.running.clear();
        self.full_at = 0;
        let step = (self.largest_budget / 100).max(1);
        let records = self.access.records();
        self.access = Arc::new(access(&records, &self.ended, self.now));
        self.watch();
        for (day, state) in &mut self.days {
            let at = UNIX_EPOCH + Duration::from_secs(day * DAY);
            let counted = self.access.explain(&SubjectId::Team("core".into()), at)[0].spent;
            let (held, known) = (state.held, state.before + state.spent);
            prop_assert!(counted >= known, "{counted} of {known} are left");
            prop_assert!(counted >= state.really);
            if is_clean {
                prop_assert_eq!(counted, known);
            } else if is_told {
                // the published bound: what is held, and a step
                prop_assert!(
                    counted <= known + held + step,
                    "{counted} for {known} and {held}"
                );
            }
            *state = Day {
                before: counted,
                spent: 0,
                held: 0,
                ..*state
            };
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let (now, running) = (self.now / DAY, self.running.len() as u64);
        let day = *self.day(now);
        let states = self
            .access
            .explain_key(&self.access.key(self.key).unwrap(), self.time());
        prop_assert_eq!(
            (states[0].spent, states[0].held),
            (day.before + day.spent, day.held)
        );
        prop_assert_eq!(states[2].spent, running);
        let used = self.full_at.saturating_sub(self.steady());
        prop_assert_eq!(states[1].spent, used * self.rate / MINUTE);
        Ok(())
    }
}

fn daily(amount: u64) -> LimitRule {
    let kind = LimitKind::Spend {
        period: Period::Day,
        zone: None,
    };
    limit(kind, amount)
}

fn used(running: &Running, output: u64) -> (Tokens, u64) {
    let tokens = tokens(running.octets / 4 + 1, output);
    (tokens, price().of(&tokens))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_limiter_agrees_with_its_model(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step)?;
        }
    }
}
