//! `cargo qemu-tests`: everything the project can prove, in one command, with counts at the end.

mod steps;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use qemu_tests::Checkout;
use qemu_tests::tally::{Counts, Tally};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use steps::{Judge, Step};

/// Proves everything this project can prove about itself.
///
/// Brings in what is missing (QEMU, firmware, tools: through apt; the musl target: through rustup)
/// and says so, then runs, in this order: the formatting check, clippy and the documentation with
/// warnings as errors, the unit and integration tests of all crates, the build of bootstrap.iso, and
/// the boot tests, each of which boots real VMs from that ISO.
///
/// All steps run even when one fails. The last line is "N passed, N failed, N skipped"; the exit
/// status is 0 only when nothing failed and nothing was skipped that could have run here.
#[derive(Debug, Parser)]
#[command(
    name = "qemu-tests",
    bin_name = "cargo qemu-tests",
    after_help = "Examples:\n  \
    cargo qemu-tests                       everything\n  \
    cargo qemu-tests --only boot vi        the boot tests with \"vi\" in their names\n  \
    cargo qemu-tests --only unit --seeds 20000\n                                         \
    a night of simulated line faults\n  \
    cargo qemu-tests --bench               how fast the link is, against a bare serial port\n  \
    cargo qemu-tests --bench echo          only that part of it\n\n\
    CONTAINERVM_ACCEL=tcg emulates VMs even where KVM works."
)]
struct Cli {
    /// Run only these steps
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// Seeds for the simulation of the link under line faults [default: 1000]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Tests that boot VMs at once
    #[arg(long, value_name = "N", default_value_t = 2)]
    boots: u32,
    /// Instead of testing, measure the link against a bare serial port in the same VM; some minutes
    #[arg(long, conflicts_with_all = ["only", "seeds"])]
    bench: bool,
    /// Only tests, or measurements, with this in their names
    filter: Option<String>,
}

/// Kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Formatting, clippy, documentation
    Lint,
    /// Tests that boot nothing
    Unit,
    /// The ISO, and tests that boot it
    Boot,
}

/// What became of a step.
struct Outcome {
    name: &'static str,
    counts: Counts,
    took: Duration,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = if cli.bench { bench(&cli) } else { prove(&cli) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("qemu-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures; that a target is missed is no failure.
fn bench(cli: &Cli) -> Result<bool> {
    let tell = &mut |line: &str| eprintln!("qemu-tests: {line}");
    steps::bring_in(&|line| eprintln!("qemu-tests: {line}"), true)?;
    let checkout = Checkout::here();
    if let Some(step) = steps::vsock(&checkout) {
        tell(step.name);
        let (counts, _) = run(&checkout, &step)?;
        ensure!(counts.failed == 0, "{} failed", step.name);
    }
    println!("{}", qemu_tests::bench::run(cli.filter.as_deref(), tell)?);
    Ok(true)
}

fn prove(cli: &Cli) -> Result<bool> {
    let checkout = Checkout::here();
    let only = |kind| cli.only.is_empty() || cli.only.contains(&kind);
    steps::bring_in(&|line| eprintln!("qemu-tests: {line}"), only(Kind::Boot) || only(Kind::Unit))?;
    let steps: Vec<Step> =
        steps::all(&checkout, cli)?.into_iter().filter(|step| only(step.kind)).collect();
    let mut outcomes = Vec::new();
    let mut all = Tally::default();
    let mut is_built = true;
    for (i, step) in steps.iter().enumerate() {
        println!("\n=== {}/{} {}", i + 1, steps.len(), step.name);
        if step.needs_build && !is_built {
            println!("not run: what it needs could not be built");
            let counts = Counts { failed: 1, ..Counts::default() };
            outcomes.push(Outcome { name: step.name, counts, took: Duration::ZERO });
            continue;
        }
        let start = Instant::now();
        let (counts, tally) = run(&checkout, step)?;
        is_built &= step.judge != Judge::Build || counts.failed == 0;
        all.reasons.extend(tally.reasons);
        all.measured.extend(tally.measured);
        let took = start.elapsed();
        println!("--- {}: {}", step.name, in_words(counts, took));
        outcomes.push(Outcome { name: step.name, counts, took });
    }
    Ok(summarize(&outcomes, &all))
}

/// Runs a step, shows what it prints, and counts.
fn run(checkout: &Checkout, step: &Step) -> Result<(Counts, Tally)> {
    let mut command = checkout.cargo(&step.arguments);
    command.envs(step.environment.iter().map(|(name, value)| (*name, value.as_str())));
    let mut tally = Tally::default();
    let is_good = follow(command, &mut |line| {
        if tally.line(line) {
            println!("{line}");
        }
    })?;
    let mut counts = match step.judge {
        Judge::Tests => tally.counts(),
        Judge::Status | Judge::Build => Counts { passed: u64::from(is_good), ..Counts::default() },
    };
    // What does not compile has no counts of its own.
    if !is_good && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok((counts, tally))
}

/// Runs `command`, gives each line of its output to `line` as it comes; whether it succeeded.
fn follow(mut command: Command, line: &mut dyn FnMut(&str)) -> Result<bool> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cannot start cargo")?;
    // The command holds the pipe's writing end, whose last copy must be the child's.
    drop(command);
    lines(reader, line)?;
    Ok(child.wait()?.success())
}

fn lines(reader: impl Read, line: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
        io::stdout().flush()?;
        bytes.clear();
    }
    Ok(())
}

/// Prints the table and the last line; whether all is well.
fn summarize(outcomes: &[Outcome], all: &Tally) -> bool {
    let mut sum = Counts::default();
    println!("\n{:<34}{:>8}{:>8}{:>8}{:>10}", "", "passed", "failed", "skipped", "time");
    for Outcome { name, counts, took } in outcomes {
        sum += *counts;
        let Counts { passed, failed, skipped } = counts;
        println!("{name:<34}{passed:>8}{failed:>8}{skipped:>8}{:>8} s", took.as_secs());
    }
    if !all.measured.is_empty() {
        println!("\nmeasured, for the record:");
        all.measured.iter().for_each(|line| println!("  {line}"));
    }
    let (expected, unexpected): (Vec<&String>, Vec<&String>) =
        all.reasons.iter().partition(|reason| steps::is_expected(reason));
    for (title, reasons) in [
        ("skipped, as expected here:", &expected),
        ("skipped, though this machine should be able to run them:", &unexpected),
    ] {
        if !reasons.is_empty() {
            println!("\n{title}");
            reasons.iter().for_each(|reason| println!("  {reason}"));
        }
    }
    println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    sum.failed == 0 && unexpected.is_empty()
}

fn in_words(counts: Counts, took: Duration) -> String {
    let Counts { passed, failed, skipped } = counts;
    format!("{passed} passed, {failed} failed, {skipped} skipped in {} s", took.as_secs())
}
