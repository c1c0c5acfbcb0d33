//! What the fuzz targets share: forged sessions with a live link, and heads of archives.

#[path = "../../wire/tests/sim/forger.rs"]
pub mod forger;
pub mod heads;
