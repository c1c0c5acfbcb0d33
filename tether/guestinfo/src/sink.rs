//! Sinks: where the pairs of a report go.

use crate::rpci::{RpciSink, RpciSource, VsockSink, VsockSource};
use crate::source::Source as _;

/// A place that takes the pairs of a report.
pub trait Sink {
    /// What it is called in logs.
    fn name(&self) -> &str;

    /// Writes the pairs, each whether or not another was refused.
    ///
    /// # Errors
    /// Some were refused.
    fn write(&mut self, pairs: &[(String, String)]) -> Result<(), SinkError>;
}

/// Pairs that a sink did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sink} did not take {} of the report's values: {}", reasons.len(), reasons.join("; "))]
pub struct SinkError {
    /// The sink's name.
    pub sink: String,
    /// Why not, for each.
    pub reasons: Vec<String>,
}

/// The sink beside the source of this name: who has given a config takes its report, if anybody does.
pub fn beside(source: &str) -> Option<Box<dyn Sink>> {
    if source == RpciSource::detect().name() {
        return RpciSink::detect().map(|sink| Box::new(sink) as Box<dyn Sink>);
    }
    (source == VsockSource.name()).then(|| Box::new(VsockSink) as Box<dyn Sink>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_over_vsock_is_told_over_vsock_and_a_file_is_told_nothing() {
        assert_eq!(
            beside(VsockSource.name()).map(|it| it.name().to_owned()).as_deref(),
            Some(VsockSource.name())
        );
        assert!(beside("file /config.vmx").is_none());
        assert!(beside(RpciSource::detect().name()).is_none(), "this is no VMware");
    }
}
