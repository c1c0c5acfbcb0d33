//! What the fuzz targets share: forged sessions with a live link.

#[path = "../../wire/tests/sim/forger.rs"]
pub mod forger;
