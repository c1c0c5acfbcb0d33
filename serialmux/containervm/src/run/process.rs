//! The process a container runs: options over the image's defaults, by Docker's rules.

use guestinfo::{CmdSpec, SessionSpec};

use super::{RunError, RunOptions, environment};
use crate::image::ImageConfig;

/// Longest host name Linux keeps (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 64;

/// The session with the container's own id.
pub(super) fn session(
    id: &str,
    hostname: &str,
    options: &RunOptions,
    config: &ImageConfig,
    host: &dyn Fn(&str) -> Option<String>,
) -> Result<SessionSpec, RunError> {
    let args = command(options, config)?;
    let env = environment::merged(options, config, hostname, host)?;
    let dir = options.workdir.clone().unwrap_or_else(|| config.working_dir.clone());
    if options.workdir.is_some() && !dir.starts_with('/') {
        return Err(RunError::Workdir(dir));
    }
    let user = options.user.clone().unwrap_or_else(|| config.user.clone());
    no_zero("the command", args.iter())?;
    no_zero("the environment", env.iter())?;
    no_zero("the working directory or user", [&dir, &user].into_iter())?;
    let session = SessionSpec {
        id: id.to_owned(),
        cmd: CmdSpec {
            path: args.first().cloned().unwrap_or_default(),
            args,
            env,
            dir: if dir.is_empty() { "/".to_owned() } else { dir },
        },
        tty: options.tty,
        open_stdin: options.interactive,
        attach: true,
        run_block: options.waits_for_attach,
        active: true,
        stop_signal: options.stop_signal.clone().unwrap_or_else(|| config.stop_signal.clone()),
        restart_policy: options.restart.clone(),
        user,
        process: options.process.clone(),
        ..SessionSpec::default()
    };
    guestinfo::RestartPolicy::of(&session)?;
    Ok(session)
}

/// Entry point and command. An entry point from the user clears the image's command, which was meant for another.
fn command(options: &RunOptions, config: &ImageConfig) -> Result<Vec<String>, RunError> {
    let (entrypoint, default) = match &options.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => (Vec::new(), &[][..]),
        Some(entrypoint) => (vec![entrypoint.clone()], &[][..]),
        None => (config.entrypoint.clone(), config.cmd.as_slice()),
    };
    let cmd = if options.command.is_empty() { default } else { &options.command };
    let args = [entrypoint.as_slice(), cmd].concat();
    match args.first() {
        Some(program) if !program.is_empty() => Ok(args),
        _ => Err(RunError::NoCommand(options.image.clone())),
    }
}

/// The host name asked for, or the short id.
pub(super) fn hostname(id: &str, options: &RunOptions) -> Result<String, RunError> {
    let Some(name) = &options.hostname else { return Ok(crate::store::short(id).to_owned()) };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let fits = (1..=MAX_HOSTNAME).contains(&name.len()) && name.bytes().all(is_part);
    if fits && !name.starts_with(['-', '.']) {
        Ok(name.clone())
    } else {
        Err(RunError::Hostname(name.clone()))
    }
}

fn no_zero<'a>(
    what: &'static str,
    mut texts: impl Iterator<Item = &'a String>,
) -> Result<(), RunError> {
    if texts.any(|text| text.contains('\0')) { Err(RunError::ZeroByte { what }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entry_point_and_command_combine_as_docker_does() {
        let check = |image: (&str, &str), user: (Option<&str>, &str), expected: &str| {
            let config = ImageConfig {
                entrypoint: words(image.0),
                cmd: words(image.1),
                ..ImageConfig::default()
            };
            let options = RunOptions {
                image: "img".into(),
                entrypoint: user.0.map(str::to_owned),
                command: words(user.1),
                ..RunOptions::default()
            };
            let found = command(&options, &config)
                .map_or_else(|error| error.to_string(), |args| args.join(" "));
            assert!(
                found.starts_with(expected) && (expected.starts_with("no") || found == expected),
                "{found}"
            );
        };
        check(("", "sh"), (None, ""), "sh");
        check(("/e -x", "a"), (None, ""), "/e -x a");
        check(("/e -x", "a"), (None, "b c"), "/e -x b c");
        check(("/e -x", "a"), (Some("/f"), ""), "/f");
        check(("/e -x", "a"), (Some("/f"), "b"), "/f b");
        check(("/e -x", "a"), (Some(""), "b"), "b");
        check(("/e -x", "a"), (Some(""), ""), "no command: the image img names none");
        check(("", ""), (None, ""), "no command");
    }

    #[test]
    fn host_names_are_checked() {
        let hostname = |name: &str| {
            hostname(
                "0123456789abcdef",
                &RunOptions { hostname: Some(name.into()), ..RunOptions::default() },
            )
        };
        assert_eq!(hostname("web.example").unwrap(), "web.example");
        for bad in ["", "-x", "a b", "ä", &"x".repeat(65)] {
            assert!(matches!(hostname(bad), Err(RunError::Hostname(_))), "{bad}");
        }
        assert_eq!(
            super::hostname("0123456789abcdef", &RunOptions::default()).unwrap(),
            "0123456789ab"
        );
    }
}
