//! What a person needs to see when a boot test fails: commands, consoles, logs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const LINES: usize = 50;

/// The last `n` lines of what may be anything.
pub(crate) fn last_lines(bytes: &[u8], n: usize) -> String {
    // What is not text would only flood the terminal.
    let start = bytes.len().saturating_sub(n * 200);
    let text = String::from_utf8_lossy(&bytes[start..]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].join("\n")
}

/// Everything worth seeing of a lab's home, and of the consoles that tests have beside it.
pub(crate) fn collect(home: &Path, commands: &[String]) -> String {
    let mut text = String::from("=== commands of this lab, in their order\n");
    for command in commands {
        let _infallible = writeln!(text, "{command}");
    }
    let mut show = |path: &Path| {
        if let Ok(bytes) = fs::read(path)
            && !bytes.is_empty()
        {
            let lines = last_lines(&bytes, LINES);
            let _infallible = writeln!(text, "=== the end of {}\n{lines}", path.display());
        }
    };
    let vms = fs::read_dir(home.join("data/vms"));
    for vm in vms.into_iter().flatten().flatten() {
        for name in ["console.log", "qemu.log", "supervise.log", "exit.json"] {
            show(&vm.path().join(name));
        }
    }
    let beside = home.parent().and_then(|dir| fs::read_dir(dir).ok());
    for file in beside.into_iter().flatten().flatten() {
        if file.path().extension().is_some_and(|it| it == "console") {
            show(&file.path());
        }
    }
    show(&home.join("serialmux/serialmux.log"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_shown() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines(b"", 2), "");
        assert_eq!(last_lines("ä".repeat(1000).as_bytes(), 1).chars().count(), 100);
    }
}
