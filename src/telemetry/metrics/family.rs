//! Metric families: name, unit, help, and the values of their series.

use std::fmt::Result;

use prometheus_client::{
    encoding::{CounterValueEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder},
    registry,
};

/// Name and help of a family. Its unit is appended to the name, and `_total` to that of a counter.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) help: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Unit {
    Seconds,
    Bytes,
    Usd,
}

/// Kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// Value of a counter or gauge.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    Whole(u64),
    Fraction(f64),
}

/// Names and values of a series' labels.
pub(super) type Labels<'a, const L: usize> = [(&'static str, &'a str); L];

impl EncodeCounterValue for Amount {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> Result {
        match self {
            Self::Whole(number) => EncodeCounterValue::encode(number, encoder),
            Self::Fraction(number) => EncodeCounterValue::encode(number, encoder),
        }
    }
}

impl EncodeGaugeValue for Amount {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> Result {
        match self {
            Self::Whole(number) => EncodeGaugeValue::encode(number, encoder),
            Self::Fraction(number) => EncodeGaugeValue::encode(number, encoder),
        }
    }
}

impl From<u64> for Amount {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Amount {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<usize> for Amount {
    fn from(number: usize) -> Self {
        Self::Whole(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

impl From<i64> for Amount {
    fn from(number: i64) -> Self {
        Self::Whole(u64::try_from(number).unwrap_or_default())
    }
}

impl From<f64> for Amount {
    fn from(number: f64) -> Self {
        Self::Fraction(number)
    }
}

impl Unit {
    pub(super) fn registered(self) -> registry::Unit {
        match self {
            Self::Seconds => registry::Unit::Seconds,
            Self::Bytes => registry::Unit::Bytes,
            Self::Usd => registry::Unit::Other("usd".to_owned()),
        }
    }
}
