//! A hypervisor that leaves whatever it likes in the registers.
#![no_main]

use guestinfo::backdoor::{Channel, Port, Protocol, Regs};
use guestinfo::rpci::info_get;
use libfuzzer_sys::fuzz_target;

struct Hypervisor {
    calls: std::vec::IntoIter<[u64; 6]>,
    bytes: Vec<u8>,
}

impl Hypervisor {
    fn answer(&mut self, regs: &mut Regs) {
        let Some([rax, rbx, rcx, rdx, rsi, rdi]) = self.calls.next() else {
            // One that refuses everything, so that each run ends.
            regs.rcx = 0;
            return;
        };
        (regs.rax, regs.rbx, regs.rcx) = (rax, rbx, rcx);
        (regs.rdx, regs.rsi, regs.rdi) = (rdx, rsi, rdi);
    }
}

impl Port for Hypervisor {
    fn call(&mut self, regs: &mut Regs) {
        self.answer(regs);
    }

    fn send(&mut self, regs: &mut Regs, _: &[u8]) {
        self.answer(regs);
    }

    fn receive(&mut self, regs: &mut Regs, buffer: &mut [u8]) {
        self.answer(regs);
        buffer.iter_mut().zip(self.bytes.iter().cycle()).for_each(|(to, from)| *to = *from);
    }
}

fuzz_target!(|input: (Vec<[u64; 6]>, Vec<u8>)| {
    let (calls, bytes) = input;
    let mut port = Hypervisor { calls: calls.into_iter(), bytes };
    let _version: Option<u32> = guestinfo::backdoor::version(&mut port);
    drop(info_get(&mut port, "guestinfo.vice./common/id"));
    if let Ok(mut channel) = Channel::open(&mut port, Protocol::Tclo) {
        drop(channel.receive());
    }
});
