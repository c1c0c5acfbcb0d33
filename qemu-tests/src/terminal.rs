//! A terminal with a person at it: a pseudo-terminal, a program in it, keys typed and text awaited.

use crate::finished::Finished;
use crate::output::{Look, Output};
use crate::program::{Program, Watch};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// A program in a terminal.
#[derive(Debug)]
pub struct Terminal {
    program: Program,
    master: File,
}

impl Terminal {
    /// Starts `command` in a new terminal of 80 × 24 that is its controlling one.
    #[track_caller]
    pub(crate) fn start(command: &Command, text: String, watch: Watch) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a pseudo-terminal");
        let name = ptsname(&master, Vec::new()).expect("a pseudo-terminal has a name");
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let slave = File::from(slave.expect("its other end"));
        // setsid(1) makes standard input the controlling terminal and becomes the program by exec.
        let mut inside = Command::new("setsid");
        inside.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.stdin(Stdio::from(slave.try_clone().expect("a descriptor")));
        inside.stdout(Stdio::from(slave.try_clone().expect("a descriptor")));
        inside.stderr(Stdio::from(slave));
        resize(&File::from(master.try_clone().expect("a descriptor")), 24, 80);
        let child = inside.spawn().expect("setsid starts");
        // The command holds this side's copies of the other end, which must go for its end to show.
        drop(inside);
        let master = File::from(master);
        let stdout = Output::collect(master.try_clone().expect("a descriptor"));
        let stderr = Output::collect(std::io::empty());
        Self { program: Program::of_parts(child, text, stdout, stderr, watch), master }
    }

    /// Types: `\r` is Enter, `\x7f` Backspace, `\x10` Ctrl-P.
    #[track_caller]
    pub fn types(&mut self, keys: &str) -> &mut Self {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes keys");
        self
    }

    /// Waits until the screen gets `text`, behind what was waited for before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> &mut Self {
        self.program.expect(text);
        self
    }

    /// Changes the size of the window; the program is told by SIGWINCH.
    pub fn resize(&mut self, rows: u16, columns: u16) -> &mut Self {
        resize(&self.master, rows, columns);
        self
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        self.program.await_on(&self.program.stdout, "its end", |output, limit| {
            match output.look_for_end(limit) {
                Look::Ended => Look::Found,
                other => other,
            }
        });
        let status = self.program.child.wait().expect("a child can be waited for");
        let stdout = self.program.stdout.bytes();
        Finished { command: self.program.text.clone(), status, stdout, stderr: Vec::new() }
    }
}

fn resize(master: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a pseudo-terminal has a size");
}
