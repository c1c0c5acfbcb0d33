//! What `serialmux` does to each of several containers: rm, wait, pause, unpause, kill, reload.

use crate::cli::each;
use crate::client::Client;
use crate::signals;
use anyhow::Context;
use std::process::ExitCode;

/// Forgets containers.
pub(super) async fn remove(client: &Client, containers: Vec<String>) -> anyhow::Result<ExitCode> {
    each(
        "serialmux",
        containers,
        |name| async move { client.remove(name).await.map_err(Into::into) },
    )
    .await
}

/// Waits for containers to end, and prints their exit codes.
pub(super) async fn wait(client: &Client, containers: Vec<String>) -> anyhow::Result<ExitCode> {
    each("serialmux", containers, |name| async move {
        println!("{}", client.wait(name).await?.code);
        Ok(())
    })
    .await
}

/// Freezes the processes of containers.
pub(super) async fn pause(client: &Client, containers: Vec<String>) -> anyhow::Result<ExitCode> {
    each(
        "serialmux",
        containers,
        |name| async move { client.pause(name).await.map_err(Into::into) },
    )
    .await
}

/// Lets the processes of containers go on.
pub(super) async fn unpause(client: &Client, containers: Vec<String>) -> anyhow::Result<ExitCode> {
    each(
        "serialmux",
        containers,
        |name| async move { client.unpause(name).await.map_err(Into::into) },
    )
    .await
}

/// Sends a signal to containers, or to a process beside their own.
pub(super) async fn kill(
    client: &Client,
    containers: Vec<String>,
    exec: String,
    signal: &str,
) -> anyhow::Result<ExitCode> {
    let number = signal_number(signal)?;
    each("serialmux", containers, |name| {
        let exec = exec.clone();
        async move { client.kill_exec(name, exec, number).await.map_err(Into::into) }
    })
    .await
}

/// The number of a signal that people name.
///
/// # Errors
/// That there is none.
pub(super) fn signal_number(text: &str) -> anyhow::Result<i32> {
    signals::number(text)
        .with_context(|| format!("\"{text}\" is no signal: give a name such as TERM, or 1 to 64"))
}

/// Has the agents of containers read their configs again, and prints what came of it.
pub(super) async fn reload(client: &Client, containers: Vec<String>) -> anyhow::Result<ExitCode> {
    each("serialmux", containers, |name| async move {
        println!("{}", client.reload(name).await?);
        Ok(())
    })
    .await
}
