//! `serialmux top`, `stats`, `events`, `diff`, `cp`, `freeze`, `thaw` and `debug`.

mod copy;
mod stats;
mod watch;

pub(super) use copy::{CopyArgs, copy};
pub(super) use stats::{Stats, stats};
pub(super) use watch::{Listen, listen};

use crate::api::{answer, inside as api, request};
use crate::client::{self, Client, ClientError};
use crate::columns::{Columns, table};
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use wire::message::inside::{Diagnosis, Process};

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Name, id or unique start of the id
    container: String,
    /// One JSON object per process
    #[arg(long)]
    json: bool,
    /// Options of ps: -ef (the default), aux, or -o with names of columns; nspid is the id inside
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    ps: Vec<String>,
}

pub(super) async fn top(client: &Client, args: Top) -> anyhow::Result<ExitCode> {
    let columns = Columns::parse(&args.ps)?;
    let body = request::Body::Top(api::Top { container: args.container });
    let (_sender, mut receiver) = client.open(body).await?;
    let mut rows = vec![columns.titles()];
    let mut out = std::io::stdout().lock();
    loop {
        match client::next(&mut receiver).await? {
            answer::Body::Processes(api::Processes { processes }) => {
                for process in processes {
                    if args.json {
                        writeln!(out, "{}", as_json(&process))?;
                    } else {
                        rows.push(columns.row(&process));
                    }
                }
            }
            answer::Body::Done(_) => break,
            _ => return Err(ClientError::Odd.into()),
        }
    }
    if !args.json {
        out.write_all(table(&rows).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(process: &Process) -> serde_json::Value {
    json!({
        "pid": process.pid, "inner_pid": process.inner_pid, "parent": process.parent,
        "uid": process.uid, "user": process.user, "gid": process.gid, "state": process.state,
        "tty": process.tty, "started": crate::moment::show(process.started_us),
        "age_us": process.age_us, "cpu_us": process.cpu_us, "virtual_kib": process.virtual_kib,
        "resident_kib": process.resident_kib, "nice": process.nice, "threads": process.threads,
        "name": process.name, "command": process.command,
    })
}

pub(super) async fn diff(
    client: &Client,
    container: String,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let body = request::Body::Diff(request::Container { container });
    let (_sender, mut receiver) = client.open(body).await?;
    let mut out = std::io::stdout().lock();
    loop {
        match client::next(&mut receiver).await? {
            answer::Body::Changes(api::Changes { changes }) => {
                for change in changes {
                    let letter = ["C", "A", "D"].get(change.kind as usize).copied().unwrap_or("?");
                    if json {
                        let path = String::from_utf8_lossy(&change.path);
                        writeln!(out, "{}", json!({ "kind": letter, "path": path }))?;
                    } else {
                        out.write_all(&[letter.as_bytes(), b" ", &change.path, b"\n"].concat())?;
                    }
                }
            }
            answer::Body::Done(_) => return Ok(ExitCode::SUCCESS),
            _ => return Err(ClientError::Odd.into()),
        }
    }
}

pub(super) async fn debug(
    client: &Client,
    container: String,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let body = request::Body::Diagnose(request::Container { container });
    let (_sender, mut receiver) = client.open(body).await?;
    let answer::Body::Diagnosis(diagnosis) = client::next(&mut receiver).await? else {
        return Err(ClientError::Odd.into());
    };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{:#}", diagnosis_json(&diagnosis))?;
        return Ok(ExitCode::SUCCESS);
    }
    for section in &diagnosis.sections {
        writeln!(out, "{}", section.title)?;
        for fact in &section.facts {
            writeln!(out, "  {:<31} {}", fact.name, fact.value)?;
        }
    }
    writeln!(out, "clock\n  {:<32}{}", "offset from here, µs", offset(&diagnosis))?;
    writeln!(out, "agent's log")?;
    for line in &diagnosis.log {
        writeln!(out, "  {line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn freeze(
    client: &Client,
    containers: Vec<String>,
    seconds: u32,
) -> anyhow::Result<ExitCode> {
    crate::cli::each("serialmux", containers, |name| async move {
        client.freeze(name, seconds).await.map_err(Into::into)
    })
    .await
}

pub(super) async fn thaw(client: &Client, containers: Vec<String>) -> anyhow::Result<ExitCode> {
    crate::cli::each("serialmux", containers, |name| async move {
        client.thaw(name).await.map_err(Into::into)
    })
    .await
}

/// How far the guest's clock is ahead, as well as it can be told after the answer's way.
fn offset(diagnosis: &Diagnosis) -> i64 {
    diagnosis.time_us.cast_signed() - crate::clock::wall_us().cast_signed()
}

fn diagnosis_json(diagnosis: &Diagnosis) -> serde_json::Value {
    let sections = diagnosis.sections.iter().map(|section| {
        let facts = section.facts.iter().map(|fact| (fact.name.clone(), json!(fact.value)));
        (section.title.clone(), facts.collect::<serde_json::Map<_, _>>().into())
    });
    let mut object: serde_json::Map<String, serde_json::Value> = sections.collect();
    object.insert("clock_offset_us".into(), json!(offset(diagnosis)));
    object.insert("log".into(), json!(diagnosis.log));
    object.into()
}
