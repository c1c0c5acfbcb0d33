//! `serialmux stats`.

use crate::api::{answer, inside as api, request};
use crate::client::{self, Client, ClientError};
use crate::columns::table;
use clap::Args;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tokio::sync::mpsc;
use wire::message::inside::Sample;

/// Between two samples.
const INTERVAL_MS: u32 = 1000;

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Show one measurement, and end
    #[arg(long)]
    no_stream: bool,
    /// One JSON object per container and measurement
    #[arg(long)]
    json: bool,
    /// Names, ids or unique starts of ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// What a container does now: the difference of two samples, and the later one.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    cpu_percent: f64,
    sample: Sample,
}

impl Row {
    fn between(before: &Sample, sample: Sample) -> Self {
        let us = sample.uptime_us.saturating_sub(before.uptime_us).max(1);
        let cpu_percent = sample.cpu_us.saturating_sub(before.cpu_us) as f64 * 100.0 / us as f64;
        Self { cpu_percent, sample }
    }

    /// Memory in use as Docker counts it: without file pages that could be dropped at once.
    fn used(&self) -> u64 {
        self.sample.memory.saturating_sub(self.sample.inactive_file)
    }

    fn memory_percent(&self) -> f64 {
        self.used() as f64 * 100.0 / self.sample.memory_limit.max(1) as f64
    }

    fn network(&self) -> (u64, u64) {
        let sum = |of: fn(&wire::message::inside::Interface) -> u64| {
            self.sample.interfaces.iter().map(of).fold(0, u64::saturating_add)
        };
        (sum(|interface| interface.received), sum(|interface| interface.sent))
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let (received, sent) = self.network();
        let Sample { memory_limit, disk_read, disk_written, tasks, .. } = self.sample;
        vec![
            name.to_owned(),
            format!("{:.2}%", self.cpu_percent),
            format!("{} / {}", binary(self.used()), binary(memory_limit)),
            format!("{:.2}%", self.memory_percent()),
            format!("{} / {}", decimal(received), decimal(sent)),
            format!("{} / {}", decimal(disk_read), decimal(disk_written)),
            tasks.to_string(),
        ]
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let (received, sent) = self.network();
        let s = &self.sample;
        json!({
            "container": name, "time": crate::moment::show(s.time_us),
            "cpu_percent": self.cpu_percent, "cpu_us": s.cpu_us, "processors": s.processors,
            "throttled": s.throttled, "memory": self.used(), "memory_limit": s.memory_limit,
            "memory_percent": self.memory_percent(), "ooms": s.ooms, "oom_kills": s.oom_kills,
            "network_received": received, "network_sent": sent, "disk_read": s.disk_read,
            "disk_written": s.disk_written, "tasks": s.tasks, "tasks_limit": s.tasks_limit,
        })
    }
}

const TITLES: [&str; 7] =
    ["CONTAINER", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];

pub(crate) async fn stats(client: &Client, args: Stats) -> anyhow::Result<ExitCode> {
    let (sender, mut news) = mpsc::channel(args.containers.len().max(1));
    for (n, container) in args.containers.iter().enumerate() {
        let (client, container, sender) = (client.clone(), container.clone(), sender.clone());
        tokio::spawn(async move {
            if let Err(error) = follow(&client, container, n, &sender).await {
                // The command may have ended; then nobody needs the reason.
                drop(sender.send((n, Err(error))).await);
            }
        });
    }
    drop(sender);
    let mut code = ExitCode::SUCCESS;
    let mut rows: Vec<Option<Row>> = vec![None; args.containers.len()];
    let mut left: Vec<bool> = vec![true; args.containers.len()];
    while left.contains(&true)
        && let Some((n, row)) = news.recv().await
    {
        match row {
            Ok(row) => {
                if args.json {
                    writeln!(std::io::stdout(), "{}", row.json(&args.containers[n]))?;
                }
                rows[n] = Some(row);
                left[n] &= !args.no_stream;
            }
            Err(error) => {
                code = crate::cli::fail("serialmux", &error.into());
                (rows[n], left[n]) = (None, false);
            }
        }
        let due = if args.no_stream { !left.contains(&true) } else { left.contains(&true) };
        if due && !args.json {
            show(&args.containers, &rows)?;
        }
        if args.no_stream && !left.contains(&true) {
            break;
        }
    }
    Ok(code)
}

async fn follow(
    client: &Client,
    container: String,
    n: usize,
    rows: &mpsc::Sender<(usize, Result<Row, ClientError>)>,
) -> Result<(), ClientError> {
    let body = request::Body::Stats(api::Stats { container, interval_ms: INTERVAL_MS });
    let (_sender, mut receiver) = client.open(body).await?;
    let mut before: Option<Sample> = None;
    loop {
        let answer::Body::Sample(sample) = client::next(&mut receiver).await? else {
            return Err(ClientError::Odd);
        };
        if let Some(before) = &before
            && rows.send((n, Ok(Row::between(before, sample.clone())))).await.is_err()
        {
            return Ok(());
        }
        before = Some(sample);
    }
}

fn show(containers: &[String], rows: &[Option<Row>]) -> std::io::Result<()> {
    let mut cells = vec![TITLES.map(str::to_owned).to_vec()];
    for (name, row) in containers.iter().zip(rows) {
        if let Some(row) = row {
            cells.push(row.cells(name));
        }
    }
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        // Home, and nothing below.
        write!(out, "\x1b[H\x1b[J")?;
    }
    out.write_all(table(&cells).as_bytes())?;
    out.flush()
}

/// Bytes as Docker shows memory: powers of 1,024.
fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// Bytes as Docker shows what is moved: powers of 1,000.
fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"])
}

fn scaled(bytes: u64, base: f64, units: &[&str]) -> String {
    let mut value = bytes as f64;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if value < base {
            break;
        }
        value /= base;
        unit = next;
    }
    // Four digits, as Docker has them.
    let n_digits = if value >= 1000.0 {
        4
    } else if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.*}", 4 - n_digits);
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_what_changed_between_two_samples() {
        let before = Sample { uptime_us: 1_000_000, cpu_us: 500_000, ..Sample::default() };
        let after = Sample {
            uptime_us: 3_000_000,
            cpu_us: 3_500_000,
            memory: 6 << 20,
            inactive_file: 2 << 20,
            memory_limit: 16 << 20,
            disk_read: 1_234_567,
            tasks: 3,
            ..Sample::default()
        };
        let row = Row::between(&before, after.clone());
        let cells = ["c", "150.00%", "4MiB / 16MiB", "25.00%", "0B / 0B", "1.235MB / 0B", "3"];
        assert_eq!(row.cells("c"), cells);
        // A VM that began anew counts from zero.
        assert_eq!(Row::between(&after, before).cpu_percent, 0.0);
    }

    #[test]
    fn sizes_are_shown_with_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1024, "1KiB"),
            (1_500_000, "1.431MiB"),
            (123_456_789, "117.7MiB"),
        ] {
            assert_eq!(binary(bytes), text);
        }
        assert_eq!(decimal(1_500_000), "1.5MB");
    }
}
