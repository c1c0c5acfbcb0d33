//! VIX: what a vSphere client has relayed to the guest's tools, as far as a VCH makes use of it.
//!
//! A VCH runs "programs" that are none: `reload`, `kill SIGNAL`, `group-kill SIGNAL`. It starts one and then asks
//! for the list of processes until that one is in there with an end. Each is done when it is started, so it is
//! listed as ended from the start.
//!
//! ```text
//! "name" NUL │ magic 0xD00D0001 │ version 2 │ total 4, header 4, body 4, credentials 4 │ flags 1 │
//!            │ operation 4 │ flags 4 │ time-out 4 │ cookie 8 │ client 4 │ kind of credentials 4 │ body │ credentials
//! ```
//!
//! Numbers are little-endian. A reply is a VIX error, an errno, a text and a NUL. Who asks must name the
//! container's id as the user; the hypervisor has checked its operator already, and the password is not looked at.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Order;

const MAGIC: u32 = 0xD00D_0001;
const HEADER: usize = 51;
/// Where in the header they are.
const BODY_LENGTH: usize = 14;
const CREDENTIAL_LENGTH: usize = 18;
const OPERATION: usize = 23;

const GET_TOOLS_STATE: u32 = 62;
const START_PROGRAM: u32 = 185;
const LIST_PROCESSES: u32 = 186;

/// VIX's error numbers (vix.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Fault {
    InvalidArgument = 3,
    Authentication = 35,
    UnknownCommand = 3025,
    Header = 10000,
    Body = 10001,
}

/// The number of the first program, above those of any real process, and how many are remembered.
const FIRST_PID: i64 = 32769;
const MAX_STARTED: usize = 32;

/// The longest name of a program with its argument that is taken.
const MAX_PROGRAM: usize = 64;

/// A program that was started, and so has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Started {
    pid: i64,
    command: String,
    /// Seconds since 1970.
    at: u64,
}

/// What is remembered between commands.
#[derive(Debug, Clone, Default)]
pub(super) struct Programs {
    user: String,
    started: VecDeque<Started>,
    n_started: i64,
}

impl Programs {
    /// Programs that this user may start.
    pub(super) fn of(user: &str) -> Self {
        Self { user: user.to_owned(), ..Self::default() }
    }

    /// Carries one command out; the reply, and what it comes to. `now` is in seconds since 1970.
    pub(super) fn handle(&mut self, relayed: &[u8], now: u64) -> (Vec<u8>, Option<Order>) {
        match self.perform(relayed, now) {
            Ok((text, order)) => (reply(0, &text), order),
            Err((fault, why)) => (reply(fault as u32, why), None),
        }
    }

    fn perform(
        &mut self,
        relayed: &[u8],
        now: u64,
    ) -> Result<(String, Option<Order>), (Fault, &'static str)> {
        let message = after_name(relayed);
        let header = message.get(..HEADER).ok_or((Fault::Header, "too short"))?;
        if number(header, 0) != Some(MAGIC) {
            return Err((Fault::Header, "not a command"));
        }
        let field = |at| number(header, at).and_then(|it| usize::try_from(it).ok()).unwrap_or(0);
        let (body_len, credential_len) = (field(BODY_LENGTH), field(CREDENTIAL_LENGTH));
        let rest = message.get(HEADER..).unwrap_or_default();
        let (body, rest) = rest.split_at_checked(body_len).ok_or((Fault::Body, "cut short"))?;
        let credentials = rest.get(..credential_len).ok_or((Fault::Body, "cut short"))?;
        let operation = number(header, OPERATION).unwrap_or(0);
        if operation == GET_TOOLS_STATE {
            return Ok((tools_state(), None));
        }
        if user_name(credentials).is_none_or(|name| name != self.user.as_bytes()) {
            return Err((Fault::Authentication, "the user must be the container's id"));
        }
        match operation {
            START_PROGRAM => self.start(body, now),
            LIST_PROCESSES => Ok((self.list(body), None)),
            _ => Err((Fault::UnknownCommand, "")),
        }
    }

    fn start(
        &mut self,
        body: &[u8],
        now: u64,
    ) -> Result<(String, Option<Order>), (Fault, &'static str)> {
        let cut = (Fault::Body, "cut short");
        // How it is to be shown, and the lengths of program, arguments, directory and environment.
        const LENGTHS: usize = 21;
        let length = |at| number(body, at).and_then(|it| usize::try_from(it).ok()).ok_or(cut);
        let (program, arguments) = (length(1)?, length(5)?);
        let words = body.get(LENGTHS..).ok_or(cut)?;
        let (program, rest) = words.split_at_checked(program).ok_or(cut)?;
        let arguments = rest.get(..arguments).ok_or(cut)?;
        let command = [text(program), text(arguments)].join(" ");
        let command = command.trim().to_owned();
        let order = order(&command).ok_or((
            Fault::InvalidArgument,
            "there is no such command here; expected reload, kill SIGNAL or group-kill SIGNAL",
        ))?;
        let pid = FIRST_PID + self.n_started % 1_000_000;
        self.n_started += 1;
        self.started.push_back(Started { pid, command, at: now });
        if self.started.len() > MAX_STARTED {
            self.started.pop_front();
        }
        Ok((format!("{pid}\0"), Some(order)))
    }

    /// All programs, or those that are asked for: a key, an offset, how many numbers, and the numbers.
    fn list(&self, body: &[u8]) -> String {
        const PIDS: usize = 12;
        let asked = body.get(PIDS..).unwrap_or_default().as_chunks::<8>().0;
        let asked: Vec<i64> =
            asked.iter().take(MAX_STARTED).map(|pid| i64::from_le_bytes(*pid)).collect();
        let listed = self.started.iter().filter(|it| asked.is_empty() || asked.contains(&it.pid));
        listed
            .map(|Started { pid, command, at }| {
                let user = &self.user;
                format!(
                    "<proc><cmd>{command}</cmd><name>{command}</name><pid>{pid}</pid><user>{user}</user>\
                     <start>{at}</start><eCode>0</eCode><eTime>{at}</eTime></proc>"
                )
            })
            .collect()
    }
}

fn reply(error: u32, text: &str) -> Vec<u8> {
    format!("{error} 0 {text}\0").into_bytes()
}

/// What follows the quoted name and its NUL.
fn after_name(relayed: &[u8]) -> &[u8] {
    let Some(quoted) = relayed.strip_prefix(b"\"") else { return relayed };
    let end = quoted.iter().position(|byte| *byte == b'"');
    let rest = end.and_then(|end| quoted.get(end + 1..)).unwrap_or_default();
    rest.strip_prefix(b"\0").unwrap_or(rest)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).trim().to_owned()
}

/// The name in credentials of name and password: base64 of two lengths and both, each with a NUL.
fn user_name(credentials: &[u8]) -> Option<Vec<u8>> {
    let packed = STANDARD.decode(credentials.trim_ascii_end().split(|it| *it == 0).next()?).ok()?;
    let len = usize::from(u16::from_le_bytes(*packed.first_chunk()?));
    packed.get(4..4 + len).map(<[u8]>::to_vec)
}

fn order(command: &str) -> Option<Order> {
    let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
    let argument = argument.trim();
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '+' || it == '-';
    if command.len() > MAX_PROGRAM || !argument.chars().all(plain) {
        return None;
    }
    let signal = if argument.is_empty() { "TERM" } else { argument }.to_owned();
    match name {
        "reload" if argument.is_empty() => Some(Order::Reload),
        "kill" => Some(Order::Signal { signal, group: false }),
        "group-kill" => Some(Order::Signal { signal, group: true }),
        _ => None,
    }
}

/// What the tools are and can do: properties of a number, a kind and a length each, in base64.
fn tools_state() -> String {
    const VERSION: u32 = 4500;
    const API_OPTIONS: u32 = 4501;
    const OS_FAMILY: u32 = 4502;
    const OS_VERSION: u32 = 4503;
    const PRODUCT: u32 = 4511;
    const OS_VERSION_SHORT: u32 = 4520;
    const CAN_START_PROGRAMS: u32 = 4540;
    const CAN_LIST_PROCESSES: u32 = 4541;
    const LINUX: u32 = 1;
    let (number_kind, text_kind, bool_kind) = (1, 2, 3);
    let mut list = Vec::new();
    let mut put = |id: u32, kind: u32, value: &[u8]| {
        for word in [id, kind, u32::try_from(value.len()).unwrap_or(0)] {
            list.extend_from_slice(&word.to_le_bytes());
        }
        list.extend_from_slice(value);
    };
    put(OS_VERSION, text_kind, b"linux-amd64\0");
    put(OS_VERSION_SHORT, text_kind, b"linux-amd64\0");
    put(PRODUCT, text_kind, b"tether\0");
    put(VERSION, text_kind, concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes());
    put(API_OPTIONS, number_kind, &1u32.to_le_bytes());
    put(OS_FAMILY, number_kind, &LINUX.to_le_bytes());
    put(CAN_START_PROGRAMS, bool_kind, &[1]);
    put(CAN_LIST_PROCESSES, bool_kind, &[1]);
    STANDARD.encode(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credentials(user: &str) -> Vec<u8> {
        let mut packed = u16::try_from(user.len()).unwrap().to_le_bytes().to_vec();
        packed.extend([1, 0]);
        packed.extend(user.as_bytes());
        packed.extend(b"\0p\0");
        STANDARD.encode(packed).into_bytes()
    }

    fn command(operation: u32, body: &[u8], user: &str) -> Vec<u8> {
        let credentials = credentials(user);
        let total = u32::try_from(HEADER + body.len() + credentials.len()).unwrap();
        let mut bytes = b"\"Execute\"\0".to_vec();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(5u16.to_le_bytes());
        for word in [
            total,
            51,
            u32::try_from(body.len()).unwrap(),
            u32::try_from(credentials.len()).unwrap(),
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.push(0);
        for word in [operation, 0, 30, 0, 0, 7, 1] {
            bytes.extend(u32::to_le_bytes(word));
        }
        bytes.extend(body);
        bytes.extend(credentials);
        bytes
    }

    fn program(name: &str, arguments: &str) -> Vec<u8> {
        let length = |text: &str| match text.len() {
            0 => 0,
            len => u32::try_from(len).unwrap() + 1,
        };
        let mut body = vec![0];
        for word in [length(name), length(arguments), 0, 0, 0] {
            body.extend(word.to_le_bytes());
        }
        for text in [name, arguments].into_iter().filter(|text| !text.is_empty()) {
            body.extend(text.as_bytes());
            body.push(0);
        }
        body
    }

    #[track_caller]
    fn check(request: &[u8], expected: &str, order: Option<&Order>) {
        let (reply, found) = Programs::of("ID").handle(request, 1_500_000_000);
        assert_eq!((String::from_utf8_lossy(&reply).as_ref(), found.as_ref()), (expected, order));
    }

    #[test]
    fn the_programs_of_a_vch_are_orders_to_the_agent() {
        let start = |name, arguments| command(START_PROGRAM, &program(name, arguments), "ID");
        let done = "0 0 32769\0\0";
        check(&start("reload", ""), done, Some(&Order::Reload));
        let kill = |signal: &str, group| Order::Signal { signal: signal.to_owned(), group };
        check(&start("kill", "HUP"), done, Some(&kill("HUP", false)));
        check(&start("kill", ""), done, Some(&kill("TERM", false)));
        check(&start("group-kill", "SIGUSR1"), done, Some(&kill("SIGUSR1", true)));
        let refused = "3 0 there is no such command here; expected reload, kill SIGNAL or group-kill SIGNAL\0";
        for (name, arguments) in [("/bin/sh", ""), ("reload", "now"), ("kill", "<b>"), ("", "")] {
            check(&start(name, arguments), refused, None);
        }
        check(&start("kill", &"9".repeat(100)), refused, None);
    }

    #[test]
    fn who_is_not_the_containers_own_is_refused() {
        let reload = program("reload", "");
        let refused = "35 0 the user must be the container's id\0";
        check(&command(START_PROGRAM, &reload, "root"), refused, None);
        check(&command(LIST_PROCESSES, &[0; 12], ""), refused, None);
        let nobody = Programs::default().handle(&command(START_PROGRAM, &reload, "ID"), 0);
        assert_eq!(nobody.1, None);
    }

    #[test]
    fn a_program_is_listed_as_ended() {
        let mut programs = Programs::of("ID");
        for _ in 0..MAX_STARTED + 2 {
            programs.handle(&command(START_PROGRAM, &program("reload", ""), "ID"), 15);
        }
        let mut body = vec![0; 12];
        body.extend(32771i64.to_le_bytes());
        let (reply, _) = programs.handle(&command(LIST_PROCESSES, &body, "ID"), 20);
        let expected = "0 0 <proc><cmd>reload</cmd><name>reload</name><pid>32771</pid><user>ID</user>\
                        <start>15</start><eCode>0</eCode><eTime>15</eTime></proc>\0";
        assert_eq!(String::from_utf8_lossy(&reply), expected);
        let (all, _) = programs.handle(&command(LIST_PROCESSES, &[0; 12], "ID"), 20);
        assert_eq!(String::from_utf8_lossy(&all).matches("<proc>").count(), MAX_STARTED);
    }

    #[test]
    fn the_tools_state_needs_no_user() {
        let (reply, order) = Programs::of("ID").handle(&command(GET_TOOLS_STATE, b"", ""), 0);
        let text = reply.strip_prefix(b"0 0 ").unwrap().strip_suffix(b"\0").unwrap();
        let list = STANDARD.decode(text).unwrap();
        assert_eq!(list[..12], [0x97, 0x11, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0]);
        assert!(list.ends_with(&[0xBD, 0x11, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1]));
        assert_eq!(order, None);
    }

    #[test]
    fn what_is_no_command_is_told() {
        check(b"", "10000 0 too short\0", None);
        check(b"\"Execute", "10000 0 too short\0", None);
        check(&[0; 60], "10000 0 not a command\0", None);
        check(&command(1, b"", "ID"), "3025 0 \0", None);
        let mut cut = command(START_PROGRAM, &program("reload", ""), "ID");
        cut.truncate(cut.len() - 1);
        check(&cut, "10001 0 cut short\0", None);
    }

    proptest! {
        #[test]
        fn any_damage_to_a_command_is_answered(damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..20)) {
            let mut bytes = command(START_PROGRAM, &program("kill", "HUP"), "ID");
            for (at, byte) in damage {
                let len = bytes.len();
                bytes[at % len] = byte;
            }
            let (reply, _) = Programs::of("ID").handle(&bytes, 0);
            prop_assert!(reply.ends_with(b"\0"));
        }
    }
}
