//! The session config of a containerVM: VIC's extraconfig encoding over serde, VMX files, sources and sinks.

pub mod vmx;

pub use vmx::{Vmx, VmxError};
