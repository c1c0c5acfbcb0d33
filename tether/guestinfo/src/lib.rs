//! The session config of a containerVM: VIC's keys over serde, VMX files, sources and sinks.
//!
//! A host describes a containerVM by keys and values that its hypervisor keeps for the VM; the
//! guest finds them, does what they say, and answers where it may. This crate knows the keys and
//! how to get at them. It starts nothing, mounts nothing and keeps no clock.
//!
//! ```
//! use guestinfo::{Header, Report, Spec, Started, Vmx};
//!
//! let vmx = Vmx::parse(
//!     r#"
//!     guestinfo.vice./common/id = "e8f2"
//!     guestinfo.vice./sessions = "e8f2"
//!     guestinfo.vice./sessions|e8f2/cmd/Path = "/bin/echo"
//!     guestinfo.vice./sessions|e8f2/cmd/Args = "1"
//!     guestinfo.vice./sessions|e8f2/cmd/Args~ = "echo|7Chello"
//!     "#,
//! )?;
//! let spec = Spec::from_vmx(&vmx)?;
//! assert_eq!(spec.primary()?.cmd.args, ["echo", "hello"]);
//!
//! let mut report = Report::default();
//! report.sessions.entry("e8f2".into()).or_default().started = Started::Yes;
//! let pairs = report.changes(&Report::default(), Header::Vice)?;
//! assert_eq!(pairs[0], ("guestinfo.vice..sessions|e8f2.started".into(), "true".into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To read on: [`spec`] and [`report`] are the data; [`extraconfig`] is the encoding of both,
//! [`vmx`] the file format; [`source`] says where a guest looks, with [`rpci`] and [`tclo`] for
//! VMware over [`backdoor`]. [`sys`] alone has `unsafe` code.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::string_slice, clippy::panic, clippy::expect_used)
)]

pub mod backdoor;
pub mod blob;
pub mod disk;
pub mod extraconfig;
pub mod fwcfg;
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
pub use disk::ConfigDisk;
pub use extraconfig::{DecodeError, DecodeErrors, EncodeError, Header};
pub use ip::{Ip, IpNet, IpRange};
pub use report::{EndpointReport, ExitLog, MountReport, Report, SessionReport, Started};
pub use spec::{
    Capability, Changes, CmdSpec, ContainerSpec, CopyMode, DiagnosticsSpec, LinkMode, LinkSpec,
    MountSpec, NetworkSpec, OomScore, PolicyError, ProcessSpec, ProcessSpecError, Protection,
    Resource, RestartPolicy, RouteSpec, SPOOL_LINE, SessionSpec, Spec, SyslogSpec, Tmpfs,
    TmpfsError, TrustLevel, Ulimit, VersionSpec,
};
pub use timestamp::Timestamp;
pub use url::Url;
pub use vmx::{Vmx, VmxError};
