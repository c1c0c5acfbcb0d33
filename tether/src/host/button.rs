//! A power button, as the kernel's input layer has it: ACPI's, or that of a keyboard.
//!
//! What an operator presses with `system_powerdown` (QEMU) or the like comes as an input event
//! (`Documentation/input/event-codes.rst`); each is 24 bytes: a time of 16, type, code and value.

use std::fs::{self, OpenOptions};
use std::future::poll_fn;
use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::task::Poll;

use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::sys;

/// Size of `struct input_event` on a 64-bit kernel, and where type, code and value are in it.
const EVENT: usize = 24;
/// `EV_KEY`, `KEY_POWER` and "down" (`include/uapi/linux/input-event-codes.h`).
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const DOWN: i32 = 1;
/// The most events that are taken at once.
const MAX_EVENTS: usize = 64;

/// An input device with a power button.
#[derive(Debug)]
pub struct Button {
    node: PathBuf,
    fd: AsyncFd<OwnedFd>,
}

impl Button {
    /// Opens the device with this node, if it has such a button.
    pub fn open(node: &Path) -> Option<Self> {
        let name = node.file_name()?.to_str()?.to_owned();
        let keys = format!("/sys/class/input/{name}/device/capabilities/key");
        if !name.starts_with("event") || !has_power(&fs::read_to_string(keys).ok()?) {
            return None;
        }
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(node);
        opened
            .and_then(|file| sys::watch(OwnedFd::from(file)))
            .map(|fd| Self { node: node.to_owned(), fd })
            .inspect_err(|error| warn!("the power button {name} cannot be listened to: {error}"))
            .ok()
    }

    /// Its device.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Takes what there is; whether the button was pressed. A device that is gone is never ready again.
    fn was_pressed(fd: &OwnedFd) -> std::io::Result<bool> {
        let mut events = [0; EVENT * MAX_EVENTS];
        let len = fs::File::from(fd.try_clone()?).read(&mut events)?;
        Ok(presses(&events[..len]))
    }
}

/// Waits until one of the buttons is pressed.
///
/// # Cancel safety
///
/// An event that was taken is told before anything else is waited for.
pub async fn any_pressed(buttons: &[Button]) {
    poll_fn(|context| {
        for button in buttons {
            while let Poll::Ready(Ok(mut ready)) = button.fd.poll_read_ready(context) {
                match ready.try_io(|fd| Button::was_pressed(fd.get_ref())) {
                    Ok(Ok(true)) => return Poll::Ready(()),
                    Ok(Ok(false)) => {}
                    Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                    // Gone: it keeps its readiness, so it must not be asked in a loop.
                    Ok(Err(_)) => break,
                    Err(_would_block) => {}
                }
            }
        }
        Poll::Pending
    })
    .await;
}

/// Whether these events have the button pressed.
fn presses(events: &[u8]) -> bool {
    events.chunks_exact(EVENT).any(|event| {
        let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        (half(16), half(18), value) == (EV_KEY, KEY_POWER, DOWN)
    })
}

/// Whether sysfs's bit map of a device's keys, words of 64 bits in hexadecimal, the highest first, has the
/// power key.
fn has_power(keys: &str) -> bool {
    let (word, bit) = (usize::from(KEY_POWER / 64), KEY_POWER % 64);
    let words = keys.split_ascii_whitespace().rev().nth(word);
    words
        .and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut event = vec![7; 16];
        event.extend(kind.to_ne_bytes());
        event.extend(code.to_ne_bytes());
        event.extend(value.to_ne_bytes());
        event
    }

    #[test]
    fn only_the_power_key_going_down_counts() {
        assert!(presses(&[event(0, 0, 0), event(1, 116, 1), event(0, 0, 0)].concat()));
        for (kind, code, value) in [(1, 116, 0), (1, 116, 2), (1, 115, 1), (0, 116, 1)] {
            assert!(!presses(&event(kind, code, value)), "{kind} {code} {value}");
        }
        assert!(!presses(&event(1, 116, 1)[..23]), "half an event");
        assert!(!presses(&[]));
    }

    #[test]
    fn a_device_is_known_by_its_keys() {
        // ACPI's button, QEMU's keyboard, its mouse, and nothing.
        assert!(has_power("10000000000000 0\n"));
        assert!(has_power("402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n"));
        assert!(!has_power("1f0000 0 0 0 0\n"));
        assert!(!has_power("0\n") && !has_power("") && !has_power("x y"));
    }
}
