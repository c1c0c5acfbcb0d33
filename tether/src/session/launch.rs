//! What a session starts, in plain words: from the config, or from a request.

use guestinfo::{LinkMode, LinkSpec, SessionSpec, Spec};
use wire::message::mux;

use crate::environment;
use crate::process::Launch;
use crate::relay::WhenFull;

/// The least and the most output kept in memory for a process that is not to wait, or before a disk is used, bytes.
const MIN_BACKLOG: usize = 64 * 1024;
const MAX_BACKLOG: usize = 64 * 1024 * 1024;

/// The config's session in plain words.
pub(super) fn of_config(spec: &Spec, session: &SessionSpec) -> Launch {
    let cmd = &session.cmd;
    let mut args = cmd.args.clone();
    // VIC's config names the program and gives argv with its zeroth element; either may be missing.
    let program = if cmd.path.is_empty() {
        args.first().cloned().unwrap_or_default()
    } else {
        cmd.path.clone()
    };
    if args.is_empty() {
        args.push(program.clone());
    }
    let user = match session.group.as_str() {
        "" => session.user.clone(),
        group => format!("{}:{group}", session.user.split(':').next().unwrap_or_default()),
    };
    Launch {
        program,
        args,
        env: cmd.env.clone(),
        dir: cmd.dir.clone(),
        user,
        hostname: crate::identity::hostname(&spec.full_hostname(), "", &spec.id),
        tty: session.tty,
        open_stdin: session.open_stdin,
        detached: false,
        attributes: (&session.process).into(),
        init: spec.container.init,
    }
}

/// What is kept of output that the link has no room for.
pub(super) fn backlog(link: &LinkSpec) -> Option<(usize, WhenFull)> {
    let max = usize::try_from(link.max_buffer_size).unwrap_or(usize::MAX);
    let max = max.clamp(MIN_BACKLOG, MAX_BACKLOG);
    match link.mode {
        // What goes to a disk is gathered in memory.
        LinkMode::Blocking => link.spool.then_some((max, WhenFull::Block)),
        LinkMode::NonBlocking => Some((max, WhenFull::Drop)),
    }
}

/// A request's session: what it does not say is as with `first`, the container's own, as Docker has it.
pub(super) fn of_request(first: &Launch, request: &mux::Exec) -> Launch {
    let or = |own: &String, else_: &String| if own.is_empty() { else_ } else { own }.clone();
    let is_replaced = |entry: &&String| {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        environment::value(&request.env, name).is_none()
    };
    let mut env: Vec<String> = first.env.iter().filter(is_replaced).cloned().collect();
    env.extend_from_slice(&request.env);
    // The home is the user's, who may be another one here.
    Launch {
        program: request.args.first().cloned().unwrap_or_default(),
        args: request.args.clone(),
        env,
        dir: or(&request.dir, &first.dir),
        user: or(&request.user, &first.user),
        tty: request.tty,
        open_stdin: request.open_stdin && !request.detach,
        detached: request.detach,
        ..first.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_request_says_what_differs_from_the_container() {
        let first = Launch {
            env: strings(&["A=1", "PATH=/bin", "odd"]),
            dir: "/srv".to_owned(),
            user: "web".to_owned(),
            hostname: "box".to_owned(),
            tty: true,
            open_stdin: true,
            ..Launch::default()
        };
        let request = mux::Exec { args: strings(&["ls", "-l"]), ..mux::Exec::default() };
        let same = of_request(&first, &request);
        assert_eq!((same.program.as_str(), &same.args), ("ls", &request.args));
        assert_eq!((same.dir.as_str(), same.user.as_str()), ("/srv", "web"));
        assert_eq!((same.tty, same.open_stdin, &same.env), (false, false, &first.env));
        assert_eq!(same.hostname, "box");
        let other = mux::Exec {
            env: strings(&["A=2", "B=3"]),
            dir: "/".to_owned(),
            user: "0".to_owned(),
            open_stdin: true,
            detach: true,
            ..request
        };
        let other = of_request(&first, &other);
        assert_eq!(other.env, ["PATH=/bin", "odd", "A=2", "B=3"]);
        assert_eq!((other.dir.as_str(), other.user.as_str()), ("/", "0"));
        assert!(other.detached && !other.open_stdin, "nobody is there to type");
    }
}
