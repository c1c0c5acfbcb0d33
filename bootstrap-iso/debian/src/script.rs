//! Shell scripts in place of programs, for tests.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes `dir/name` a program of this text.
///
/// Another process writes it: a process that another test starts at that moment would have a copy of this one's open
/// file, and what anyone can write to cannot be executed (`ETXTBSY`).
pub(crate) fn write(dir: &Path, name: &str, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(dir.join(name));
    let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success(), "{name}");
}
