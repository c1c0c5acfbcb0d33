//! A containerVM described by a VMX file, and how to run one on QEMU.

pub mod accel;
pub mod ext4;
pub mod home;
pub mod image;
pub mod kernel;
pub mod machine;
pub mod qemu;
pub mod tree;
