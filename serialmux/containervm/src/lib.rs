//! A containerVM described by a VMX file, and how to run one on QEMU: the embedded default hypervisor.
//!
//! ```text
//! IMAGE ──► image ──► tree ──► ext4 ──► cache ─┐
//!                                              ├─► store: a VM's directory ──► supervise ──► QEMU
//! options + image config ──► run ──► VMX ──────┘         ▲                        ▲
//!                                     └──► machine ──► qemu (command line) ───────┘
//!                                     ISO ──► kernel ──► accel ┘
//! ```
//!
//! The crate owns what a VM is on this host: its disk, its VMX file, its QEMU. It does not talk to what runs inside,
//! which is the multiplexer's part, and it never prints: progress goes through callbacks, one line each.
//!
//! Everything is safe to interrupt. What is being made carries a name that says so and a lock that dies with its
//! maker; it gets its real name by one rename when it is whole.
//!
//! To run a container: [`image::resolve`], [`store::Store::draft`], [`store::Draft::copy_disk`], [`run::vmx`],
//! [`store::Draft::finish`]. To start a VM, new or from a file: [`machine::Machine::load`], [`qemu::needs`],
//! [`kernel::Kernel::of_iso`], [`accel::Accel::decide`], [`qemu::QemuCommand::new`], [`supervise::launch`],
//! [`supervise::Running::wait`].

pub mod accel;
pub mod disk;
pub mod ext4;
pub mod home;
pub mod identity;
pub mod image;
pub mod kernel;
pub mod lock;
pub mod machine;
pub mod qemu;
pub mod qmp;
pub mod run;
pub mod store;
pub mod supervise;
pub mod tree;
pub mod volume;
