//! Sinks: where the pairs of a report go.

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
