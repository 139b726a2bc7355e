//! Settings of traces, by the names of OpenTelemetry.

use super::{
    otlp::OtlpReceiver,
    scalar::{InvalidValue, choice},
};

/// Traces that are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// Receiver of them.
    pub receiver: OtlpReceiver,
    /// Choice of exchanges.
    pub sampler: Sampler,
}

/// Choice of the exchanges that are traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// True if the choice of the client counts, where it has made one.
    pub follows_parent: bool,
    /// Share of the others.
    pub ratio: f64,
}

impl Sampler {
    /// Decides on a trace, whose parent was sampled or not; none without a parent.
    pub fn samples(&self, trace: &[u8; 16], is_parent_sampled: Option<bool>) -> bool {
        match is_parent_sampled {
            Some(is_sampled) if self.follows_parent => is_sampled,
            // by the end of its id, so that all programs choose the same traces
            _ => {
                let [.., a, b, c, d, e, f, g, h] = *trace;
                let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
                self.ratio >= 1.0 || (place as f64) < self.ratio * (1_u64 << 63) as f64
            }
        }
    }
}

/// A sampler by its name; its share is set by another variable.
pub(super) fn sampler(text: &str) -> Result<SamplerName, InvalidValue> {
    choice(
        text,
        &[
            ("always_on", SamplerName::new(false, Some(1.0))),
            ("always_off", SamplerName::new(false, Some(0.0))),
            ("traceidratio", SamplerName::new(false, None)),
            ("parentbased_always_on", SamplerName::new(true, Some(1.0))),
            ("parentbased_always_off", SamplerName::new(true, Some(0.0))),
            ("parentbased_traceidratio", SamplerName::new(true, None)),
        ],
    )
}

/// Name of a sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SamplerName {
    follows_parent: bool,
    /// None: it is set by another variable.
    ratio: Option<f64>,
}

impl SamplerName {
    const fn new(follows_parent: bool, ratio: Option<f64>) -> Self {
        Self {
            follows_parent,
            ratio,
        }
    }

    /// The sampler with this share, if it has none of its own.
    pub(super) fn with(self, ratio: f64) -> Sampler {
        Sampler {
            follows_parent: self.follows_parent,
            ratio: self.ratio.unwrap_or(ratio),
        }
    }
}

/// A share from 0 to 1.
pub(super) fn ratio(text: &str) -> Result<f64, InvalidValue> {
    match text.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(InvalidValue::because("is no share from 0 to 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_traces_is_sampled_and_a_parent_decides() {
        let half = sampler("parentbased_traceidratio").unwrap().with(0.5);
        let (low, high) = ([0; 16], [0xff; 16]);
        assert!(half.samples(&low, None) && !half.samples(&high, None));
        assert!(half.samples(&high, Some(true)) && !half.samples(&low, Some(false)));
        let own = sampler("traceidratio").unwrap().with(0.5);
        assert!(!own.samples(&high, Some(true)) && own.samples(&low, Some(false)));
        let on = sampler("parentbased_always_on").unwrap().with(0.0);
        assert!(on.samples(&high, None) && !on.samples(&high, Some(false)));
        let off = sampler("always_off").unwrap().with(1.0);
        assert!(!off.samples(&low, None) && !off.samples(&low, Some(true)));
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!(ratio(" 0.25 ").unwrap(), 0.25);
        assert!(ratio("1.1").is_err() && ratio("x").is_err() && ratio("-1").is_err());
    }
}
