//! The bench: the same program in the same VM over a bare serial port and over the link, side by side.
//!
//! ```text
//!              ┌── bare ──▶ TCP socket of QEMU ──▶ ttyS2, raw ───────────────────┐
//!   this ──────┤                                                                 ├──▶ gauge
//!              └── link ──▶ containervm run -i ──▶ serialmux ──▶ ttyS0 ──▶ tether┘
//! ```
//!
//! Both pipes are there all the time and take turns, so that whatever else the host does weighs on
//! both. Only ratios are of interest; what they should be is in [`TARGETS`]. Nothing here is
//! asserted but that the bytes are the right ones.

mod machine;
mod pipe;
mod report;

use anyhow::{Result, ensure};
use gauge::Kind;
use machine::Machine;
use pipe::Pipe;
use report::{Report, Target};
use std::time::Duration;

/// Turns of each pipe in each measurement.
const ROUNDS: usize = 3;
/// Bytes of a transfer out: some seconds.
const OUT: usize = 2_000_000;
/// Lines of the measurement line by line.
const LINES: usize = 300_000;
/// Bytes of a transfer in, which QEMU's serial port makes slow.
const IN: usize = 200_000;
/// Echoes asked for in a turn.
const ECHOES: usize = 200;
/// Cuts of the connection.
const CUTS: usize = 10;

/// What is aimed at.
const TARGETS: [Target; 8] = [
    Target::at_least("out, random bytes", 0.95),
    Target::at_least("out, log text", 4.0),
    Target::at_least("out, line by line, to bare bulk", 3.0),
    Target::at_least("in, random bytes", 0.95),
    Target::at_least("in, log text", 3.0),
    Target::at_most("echo of a byte, p50", 1.5),
    Target::at_most("echo of a byte, p99", 1.5),
    Target::at_most("echo in a flood, p99 to bare p50", 10.0),
];

/// Measures everything, telling `tell` where it is; the table at the end.
///
/// # Errors
/// When the VM does not come up or dies, or bytes are not those that were sent.
pub fn run(tell: &mut dyn FnMut(&str)) -> Result<String> {
    tell("booting a VM with a bare serial port beside the link's");
    let mut machine = Machine::boot()?;
    let mut report = Report::new(&TARGETS);
    let bulk = transfers(&mut machine, &mut report, tell)?;
    lines(&mut machine, &mut report, bulk, tell)?;
    echoes(&mut machine, &mut report, tell)?;
    reconnects(&mut machine, &mut report, tell)?;
    machine.end()?;
    Ok(report.table())
}

/// What a transfer took.
#[derive(Debug, Clone, Copy)]
struct Took {
    /// Bytes per second.
    rate: f64,
    /// Milliseconds of the guest's processor for a million bytes.
    cpu: f64,
}

/// One measurement with both pipes in turns: the medians, bare first.
fn in_turns(
    machine: &mut Machine,
    tell: &mut dyn FnMut(&str),
    mut measure: impl FnMut(&mut Pipe) -> Result<Took>,
) -> Result<[Took; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (pipe, took) in machine.pipes().into_iter().zip(&mut all) {
            let once = measure(pipe)?;
            tell(&format!("  {}: {:.1} KB/s", pipe.name(), once.rate / 1e3));
            took.push(once);
        }
    }
    Ok(all.map(|took| Took {
        rate: median(took.iter().map(|took| took.rate).collect()),
        cpu: median(took.iter().map(|took| took.cpu).collect()),
    }))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bulk out and in; the bare pipe's rate for random bytes out.
fn transfers(
    machine: &mut Machine,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<f64> {
    let mut bulk = f64::NAN;
    for (name, kind, is_out) in [
        ("out, random bytes", Kind::Random, true),
        ("out, log text", Kind::Text, true),
        ("in, random bytes", Kind::Random, false),
        ("in, log text", Kind::Text, false),
    ] {
        tell(name);
        let bytes = kind.bytes(if is_out { OUT } else { IN });
        let [bare, link] = in_turns(machine, tell, |pipe| match is_out {
            true => pipe.takes_out(kind, &bytes),
            false => pipe.puts_in(&bytes),
        })?;
        if bulk.is_nan() {
            bulk = bare.rate;
        }
        report.rates(name, bare.rate, link.rate);
        report.cpu(name, bare.cpu, link.cpu);
    }
    Ok(bulk)
}

fn lines(
    machine: &mut Machine,
    report: &mut Report,
    bulk: f64,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    tell("out, line by line");
    let text: String = (1..=LINES).map(|i| format!("{i}\n")).collect();
    let [bare, link] = in_turns(machine, tell, |pipe| pipe.takes_lines(LINES, text.as_bytes()))?;
    report.rates("out, line by line, to bare bulk", bulk, link.rate);
    report.rates("out, line by line, both so", bare.rate, link.rate);
    report.cpu("out, line by line", bare.cpu, link.cpu);
    Ok(())
}

fn echoes(machine: &mut Machine, report: &mut Report, tell: &mut dyn FnMut(&str)) -> Result<()> {
    tell("echo of a byte, nothing else going on");
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (pipe, took) in machine.pipes().into_iter().zip(&mut all) {
            took.extend(pipe.echoes(ECHOES)?);
        }
    }
    let [bare, link] = all.map(Percentiles::of);
    report.times("echo of a byte, p50", bare.p50, link.p50);
    report.times("echo of a byte, p99", bare.p99, link.p99);
    tell("echo of a byte, while standard error of the same process floods the line");
    machine.link().say("flood")?;
    let flooded = Percentiles::of(machine.link().echoes(ECHOES)?);
    report.times("echo in a flood, p50 to bare p50", bare.p50, flooded.p50);
    report.times("echo in a flood, p99 to bare p50", bare.p50, flooded.p99);
    Ok(())
}

/// Of some times.
#[derive(Debug, Clone, Copy)]
struct Percentiles {
    p50: Duration,
    p99: Duration,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied();
        Self { p50: at(50).unwrap_or_default(), p99: at(99).unwrap_or_default() }
    }
}

fn reconnects(
    machine: &mut Machine,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    tell("cutting the connection while output comes");
    let [bare, link] = machine.cut_while_output_comes(CUTS)?;
    ensure!(bare.len() == CUTS && link.len() == CUTS, "a connection did not come back");
    let [bare, link] = [bare, link].map(|it| Percentiles::of(it).p50);
    report.times("reconnected to first byte", bare, link);
    Ok(())
}
