//! `serialmux logs`.

use crate::api::{answer, request};
use crate::attach::show;
use crate::client::{self, Client};
use crate::{clock, moment, reunion};
use anyhow::{Context, bail};
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Name, id or unique start of the id
    container: String,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only the last so many lines, or "all"
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Only from this moment on: 2026-01-31T12:00:00Z, seconds since 1970, or how long ago (10m)
    #[arg(long)]
    since: Option<String>,
    /// Only up to this moment
    #[arg(long)]
    until: Option<String>,
}

pub(super) async fn logs(client: &Client, args: LogsArgs) -> anyhow::Result<ExitCode> {
    let at = |text: &Option<String>| match text {
        None => Ok(0),
        Some(text) => moment::parse(text, clock::wall_us()).with_context(|| {
            format!(
                "\"{text}\" is no moment: give 2026-01-31T12:00:00Z, seconds since 1970, or 10m"
            )
        }),
    };
    let tail = match args.tail.as_str() {
        "all" => None,
        n => Some(n.parse().with_context(|| format!("--tail {n}: give a number, or \"all\""))?),
    };
    let (container, follow) = (args.container, args.follow);
    let (since_us, until_us) = (at(&args.since)?, at(&args.until)?);
    let (position, resumable) = (None, true);
    let mut logs =
        request::Logs { container, follow, tail, since_us, until_us, position, resumable };
    let (mut sender, mut receiver) = client.open(request::Body::Logs(logs.clone())).await?;
    let mut stamps = args.timestamps.then(Stamps::default);
    loop {
        match client::next(&mut receiver).await {
            Ok(answer::Body::Attached(attached)) => logs.container = attached.id,
            Ok(answer::Body::Output(mut output)) => {
                if let Some(stamps) = &mut stamps {
                    output.bytes = stamps.stamp(&output);
                }
                show(&output)?;
                logs.position = Some(output.position);
            }
            Ok(answer::Body::Done(_)) => return Ok(ExitCode::SUCCESS),
            Ok(_) => bail!(client::ClientError::Odd),
            Err(error) if reunion::is_away(&error) => {
                drop(sender);
                let again = || request::Body::Logs(logs.clone());
                (sender, receiver) = reunion::open(client, again).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Puts the time before each line, per stream, as lines may come in pieces.
#[derive(Debug, Default)]
struct Stamps {
    inside: [bool; 3],
}

impl Stamps {
    fn stamp(&mut self, output: &answer::Output) -> bytes::Bytes {
        let mut inside = [false];
        let inside = self.inside.get_mut(output.stream as usize).unwrap_or(&mut inside[0]);
        let mut stamped = Vec::with_capacity(output.bytes.len() + 32);
        for line in output.bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*inside {
                stamped.extend(moment::show(output.time_us).bytes());
                stamped.push(b' ');
            }
            stamped.extend(line);
            *inside = !line.ends_with(b"\n");
        }
        stamped.into()
    }
}
