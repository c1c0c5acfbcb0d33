//! What is typed: the command lines of `serialmux` and `containervm`.

pub mod containervm;
pub mod serialmux;

use std::process::ExitCode;

/// Runs a program: reads its command line, does what it says, gives the exit code.
pub fn main<Cli, F, Done>(program: &str, run: F) -> ExitCode
where
    Cli: clap::Parser,
    F: FnOnce(Cli) -> Done,
    Done: Future<Output = anyhow::Result<ExitCode>>,
{
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(program, &error.into()),
    };
    let done = runtime.block_on(async { run(cli).await });
    // A thread may sit in a read of standard input, which nothing can end.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| fail(program, &error))
}

// clap's own code for a wrong command line, 2, could be the container's as well; Docker gives 125.
fn refuse(error: &clap::Error) -> ExitCode {
    let printed = error.print().is_ok();
    ExitCode::from(if error.use_stderr() || !printed { 125 } else { 0 })
}

/// Prints an error as one line and gives the exit code for it, as Docker does: 125.
pub fn fail(program: &str, error: &anyhow::Error) -> ExitCode {
    // A pipe that nobody reads is no reason to complain.
    let broken = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    if broken.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let text = format!("{error:#}").replace('\n', " ");
    eprintln!("{program}: {text}");
    ExitCode::from(125)
}

/// An exit code for the shell.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(255))
}

/// Does something to each; one that fails does not keep the others from it.
pub(crate) async fn each<F, Done>(
    program: &str,
    names: Vec<String>,
    act: F,
) -> anyhow::Result<ExitCode>
where
    F: Fn(String) -> Done,
    Done: Future<Output = anyhow::Result<()>>,
{
    let mut code = ExitCode::SUCCESS;
    for name in names {
        if let Err(error) = act(name).await {
            code = fail(program, &error);
        }
    }
    Ok(code)
}

/// Writes a shell's completions or the manual to standard output.
pub(crate) fn reference(
    mut command: clap::Command,
    shell: Option<clap_complete::Shell>,
) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let name = command.get_name().to_owned();
    match shell {
        Some(shell) => clap_complete::generate(shell, &mut command, name, &mut out),
        None => manual(command, &mut out)?,
    }
    Ok(())
}

// One page for everything: the program's own, then each command's.
fn manual(command: clap::Command, out: &mut impl std::io::Write) -> std::io::Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    page.render(out)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{} {}", command.get_name(), sub.get_name());
        let page = clap_mangen::Man::new(sub.clone().bin_name(&name).display_name(&name));
        writeln!(out, ".SH COMMAND {}", name.to_uppercase())?;
        page.render_synopsis_section(out)?;
        page.render_description_section(out)?;
        page.render_options_section(out)?;
    }
    Ok(())
}
