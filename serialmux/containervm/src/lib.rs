//! A containerVM described by a VMX file, and how to run one on QEMU.
