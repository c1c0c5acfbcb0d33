//! Input of attached clients.

/// What it is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Bytes for standard input.
    #[prost(bytes = "bytes", tag = "1")]
    Bytes(bytes::Bytes),
    /// Standard input ends.
    #[prost(message, tag = "2")]
    End(super::request::Hello),
}
