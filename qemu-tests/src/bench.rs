//! The bench: the same program in the same VM over a bare serial port and over the link, side by side.
//!
//! ```text
//!              ┌── bare ──▶ TCP socket of QEMU ──▶ ttyS2, raw ───────────────────┐
//!   this ──────┤                                                                 ├──▶ gauge
//!              └── link ──▶ containervm run -i ──▶ serialmux ──▶ ttyS0 ──▶ tether┘
//! ```
//!
//! A second VM has virtio-serial ports in the place of both, a third connections over vsock. Both pipes are there all the time and take turns, so that whatever else the host does weighs on
//! both. Only ratios are of interest; what they should be is in `TARGETS`. Nothing here is
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
/// The same over what is no serial line.
const FAST_OUT: What = What::Out(Kind::Random, 20 * OUT);
const FAST_IN: What = What::In(Kind::Random, 50 * IN);
/// The measurement of echoes, behind what it is measured over.
const ECHO: &str = "echo of a byte";
/// Echoes asked for in a turn.
const ECHOES: usize = 600;
/// Cuts of the connection.
const CUTS: usize = 10;

/// What is aimed at.
const TARGETS: [Target; 14] = [
    Target::at_least("out, random bytes", 0.95),
    Target::at_least("out, log text", 4.0),
    Target::at_least("out, lines of seq, to bare bulk", 3.0),
    Target::at_least("in, random bytes", 0.95),
    Target::at_least("in, log text", 3.0),
    Target::at_most("echo of a byte, p50", 1.5),
    Target::at_most("echo of a byte, p99", 1.5),
    Target::at_most("echo in another's flood, p99 to bare p50", 10.0),
    Target::at_least("virtio: out, random bytes", 0.5),
    Target::at_most("virtio: echo of a byte, p50", 3.0),
    Target::at_most("virtio: echo of a byte, p99", 3.0),
    Target::at_least("vsock: out, random bytes", 0.5),
    Target::at_most("vsock: echo of a byte, p50", 3.0),
    Target::at_most("vsock: echo of a byte, p99", 3.0),
];

/// One measurement; what is said of it begins with its name.
struct Measurement(&'static str, What);

#[derive(Clone, Copy)]
enum What {
    /// So many bytes out.
    Out(Kind, usize),
    /// So many bytes in.
    In(Kind, usize),
    /// Lines out, each written by itself.
    LineByLine,
    /// The same, and as `seq` writes them, both also against the best that the bare port can do.
    Lines,
    Echoes,
    Reconnects,
}

/// Those in a VM with virtio-serial ports.
const OVER_VIRTIO: [Measurement; 4] = [
    Measurement("virtio: out, random bytes", FAST_OUT),
    Measurement("virtio: out, line by line", What::LineByLine),
    Measurement("virtio: in, random bytes", FAST_IN),
    Measurement("virtio: echo of a byte", What::Echoes),
];

/// Those in a VM with vsock.
const OVER_VSOCK: [Measurement; 3] = [
    Measurement("vsock: out, random bytes", FAST_OUT),
    Measurement("vsock: in, random bytes", FAST_IN),
    Measurement("vsock: echo of a byte", What::Echoes),
];

const MEASUREMENTS: [Measurement; 7] = [
    Measurement("out, random bytes", What::Out(Kind::Random, OUT)),
    Measurement("out, log text", What::Out(Kind::Text, OUT)),
    Measurement("out, line by line", What::Lines),
    Measurement("in, random bytes", What::In(Kind::Random, IN)),
    Measurement("in, log text", What::In(Kind::Text, IN)),
    Measurement(ECHO, What::Echoes),
    Measurement("connection cut while output comes", What::Reconnects),
];

impl Measurement {
    fn make(
        &self,
        machine: &mut Machine,
        report: &mut Report,
        tell: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let Self(name, what) = *self;
        match what {
            What::Out(kind, len) => {
                let bytes = kind.bytes(len);
                compare(machine, name, report, tell, |pipe| pipe.takes_out(kind, &bytes)).map(drop)
            }
            What::In(kind, len) => {
                let bytes = kind.bytes(len);
                compare(machine, name, report, tell, |pipe| pipe.puts_in(&bytes)).map(drop)
            }
            What::LineByLine => line_by_line(machine, "lines", name, report, tell).map(drop),
            What::Lines => lines(machine, report, tell),
            What::Echoes => {
                echoes(machine, name.strip_suffix(ECHO).unwrap_or_default(), report, tell)
            }
            What::Reconnects => reconnects(machine, report),
        }
    }
}

/// Measures everything, or only what has `filter` in its name, telling `tell` where it is; the table
/// at the end.
///
/// # Errors
/// When the VM does not come up or dies, or bytes are not those that were sent.
pub fn run(filter: Option<&str>, tell: &mut dyn FnMut(&str)) -> Result<String> {
    let mut report = Report::new(&TARGETS);
    let vms = [
        (machine::Kind::Uart, "a bare serial port", &MEASUREMENTS[..]),
        (machine::Kind::Virtio, "a bare virtio-serial port", &OVER_VIRTIO[..]),
        (machine::Kind::Vsock, "a bare connection over vsock", &OVER_VSOCK[..]),
    ];
    for (kind, port, all) in vms {
        let wanted = |it: &&Measurement| filter.is_none_or(|filter| it.0.contains(filter));
        let mut wanted = all.iter().filter(wanted).peekable();
        if wanted.peek().is_none() {
            continue;
        }
        tell(&format!("booting a VM with {port} beside the link's"));
        let mut machine = Machine::boot(kind)?;
        for measurement in wanted {
            tell(measurement.0);
            measurement.make(&mut machine, &mut report, tell)?;
        }
        machine.end()?;
    }
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

/// A measurement's rates and use of the processor, as rows of the report; the link's rate.
fn compare(
    machine: &mut Machine,
    name: &str,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
    measure: impl FnMut(&mut Pipe) -> Result<Took>,
) -> Result<f64> {
    let [bare, link] = in_turns(machine, tell, measure)?;
    report.rates(name, bare.rate, link.rate);
    report.cpu(name, bare.cpu, link.cpu);
    Ok(link.rate)
}

fn line_by_line(
    machine: &mut Machine,
    command: &str,
    name: &str,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<f64> {
    let text: String = (1..=LINES).map(|i| format!("{i}\n")).collect();
    let took = |pipe: &mut Pipe| pipe.takes_lines(command, LINES, text.as_bytes());
    compare(machine, name, report, tell, took)
}

fn lines(machine: &mut Machine, report: &mut Report, tell: &mut dyn FnMut(&str)) -> Result<()> {
    for (command, name) in [("lines", "out, line by line"), ("seq", "out, lines of seq")] {
        let link = line_by_line(machine, command, name, report, tell)?;
        // Set against the best that the bare port can do.
        let bulk = machine.bare().takes_out(Kind::Random, &Kind::Random.bytes(OUT))?;
        report.rates(&format!("{name}, to bare bulk"), bulk.rate, link);
    }
    Ok(())
}

fn echoes(
    machine: &mut Machine,
    over: &str,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    let [bare, link] = idle_echoes(machine)?;
    report.times(&format!("{over}{ECHO}, p50"), bare.p50, link.p50);
    report.times(&format!("{over}{ECHO}, p99"), bare.p99, link.p99);
    let relayed = Percentiles::of(machine.bare().relayed(ECHOES)?);
    report.times(&format!("{over}{ECHO}, p50 to a bare relay's"), relayed.p50, link.p50);
    tell("  with standard error of the same process flooding the line");
    machine.link().ask("flood")?;
    let flooded = Percentiles::of(machine.link().echoes(ECHOES)?);
    machine.link().say("calm")?;
    tell("  with another session flooding the line");
    let mut flood = machine.exec()?;
    flood.ask("flood")?;
    let beside = Percentiles::of(machine.link().echoes(ECHOES)?);
    flood.say("exit 0")?;
    for (flood, took) in [("its own", flooded), ("another's", beside)] {
        let row = |of: &str| format!("{over}echo in {flood} flood, {of} to bare p50");
        report.times(&row("p50"), bare.p50, took.p50);
        report.times(&row("p99"), bare.p50, took.p99);
    }
    Ok(())
}

fn idle_echoes(machine: &mut Machine) -> Result<[Percentiles; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (pipe, took) in machine.pipes().into_iter().zip(&mut all) {
            took.extend(pipe.echoes(ECHOES)?);
        }
    }
    Ok(all.map(Percentiles::of))
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

fn reconnects(machine: &mut Machine, report: &mut Report) -> Result<()> {
    let [bare, link] = machine.cut_while_output_comes(CUTS)?;
    ensure!(bare.len() == CUTS && link.len() == CUTS, "a connection did not come back");
    let [bare, link] = [bare, link].map(|it| Percentiles::of(it).p50);
    report.times("reconnected to first byte", bare, link);
    Ok(())
}
