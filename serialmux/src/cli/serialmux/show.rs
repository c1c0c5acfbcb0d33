//! `serialmux ps` and `serialmux inspect`.

use crate::api::answer;
use crate::client::{self, Client};
use std::io::Write;
use std::process::ExitCode;

pub(super) async fn ps(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let containers = client.list().await?;
    let mut out = std::io::stdout().lock();
    if !json {
        writeln!(out, "{:<14}{:<24}{:<12}{:<11}COMMAND", "ID", "NAME", "STATUS", "CONNECTED")?;
    }
    for container in containers {
        let answer::Summary { id, name, command, status, exit_code, error, connected, .. } =
            container;
        if json {
            let exit = (status == "exited").then_some(exit_code);
            let line = serde_json::json!({
                "id": id, "name": name, "command": command, "status": status, "exit_code": exit,
                "error": error, "connected": connected,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let status = if status == "exited" { format!("exited({exit_code})") } else { status };
        let connected = if connected { "yes" } else { "no" };
        let id = id.get(..12).unwrap_or(&id);
        writeln!(out, "{id:<14}{name:<24}{status:<12}{connected:<11}{command}")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn inspect(json: &str) -> anyhow::Result<()> {
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|_| client::ClientError::Odd)?;
    writeln!(std::io::stdout(), "{value:#}")?;
    Ok(())
}
