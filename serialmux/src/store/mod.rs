//! What outlives the daemon: each container's registration, state and output.

pub mod journal;
pub mod ledger;
pub mod record;
pub mod state;
