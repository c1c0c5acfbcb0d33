//! Kernel, initramfs and tether in one bootable, reproducible ISO.
