//! The processor instructions that reach VMware's hypervisor, and the question whether it is there.
#![allow(
    unsafe_code,
    reason = "the backdoor is three instructions that only inline assembly can name"
)]

use crate::backdoor::{Port, Regs};

/// The backdoor of the hypervisor that this program runs on.
///
/// VMware answers its port even to programs that may not use ports, unless a VM's
/// `restrict_backdoor` says otherwise; then a program needs the right to all ports. It is taken for
/// the one instruction and given back, since children inherit it, and a refusal (a kernel without
/// `iopl`, or locked down) is passed over.
#[derive(Debug, Clone, Copy)]
pub struct Backdoor {
    takes_port_rights: bool,
}

impl Backdoor {
    /// The backdoor, if CPUID says that the hypervisor is VMware's. Anywhere else its instructions
    /// are forbidden to a program, which would die of SIGSEGV.
    pub fn detect() -> Option<Self> {
        cpu::is_vmware().then_some(Self { takes_port_rights: true })
    }

    /// The backdoor, unasked: for a program whose forbidden instructions somebody catches and
    /// answers, as the tests of this crate do. Without such a one it dies of SIGSEGV at the first
    /// use.
    pub const fn caught_by_a_tracer() -> Self {
        Self { takes_port_rights: false }
    }

    fn with_rights(self, act: impl FnOnce()) {
        let taken = self.takes_port_rights && cpu::set_port_rights(true);
        act();
        if taken {
            cpu::set_port_rights(false);
        }
    }
}

impl Port for Backdoor {
    fn call(&mut self, regs: &mut Regs) {
        self.with_rights(|| cpu::call(regs));
    }

    fn send(&mut self, regs: &mut Regs, data: &[u8]) {
        self.with_rights(|| cpu::send(regs, data));
    }

    fn receive(&mut self, regs: &mut Regs, buffer: &mut [u8]) {
        self.with_rights(|| cpu::receive(regs, buffer));
    }
}

/// Fills the buffer with an item of QEMU's fw_cfg from its start; whether the kernel lets us use ports. To be
/// called where the kernel's driver has found the device (`docs/specs/fw_cfg` in QEMU).
pub fn read_fw_cfg(selector: u16, buffer: &mut [u8]) -> bool {
    let taken = cpu::set_port_rights(true);
    if taken {
        cpu::read_fw_cfg(selector, buffer);
        cpu::set_port_rights(false);
    }
    taken
}

/// Whether CPUID's leaf 1 (its ECX) and leaf 0x4000_0000 (EBX, ECX, EDX) are those of a VMware VM.
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    allow(dead_code, reason = "there is nobody to ask")
)]
fn names_vmware(leaf_1_ecx: u32, signature: [u32; 3]) -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    let text = signature.map(u32::to_le_bytes);
    leaf_1_ecx & HYPERVISOR != 0 && text.as_flattened() == b"VMwareVMware"
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod cpu {
    use core::arch::asm;
    use core::arch::x86_64::__cpuid;

    use super::Regs;

    pub(super) fn is_vmware() -> bool {
        let vendor = __cpuid(0x4000_0000);
        super::names_vmware(__cpuid(1).ecx, [vendor.ebx, vendor.ecx, vendor.edx])
    }

    /// Takes the right to use I/O ports, or gives it back; whether the kernel agreed.
    pub(super) fn set_port_rights(all: bool) -> bool {
        const ALL_PORTS: libc::c_long = 3;
        const NO_PORTS: libc::c_long = 0;
        let level = if all { ALL_PORTS } else { NO_PORTS };
        // JUSTIFICATION: neither std nor nix wraps iopl(2), nor does musl's part of libc.
        // SAFETY: the call takes a number and touches no memory of ours; what the right permits,
        // port access, happens only in `call`, `send` and `receive`.
        unsafe { libc::syscall(libc::SYS_iopl, level) == 0 }
    }

    /// Executes one instruction between loading all of [`Regs`] and storing them.
    ///
    /// RBX and RBP are not ours to name as operands (LLVM keeps them), so they are saved in R9 and
    /// R10, which the hypervisor leaves alone, as it does R8, the address of the registers.
    macro_rules! with_registers {
        ($regs:expr, $($instruction:literal),+) => {
            asm!(
                "mov r9, rbx",
                "mov r10, rbp",
                "mov rax, [r8]",
                "mov rbx, [r8 + 8]",
                "mov rcx, [r8 + 16]",
                "mov rdx, [r8 + 24]",
                "mov rsi, [r8 + 32]",
                "mov rdi, [r8 + 40]",
                "mov rbp, [r8 + 48]",
                $($instruction,)+
                "mov [r8], rax",
                "mov [r8 + 8], rbx",
                "mov [r8 + 16], rcx",
                "mov [r8 + 24], rdx",
                "mov [r8 + 32], rsi",
                "mov [r8 + 40], rdi",
                "mov [r8 + 48], rbp",
                "mov rbx, r9",
                "mov rbp, r10",
                in("r8") std::ptr::from_mut($regs),
                out("r9") _,
                out("r10") _,
                out("rax") _,
                out("rcx") _,
                out("rdx") _,
                out("rsi") _,
                out("rdi") _,
                options(nostack),
            )
        };
    }

    pub(super) fn call(regs: &mut Regs) {
        // JUSTIFICATION: no safe wrapper for port input exists in std, and every register carries
        // data.
        // SAFETY: R8 points to `regs`, which is `repr(C)`, seven 64-bit fields in the order of the
        // offsets, and exclusively borrowed. `in` touches no memory; all registers changed are
        // declared or restored.
        unsafe { with_registers!(regs, "in eax, dx") }
    }

    pub(super) fn send(regs: &mut Regs, data: &[u8]) {
        (regs.rcx, regs.rsi) = (data.len() as u64, data.as_ptr().expose_provenance() as u64);
        // JUSTIFICATION: as above; the bytes go by string output.
        // SAFETY: as above, and `rep outsb` reads RCX bytes upwards (`cld`) from RSI: exactly
        // `data`, borrowed for the call, its provenance exposed.
        unsafe { with_registers!(regs, "cld", "rep outsb") }
    }

    pub(super) fn receive(regs: &mut Regs, buffer: &mut [u8]) {
        (regs.rcx, regs.rdi) =
            (buffer.len() as u64, buffer.as_mut_ptr().expose_provenance() as u64);
        // JUSTIFICATION: as above; the bytes come by string input.
        // SAFETY: as above, and `rep insb` writes at most RCX bytes upwards (`cld`) from RDI:
        // within `buffer`, exclusively borrowed for the call, its provenance exposed. Any byte is a
        // valid `u8`.
        unsafe { with_registers!(regs, "cld", "rep insb") }
    }

    pub(super) fn read_fw_cfg(selector: u16, buffer: &mut [u8]) {
        const SELECTOR: u16 = 0x510;
        const DATA: u16 = 0x511;
        // JUSTIFICATION: as above.
        // SAFETY: writes to a port, no memory. The selector register chooses what the data register
        // gives, nothing else.
        unsafe {
            asm!("out dx, ax", in("dx") SELECTOR, in("ax") selector, options(nomem, nostack, preserves_flags));
        }
        // JUSTIFICATION: as above; the bytes come by string input.
        // SAFETY: `rep insb` writes RCX bytes upwards (`cld`) from RDI: exactly `buffer`, exclusively
        // borrowed for the call. Any byte is a valid `u8`.
        unsafe {
            asm!(
                "cld",
                "rep insb",
                in("dx") DATA,
                inout("rcx") buffer.len() => _,
                inout("rdi") buffer.as_mut_ptr() => _,
                options(nostack),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod cpu {
    use super::Regs;

    pub(super) fn is_vmware() -> bool {
        false
    }

    pub(super) fn set_port_rights(_: bool) -> bool {
        false
    }

    /// Answers as a hypervisor that knows no command: every status is failure.
    pub(super) fn call(regs: &mut Regs) {
        *regs = Regs::default();
    }

    pub(super) fn send(regs: &mut Regs, _: &[u8]) {
        call(regs);
    }

    pub(super) fn receive(regs: &mut Regs, _: &mut [u8]) {
        call(regs);
    }

    pub(super) fn read_fw_cfg(_: u16, _: &mut [u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMWARE: [u32; 3] =
        [u32::from_le_bytes(*b"VMwa"), u32::from_le_bytes(*b"reVM"), u32::from_le_bytes(*b"ware")];

    #[test]
    fn only_vmwares_signature_behind_the_hypervisor_bit_counts() {
        assert!(names_vmware(1 << 31, VMWARE));
        assert!(!names_vmware(0, VMWARE), "the leaf means nothing without a hypervisor");
        assert!(!names_vmware(1 << 31, [0; 3]));
        let kvm = [
            u32::from_le_bytes(*b"KVMK"),
            u32::from_le_bytes(*b"VMKV"),
            u32::from_le_bytes(*b"M\0\0\0"),
        ];
        assert!(!names_vmware(u32::MAX, kvm));
    }
}
