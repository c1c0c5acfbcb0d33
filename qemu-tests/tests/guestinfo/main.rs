//! What a VM's config says, and what the VM makes of it: VIC's keys, old, new and bad, wherever they are held.

mod bench;
mod disks;
mod ganesha;
mod keys;
mod networks;
mod operator;
mod reload;
mod servers;
mod share;
mod vmware;
mod volumes;
