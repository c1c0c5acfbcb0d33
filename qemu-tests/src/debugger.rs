//! A conversation with QEMU's debug port, for what a VM of one processor does at certain instructions.
//!
//! The remote protocol of GDB ("Remote Protocol" in its manual), as far as it is needed. Breakpoints are the
//! emulator's own: nothing in the VM's memory changes, and none is there for a VM that KVM runs.

use anyhow::{Context as _, Result, bail, ensure};
use guestinfo::backdoor::Regs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// The numbers of registers, as `i386-64bit.xml` in QEMU's source has them, and those of [`Regs`] in its order.
const OF_REGS: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];
const RIP: usize = 16;
/// Bytes of memory in one packet: QEMU takes and gives 4 KiB of digits at most.
const PIECE: usize = 1024;

/// A conversation; the VM stands still until [`Debugger::go_on`].
#[derive(Debug)]
pub(crate) struct Debugger {
    stream: BufReader<UnixStream>,
    /// Orders that go out with the next question, as nothing depends on their answers.
    orders: Vec<String>,
}

/// Where the processor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) regs: Regs,
    pub(crate) rip: u64,
}

impl Debugger {
    /// Begins, with a QEMU that has called.
    pub(crate) fn begin(stream: UnixStream) -> Result<Self> {
        let mut debugger = Self { stream: BufReader::new(stream), orders: Vec::new() };
        // Registers have numbers only for who has asked what there are.
        let registers = debugger.ask("qXfer:features:read:target.xml:0,ffb")?;
        ensure!(registers.contains("i386"), "another processor: {registers}");
        Ok(debugger)
    }

    /// Has the VM stop before the instruction at this address, whatever process is there.
    pub(crate) fn stop_at(&mut self, address: u64) {
        self.orders.push(format!("Z1,{address:x},1"));
    }

    /// The opposite of [`Debugger::stop_at`].
    pub(crate) fn pass(&mut self, address: u64) {
        self.orders.push(format!("z1,{address:x},1"));
    }

    /// Lets the VM run until it stops; `None` when it has ended.
    pub(crate) fn go_on(&mut self) -> Result<Option<Standing>> {
        self.run("c")
    }

    /// Has the processor execute one instruction, at which there may be a breakpoint.
    pub(crate) fn step_from(&mut self, address: u64) -> Result<()> {
        self.pass(address);
        self.run("s")?;
        self.stop_at(address);
        Ok(())
    }

    fn run(&mut self, how: &str) -> Result<Option<Standing>> {
        let told = match self.ask(how) {
            Ok(told) => told,
            // QEMU has ended without a word.
            Err(error) if is_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if told.starts_with('W') || told.starts_with('X') {
            return Ok(None);
        }
        // 05 is a breakpoint or a step. 02 would be a byte that came while the VM ran.
        ensure!(told.starts_with("T05") || told.starts_with("S05"), "no such stop: {told}");
        self.standing().map(Some)
    }

    fn standing(&mut self) -> Result<Standing> {
        let all = bytes_of(&self.ask("g")?)?;
        let register = |number: usize| {
            let bytes = all.get(number * 8..).and_then(|rest| rest.first_chunk());
            bytes.map(|bytes| u64::from_le_bytes(*bytes)).context("a register is missing")
        };
        let [rax, rbx, rcx, rdx, rsi, rdi, rbp] = OF_REGS.map(register);
        let regs =
            Regs { rax: rax?, rbx: rbx?, rcx: rcx?, rdx: rdx?, rsi: rsi?, rdi: rdi?, rbp: rbp? };
        Ok(Standing { regs, rip: register(RIP)? })
    }

    /// Puts the processor elsewhere.
    pub(crate) fn place(&mut self, from: &Standing, to: &Standing) {
        let words = |it: &Standing| {
            let Regs { rax, rbx, rcx, rdx, rsi, rdi, rbp } = it.regs;
            [rax, rbx, rcx, rdx, rsi, rdi, rbp, it.rip]
        };
        let numbers = OF_REGS.into_iter().chain([RIP]);
        for ((number, was), is) in numbers.zip(words(from)).zip(words(to)) {
            if was != is {
                self.orders.push(format!("P{number:x}={}", digits_of(&is.to_le_bytes())));
            }
        }
    }

    /// Memory as the process that the processor is in sees it; `None` where nothing is mapped.
    pub(crate) fn read(&mut self, address: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let n = (len - bytes.len()).min(PIECE);
            let piece = self.ask(&format!("m{:x},{n:x}", address + bytes.len() as u64))?;
            if piece.starts_with('E') {
                return Ok(None);
            }
            bytes.extend(bytes_of(&piece)?);
        }
        Ok(Some(bytes))
    }

    /// Changes such memory.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        for (n, piece) in bytes.chunks(PIECE).enumerate() {
            let at = address + (n * PIECE) as u64;
            self.orders.push(format!("M{at:x},{:x}:{}", piece.len(), digits_of(piece)));
        }
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        self.send(command)?;
        self.answer()
    }

    /// Each packet acknowledges the answer before it. Alone, an acknowledgement could come when the VM runs, which any
    /// byte stops; so the orders are done with before what may let it run.
    fn send(&mut self, command: &str) -> Result<()> {
        let packet = |command: &str| format!("+${command}#{:02x}", sum(command.as_bytes()));
        let orders = std::mem::take(&mut self.orders);
        let packets: String = orders.iter().map(|order| packet(order)).collect();
        self.stream.get_mut().write_all(packets.as_bytes())?;
        for order in orders {
            let answer = self.answer()?;
            ensure!(answer == "OK", "{order} is answered {answer:?}");
        }
        self.stream.get_mut().write_all(packet(command).as_bytes())?;
        Ok(())
    }

    fn answer(&mut self) -> Result<String> {
        let mut packet = Vec::new();
        self.stream.read_until(b'$', &mut packet)?;
        packet.clear();
        self.stream.read_until(b'#', &mut packet)?;
        let mut digits = [0; 2];
        self.stream.read_exact(&mut digits)?;
        packet.pop();
        if bytes_of(&String::from_utf8_lossy(&digits))? != [sum(&packet)] {
            bail!("damaged: {}", String::from_utf8_lossy(&packet));
        }
        Ok(String::from_utf8_lossy(&packet).into_owned())
    }
}

fn is_end(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(
        kind,
        Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    )
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn digits_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    // A register that cannot be told is a row of x.
    let byte = |pair: &[u8]| match pair {
        b"xx" => Ok(0),
        _ => u8::from_str_radix(&String::from_utf8_lossy(pair), 16).context("no digits"),
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes_and_back() {
        assert_eq!(bytes_of(&digits_of(&[0, 0xED, 0xFF])).expect("digits"), [0, 0xED, 0xFF]);
        assert_eq!(bytes_of("xx01").expect("digits"), [0, 1]);
        assert!(bytes_of("0g").is_err());
        assert_eq!(sum(b"g"), 0x67);
    }
}
