//! Metric families in the exposition: name, help and series, one family at a time.
//!
//! The encoding (suffixes, escapes, cumulated buckets) is prometheus-client's.

use std::fmt::{Error, Result};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet},
    metrics::MetricType,
    registry,
};

use super::histogram::{Bounds, Histogram};

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

/// Names and values of a series' labels.
pub(super) type Labels<'a, const L: usize> = [(&'static str, &'a str); L];

/// Writes families.
pub(super) struct FamilyWriter<'a>(pub(super) DescriptorEncoder<'a>);

impl FamilyWriter<'_> {
    pub(super) fn counter(&mut self, family: &Family, value: impl EncodeCounterValue) -> Result {
        self.counters(family, [([], value)])
    }

    pub(super) fn counters<'v, V: EncodeCounterValue, const L: usize>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Labels<'v, L>, V)>,
    ) -> Result {
        self.family(family, MetricType::Counter, |encoder| {
            series.into_iter().try_for_each(|(labels, value)| {
                encoder
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&value, None)
            })
        })
    }

    pub(super) fn gauge(&mut self, family: &Family, value: impl EncodeGaugeValue) -> Result {
        self.gauges(family, [([], value)])
    }

    pub(super) fn gauges<'v, V: EncodeGaugeValue, const L: usize>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Labels<'v, L>, V)>,
    ) -> Result {
        self.family(family, MetricType::Gauge, |encoder| {
            series.into_iter().try_for_each(|(labels, value)| {
                encoder.encode_family(&labels)?.encode_gauge(&value)
            })
        })
    }

    pub(super) fn info<const L: usize>(
        &mut self,
        family: &Family,
        labels: Labels<'_, L>,
    ) -> Result {
        self.family(family, MetricType::Info, |encoder| {
            encoder.encode_info(&labels)
        })
    }

    pub(super) fn histograms<'v, const L: usize, const N: usize>(
        &mut self,
        family: &Family,
        bounds: &Bounds<N>,
        series: impl IntoIterator<Item = (Labels<'v, L>, &'v Histogram<N>)>,
    ) -> Result {
        self.family(family, MetricType::Histogram, |encoder| {
            series.into_iter().try_for_each(|(labels, histogram)| {
                let read = histogram.read(bounds);
                encoder
                    .encode_family(&labels)?
                    .encode_histogram::<NoLabelSet>(read.sum, read.count, &read.buckets, None)
            })
        })
    }

    fn family(
        &mut self,
        family: &Family,
        kind: MetricType,
        series: impl FnOnce(&mut prometheus_client::encoding::MetricEncoder<'_>) -> Result,
    ) -> std::result::Result<(), Error> {
        let unit = family.unit.map(Unit::registered);
        let mut encoder =
            self.0
                .encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
        series(&mut encoder)
    }
}

impl Unit {
    fn registered(self) -> registry::Unit {
        match self {
            Self::Seconds => registry::Unit::Seconds,
            Self::Bytes => registry::Unit::Bytes,
            Self::Usd => registry::Unit::Other("usd".to_owned()),
        }
    }
}
