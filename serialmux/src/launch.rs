//! Starting what runs in the background: the daemon, and the process that waits for a VM's end.

use crate::client::{Client, ClientError};
use crate::place::Place;
use anyhow::{Context, bail};
use containervm::lock::Held;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

/// A program in the background that tells by its first line that it is ready.
#[derive(Debug)]
pub struct Background {
    stdout: BufReader<ChildStdout>,
    /// The line it told.
    pub line: String,
}

impl Background {
    /// Starts `program` in a session of its own and waits for its first line. Its standard error
    /// goes to the file `log`.
    ///
    /// # Errors
    /// When it ends before that line: with the last thing it wrote to `log`.
    pub fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], log: &Path) -> anyhow::Result<Self> {
        let errors = File::options().create(true).append(true).open(log);
        let errors = errors.with_context(|| format!("cannot write {}", log.display()))?;
        let start = errors.metadata()?.len();
        // setsid(1) keeps what ends the terminal from ending this, too.
        let mut command = match debian::on_path("setsid") {
            Some(setsid) => {
                let mut command = Command::new(setsid);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command
            .args(args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn();
        let mut child = child.with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("no pipe to the background program")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{}", last_words(log, start).unwrap_or_else(|| "it ended without a word".into()));
        }
        Ok(Self { stdout, line: line.trim_end().to_owned() })
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// When the pipe to it breaks.
    pub fn join(mut self) -> io::Result<()> {
        self.stdout.read_to_end(&mut Vec::new()).map(|_| ())
    }
}

/// Tells whoever has started this program as a [`Background`] that it is ready. One who is gone by
/// now, by an interrupt for instance, is no reason to end: the next one finds it ready.
pub fn ready(line: &str) {
    let mut out = io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .unwrap_or_else(|error| tracing::debug!(%error, "nobody waits for this program"));
}

// The last line written to `log` since it was `start` long.
fn last_words(log: &Path, start: u64) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let new = text.get(usize::try_from(start).ok()?..)?;
    let text = String::from_utf8_lossy(new);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim_start_matches("serialmux: ").trim_start_matches("containervm: ").to_owned())
}

/// Where VMs connect to, after starting a daemon if none runs.
///
/// # Errors
/// When one cannot be started, in its own words.
pub async fn daemon(place: &Place, tell: &mut dyn FnMut(&str)) -> anyhow::Result<String> {
    let client = Client::new(place);
    if let Some(listen) = listening(&client).await? {
        return Ok(listen);
    }
    std::fs::create_dir_all(place.dir())
        .with_context(|| format!("cannot make the state directory {}", place.dir().display()))?;
    // Nobody else starts one meanwhile.
    let path = place.launching();
    let taken = tokio::task::spawn_blocking(move || Held::take(&path)).await?;
    let _launching =
        taken.with_context(|| format!("cannot lock {}", place.launching().display()))?;
    // Somebody else may have started one meanwhile.
    if let Some(listen) = listening(&client).await? {
        return Ok(listen);
    }
    tell("starting serialmux");
    // This program is the daemon, too: whichever of the two is installed, it is of one version.
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let state = place.dir().as_os_str();
    let args = [OsStr::new("serialmux"), OsStr::new("--state"), state, OsStr::new("serve")];
    match Background::start(&program, &args, &place.log()) {
        Ok(_) => Ok(client.hello().await?.listen),
        // One may have been started by hand at this moment.
        Err(error) => {
            let other = listening(&client).await?;
            other.ok_or_else(|| error.context("cannot start serialmux"))
        }
    }
}

/// Where VMs connect to, if a daemon runs.
async fn listening(client: &Client) -> Result<Option<String>, ClientError> {
    match client.hello().await {
        Ok(hello) => Ok(Some(hello.listen)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
