//! What a client orders and waits for: signals, sizes, a stop, a pause; it is told that it is done, or why not.

use super::{Handle, Refusal, ask, ended};
use crate::api::request::{self, Body};
use crate::daemon::events::Event;
use crate::daemon::registry::Registry;
use wire::message::mux;

/// Has the guest do it.
pub(super) async fn carry_out(body: Body, registry: &Registry) -> Result<(), Refusal> {
    match body {
        Body::Kill(request::Kill { container, signal, exec }) => {
            let handle = registry.find(&container)?;
            let session = session(&handle, exec);
            // The guest tells of it, as of those that a stop sends: before it tells what came of it.
            ask(&handle, mux::Body::Signal(mux::Signal { session, signal })).await?;
        }
        Body::Resize(request::Resize { container, rows, columns, exec }) => {
            let handle = registry.find(&container)?;
            let session = session(&handle, exec);
            ask(&handle, mux::Body::Resize(mux::Resize { session, rows, columns })).await?;
        }
        Body::Stop(request::Stop { container, grace, signal }) => {
            let handle = registry.find(&container)?;
            stop(&handle, grace, signal).await?;
            registry.events().tell(event(&handle, "stop"));
        }
        Body::Pause(request::Container { container }) => {
            let handle = registry.find(&container)?;
            ask(&handle, mux::Body::Pause(mux::Pause {})).await?;
            registry.events().tell(event(&handle, "pause"));
        }
        Body::Unpause(request::Container { container }) => {
            let handle = registry.find(&container)?;
            ask(&handle, mux::Body::Unpause(mux::Unpause {})).await?;
            registry.events().tell(event(&handle, "unpause"));
        }
        Body::Reload(request::Container { container }) => {
            ask(&*registry.find(&container)?, mux::Body::Reload(mux::Reload {})).await?;
        }
        other => return Err(Refusal::Told(format!("{other:?} is no order"))),
    }
    Ok(())
}

fn event(handle: &Handle, action: &'static str) -> Event {
    Event::now(&handle.id, &handle.name, action)
}

// The session that a client means: an exec, or else the container's own.
fn session(handle: &Handle, exec: String) -> String {
    if exec.is_empty() { handle.id.clone() } else { exec }
}

// As with Docker, what has ended already need not be stopped.
async fn stop(handle: &Handle, grace: Option<u64>, signal: i32) -> Result<(), Refusal> {
    if handle.status().exit.is_none() {
        let session = handle.id.clone();
        let asked = ask(handle, mux::Body::Stop(mux::Stop { session, signal, grace })).await;
        // It may have ended before it could be asked.
        if asked.is_err() && handle.status().exit.is_none() {
            return asked.map(drop);
        }
    }
    ended(handle).await.map(drop)
}
