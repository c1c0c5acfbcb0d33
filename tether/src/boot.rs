//! From the kernel's jump to `/init` until the container's root is found: file systems, drivers, disk.

pub mod cmdline;
pub mod config_disk;
pub mod disk;
pub mod drivers;
pub mod filesystems;
pub mod glob;
pub mod hardware;
pub mod modules;
pub mod scsi;
pub mod superblock;
