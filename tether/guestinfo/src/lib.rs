//! The session config of a containerVM: VIC's extraconfig encoding over serde, VMX files, sources and sinks.

pub mod backdoor;
pub mod blob;
pub mod extraconfig;
pub mod ip;
pub mod report;
pub mod rpci;
pub mod sink;
pub mod smbios;
pub mod source;
pub mod spec;
pub mod sys;
pub mod tclo;
pub mod timestamp;
pub mod url;
pub mod vmx;

pub use blob::Blob;
pub use extraconfig::{DecodeError, DecodeErrors, EncodeError, Header};
pub use ip::{Ip, IpNet, IpRange};
pub use report::{EndpointReport, ExitLog, Report, SessionReport, Started};
pub use spec::{
    CmdSpec, CopyMode, DiagnosticsSpec, LinkMode, LinkSpec, MountSpec, NetworkSpec, Protection,
    RouteSpec, SessionSpec, Spec, SyslogSpec, TrustLevel, VersionSpec,
};
pub use timestamp::Timestamp;
pub use url::Url;
pub use vmx::{Vmx, VmxError};
