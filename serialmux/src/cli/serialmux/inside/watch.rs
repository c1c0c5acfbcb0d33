//! `serialmux events`.

use crate::api::{answer, inside as api, request};
use crate::client::{self, Client, ClientError};
use crate::{clock, moment};
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Name, id or unique start of the id; all containers, if none is given
    container: Option<String>,
    /// Also what has been since this moment: 2026-01-31T12:00:00Z, seconds since 1970, or how long ago (10m)
    #[arg(long)]
    since: Option<String>,
    /// Only up to this moment
    #[arg(long)]
    until: Option<String>,
    /// One JSON object per event
    #[arg(long)]
    json: bool,
}

pub(crate) async fn listen(client: &Client, args: Listen) -> anyhow::Result<ExitCode> {
    let at = |text: &Option<String>| match text {
        None => Ok(0),
        Some(text) => moment::parse(text, clock::wall_us())
            .with_context(|| format!("\"{text}\" is no moment: give 2026-01-31T12:00:00Z, or 10m")),
    };
    let container = args.container.unwrap_or_default();
    let listen = api::Listen { container, since_us: at(&args.since)?, until_us: at(&args.until)? };
    let (_sender, mut receiver) = client.open(request::Body::Listen(listen)).await?;
    loop {
        match client::next(&mut receiver).await? {
            answer::Body::Event(event) => show(&event, args.json)?,
            answer::Body::Done(_) => return Ok(ExitCode::SUCCESS),
            _ => return Err(ClientError::Odd.into()),
        }
    }
}

fn show(event: &api::Event, as_json: bool) -> std::io::Result<()> {
    let api::Event { time_us, id, name, action, attributes } = event;
    let time = moment::show(*time_us);
    let mut out = std::io::stdout().lock();
    if as_json {
        let line = json!({
            "time": time, "id": id, "name": name, "action": action, "attributes": attributes,
        });
        return writeln!(out, "{line}");
    }
    let named = std::iter::once(format!("name={name}"));
    let others = attributes.iter().map(|(key, value)| format!("{key}={value}"));
    let all: Vec<String> = named.chain(others).collect();
    writeln!(out, "{time} container {action} {id} ({})", all.join(", "))
}
