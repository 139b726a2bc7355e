//! Writes metric families, one at a time, into the exposition or into a message of OTLP.
//!
//! The encoding of the exposition (suffixes, escapes, cumulated buckets) is prometheus-client's.

use std::fmt::Result;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    family::{Amount, Family, FamilyKind, Labels, Unit},
    histogram::{Bounds, Histogram, HistogramReading},
    message::{MessageWriter, Points},
};

/// Writes families.
pub(super) enum FamilyWriter<'a> {
    /// Into an exposition.
    Exposition(DescriptorEncoder<'a>),
    /// Into a message of OTLP.
    Message(MessageWriter<'a>),
}

/// The series of one family.
enum OpenFamily<'a> {
    Exposition(MetricEncoder<'a>),
    Message(Points<'a>),
}

impl FamilyWriter<'_> {
    pub(super) fn counter(&mut self, family: &Family, value: impl Into<Amount>) -> Result {
        self.counters(family, [([], value)])
    }

    pub(super) fn counters<'v, V: Into<Amount>, const L: usize>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Labels<'v, L>, V)>,
    ) -> Result {
        self.numbers(family, FamilyKind::Counter, series)
    }

    pub(super) fn gauge(&mut self, family: &Family, value: impl Into<Amount>) -> Result {
        self.gauges(family, [([], value)])
    }

    pub(super) fn gauges<'v, V: Into<Amount>, const L: usize>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Labels<'v, L>, V)>,
    ) -> Result {
        self.numbers(family, FamilyKind::Gauge, series)
    }

    pub(super) fn info<const L: usize>(
        &mut self,
        family: &Family,
        labels: Labels<'_, L>,
    ) -> Result {
        self.family(family, FamilyKind::Info, &mut |out| match out {
            OpenFamily::Exposition(encoder) => encoder.encode_info(&labels),
            OpenFamily::Message(points) => {
                points.number(&labels, Amount::Whole(1));
                Ok(())
            }
        })
    }

    pub(super) fn histograms<'v, const L: usize, const N: usize>(
        &mut self,
        family: &Family,
        bounds: &Bounds<N>,
        series: impl IntoIterator<Item = (Labels<'v, L>, &'v Histogram<N>)>,
    ) -> Result {
        let mut series = series.into_iter();
        self.family(family, FamilyKind::Histogram, &mut |out| {
            series
                .try_for_each(|(labels, histogram)| out.histogram(&labels, &histogram.read(bounds)))
        })
    }

    fn numbers<'v, V: Into<Amount>, const L: usize>(
        &mut self,
        family: &Family,
        kind: FamilyKind,
        series: impl IntoIterator<Item = (Labels<'v, L>, V)>,
    ) -> Result {
        let mut series = series.into_iter();
        self.family(family, kind, &mut |out| {
            series.try_for_each(|(labels, value)| out.number(&labels, kind, value.into()))
        })
    }

    fn family(
        &mut self,
        family: &Family,
        kind: FamilyKind,
        write: &mut dyn FnMut(&mut OpenFamily<'_>) -> Result,
    ) -> Result {
        match self {
            Self::Exposition(encoder) => {
                let unit = family.unit.map(Unit::registered);
                let kind = match kind {
                    FamilyKind::Counter => MetricType::Counter,
                    FamilyKind::Gauge => MetricType::Gauge,
                    FamilyKind::Histogram => MetricType::Histogram,
                    FamilyKind::Info => MetricType::Info,
                };
                let encoder =
                    encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
                write(&mut OpenFamily::Exposition(encoder))
            }
            Self::Message(message) => {
                write(&mut OpenFamily::Message(message.points(kind)))?;
                message.end(family, kind);
                Ok(())
            }
        }
    }
}

impl OpenFamily<'_> {
    fn number(
        &mut self,
        labels: &[(&'static str, &str)],
        kind: FamilyKind,
        amount: Amount,
    ) -> Result {
        match self {
            Self::Exposition(encoder) => {
                let mut encoder = encoder.encode_family(&labels)?;
                match kind {
                    FamilyKind::Counter => {
                        encoder.encode_counter::<NoLabelSet, _, f64>(&amount, None)
                    }
                    _ => encoder.encode_gauge(&amount),
                }
            }
            Self::Message(points) => {
                points.number(labels, amount);
                Ok(())
            }
        }
    }

    fn histogram(&mut self, labels: &[(&'static str, &str)], reading: &HistogramReading) -> Result {
        match self {
            Self::Exposition(encoder) => encoder
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(reading.sum, reading.count, &reading.buckets, None),
            Self::Message(points) => {
                points.histogram(labels, reading);
                Ok(())
            }
        }
    }
}
