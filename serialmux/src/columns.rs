//! Tables of processes as `ps` prints them, and the part of ps's options that people give to `docker top`.

use crate::moment;
use thiserror::Error;
use wire::message::inside::Process;

/// What cannot be shown.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ColumnsError {
    /// No such column.
    #[error("there is no column \"{0}\"; there are {names}", names = names())]
    Unknown(String),
    /// Something else of ps.
    #[error("\"{0}\" is not understood: give -ef, aux, -o COLUMNS, or nothing")]
    Options(String),
}

/// One column.
#[derive(Debug, Clone, Copy)]
struct Column {
    /// As it is asked for.
    name: &'static str,
    /// As it is headed.
    title: &'static str,
    show: fn(&Process) -> String,
}

const fn column(name: &'static str, title: &'static str, show: fn(&Process) -> String) -> Column {
    Column { name, title, show }
}

/// procps's names and headings; `nspid` is the id that the container sees.
const COLUMNS: [Column; 31] = [
    column("pid", "PID", |p| p.pid.to_string()),
    column("nspid", "NSPID", |p| p.inner_pid.to_string()),
    column("ppid", "PPID", |p| p.parent.to_string()),
    column("user", "USER", user),
    column("uname", "USER", user),
    column("euser", "EUSER", user),
    column("uid", "UID", |p| p.uid.to_string()),
    column("gid", "GID", |p| p.gid.to_string()),
    column("pcpu", "%CPU", |p| tenths(cpu_permille(p))),
    column("%cpu", "%CPU", |p| tenths(cpu_permille(p))),
    column("c", "C", |p| (cpu_permille(p) / 10).min(99).to_string()),
    column("pmem", "%MEM", |p| tenths(share(p.resident_kib, p.total_kib))),
    column("%mem", "%MEM", |p| tenths(share(p.resident_kib, p.total_kib))),
    column("vsz", "VSZ", |p| p.virtual_kib.to_string()),
    column("vsize", "VSZ", |p| p.virtual_kib.to_string()),
    column("rss", "RSS", |p| p.resident_kib.to_string()),
    column("tty", "TTY", tty),
    column("tt", "TT", tty),
    column("stat", "STAT", |p| p.state.clone()),
    column("state", "S", |p| p.state.clone()),
    column("s", "S", |p| p.state.clone()),
    column("ni", "NI", |p| p.nice.to_string()),
    column("nlwp", "NLWP", |p| p.threads.to_string()),
    column("stime", "STIME", started),
    column("start", "START", started),
    column("etime", "ELAPSED", |p| elapsed(p.age_us)),
    column("time", "TIME", |p| clock(p.cpu_us)),
    column("comm", "COMMAND", |p| p.name.clone()),
    column("args", "COMMAND", |p| p.command.clone()),
    column("cmd", "CMD", |p| p.command.clone()),
    column("command", "COMMAND", |p| p.command.clone()),
];

/// The columns of `ps -ef`, which Docker takes unless told otherwise; UID shows the name there.
const FULL: [(&str, &str); 8] = [
    ("user", "UID"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("c", "C"),
    ("stime", "STIME"),
    ("tty", "TTY"),
    ("time", "TIME"),
    ("cmd", "CMD"),
];

/// The columns of `ps aux`.
const BSD: [(&str, &str); 11] = [
    ("user", "USER"),
    ("pid", "PID"),
    ("pcpu", "%CPU"),
    ("pmem", "%MEM"),
    ("vsz", "VSZ"),
    ("rss", "RSS"),
    ("tty", "TTY"),
    ("stat", "STAT"),
    ("start", "START"),
    ("time", "TIME"),
    ("command", "COMMAND"),
];

fn names() -> String {
    COLUMNS.map(|column| column.name).join(", ")
}

/// Which columns are shown, and in which order.
#[derive(Debug, Clone)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// The columns that options of ps ask for: none of them, `-ef`, `aux`, or `-o` with a list, which may also
    /// stand alone.
    ///
    /// # Errors
    /// [`ColumnsError`].
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, ColumnsError> {
        let mut words = options.iter().map(AsRef::as_ref).flat_map(str::split_whitespace);
        let mut columns = Vec::new();
        while let Some(word) = words.next() {
            let list = match word {
                // What is listed is the container's processes, all of them, whatever the letters say.
                "-e" | "-A" | "a" | "x" | "ax" | "-ax" => continue,
                "-f" | "-ef" | "-fe" | "-Af" | "-fA" => {
                    columns = named(&FULL)?;
                    continue;
                }
                "u" | "aux" | "-aux" | "axu" | "uax" => {
                    columns = named(&BSD)?;
                    continue;
                }
                "-o" | "-eo" | "o" | "axo" | "-axo" | "--format" => {
                    words.next().unwrap_or_default()
                }
                word => match word.strip_prefix("-o").or_else(|| word.strip_prefix("-eo")) {
                    Some(list) => list,
                    None if word.starts_with('-') => {
                        return Err(ColumnsError::Options(word.to_owned()));
                    }
                    None => word,
                },
            };
            for name in list.split(',').filter(|name| !name.is_empty()) {
                let (name, title) =
                    name.split_once('=').map_or((name, None), |(n, t)| (n, Some(t)));
                let mut column = find(name)?;
                // An empty title, as in `pid=`, is one that is not shown; a title of one's own is not kept here.
                if title.is_some_and(str::is_empty) {
                    column.title = "";
                }
                columns.push(column);
            }
        }
        if columns.is_empty() { named(&FULL).map(Self) } else { Ok(Self(columns)) }
    }

    /// The headings.
    pub fn titles(&self) -> Vec<String> {
        self.0.iter().map(|column| column.title.to_owned()).collect()
    }

    /// A process's row.
    pub fn row(&self, process: &Process) -> Vec<String> {
        self.0.iter().map(|column| (column.show)(process)).collect()
    }
}

fn find(name: &str) -> Result<Column, ColumnsError> {
    let found = COLUMNS.iter().find(|column| column.name == name);
    found.copied().ok_or_else(|| ColumnsError::Unknown(name.to_owned()))
}

fn named(list: &[(&'static str, &'static str)]) -> Result<Vec<Column>, ColumnsError> {
    list.iter().map(|(name, title)| Ok(Column { title, ..find(name)? })).collect()
}

/// Lays rows out in columns wide enough for all of them; the last one is as long as it likes.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if n + 1 < row.len() {
                let n_blanks = width - cell.chars().count() + 3;
                text.extend(std::iter::repeat_n(' ', n_blanks));
            }
        }
        text.push('\n');
    }
    text
}

fn user(process: &Process) -> String {
    if process.user.is_empty() { process.uid.to_string() } else { process.user.clone() }
}

fn tty(process: &Process) -> String {
    if process.tty.is_empty() { "?".to_owned() } else { process.tty.clone() }
}

fn share(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000) / whole.max(1)
}

/// As ps has it: processor time over the time since the start.
fn cpu_permille(process: &Process) -> u64 {
    share(process.cpu_us, process.age_us)
}

fn tenths(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

/// The time of day if it was today, the day else; in UTC, as the guest's clock is.
fn started(process: &Process) -> String {
    const DAY_US: u64 = 86_400_000_000;
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // 2026-01-31T12:34:56.000000000Z
    let text = moment::show(process.started_us);
    if process.started_us / DAY_US == process.time_us / DAY_US {
        return text.get(11..16).unwrap_or_default().to_owned();
    }
    let month = text.get(5..7).and_then(|n| n.parse::<usize>().ok()).unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).copied().unwrap_or_default();
    format!("{month}{}", text.get(8..10).unwrap_or_default())
}

/// `[DD-]HH:MM:SS`.
fn clock(us: u64) -> String {
    let seconds = us / 1_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let text = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days == 0 { text } else { format!("{days}-{text}") }
}

/// `[[DD-]HH:]MM:SS`.
fn elapsed(us: u64) -> String {
    let text = clock(us);
    text.strip_prefix("00:").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process {
            pid: 412,
            inner_pid: 7,
            parent: 410,
            user: "alice".into(),
            uid: 1000,
            gid: 100,
            state: "S".into(),
            tty: "pts/1".into(),
            time_us: 1_700_000_000_000_000,
            started_us: 1_700_000_000_000_000 - 60_000_000,
            age_us: 60_000_000,
            cpu_us: 7_500_000,
            virtual_kib: 4144,
            resident_kib: 2048,
            total_kib: 65_536,
            nice: -5,
            threads: 3,
            name: "sh".into(),
            command: "sh -c sleep 9".into(),
        }
    }

    fn row(options: &[&str]) -> String {
        let columns = Columns::parse(options).unwrap();
        format!("{}|{}", columns.titles().join(" "), columns.row(&process()).join(" "))
    }

    #[test]
    fn the_usual_options_of_ps_give_its_columns() {
        let full =
            "UID PID PPID C STIME TTY TIME CMD|alice 412 410 12 22:12 pts/1 00:00:07 sh -c sleep 9";
        for options in [&[][..], &["-ef"], &["-e", "-f"]] {
            assert_eq!(row(options), full);
        }
        assert_eq!(
            row(&["aux"]),
            "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND|alice 412 12.5 3.1 4144 2048 pts/1 S 22:12 \
             00:00:07 sh -c sleep 9"
        );
        for options in [
            &["-o", "pid,nspid,comm"][..],
            &["-eo pid,nspid,comm"],
            &["pid,nspid,comm"],
            &["-opid,nspid,comm"],
        ] {
            assert_eq!(row(options), "PID NSPID COMMAND|412 7 sh");
        }
        assert_eq!(row(&["-o", "pid=,etime"]), " ELAPSED|412 01:00");
    }

    #[test]
    fn what_ps_would_not_know_is_refused() {
        let error = Columns::parse(&["-o", "pid,nosuch"]).unwrap_err();
        assert!(
            error.to_string().starts_with("there is no column \"nosuch\"; there are pid,"),
            "{error}"
        );
        let error = Columns::parse(&["--forest"]).unwrap_err();
        assert_eq!(error, ColumnsError::Options("--forest".into()));
    }

    #[test]
    fn times_are_shown_as_ps_shows_them() {
        assert_eq!(clock(3_723_000_000), "01:02:03");
        assert_eq!(clock(90_000_000_000), "1-01:00:00");
        assert_eq!(elapsed(3_723_000_000), "01:02:03");
        assert_eq!(elapsed(5_000_000), "00:05");
        let old = Process { started_us: 1_690_000_000_000_000, ..process() };
        assert_eq!(started(&old), "Jul22");
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let rows = [["A", "BB", "C"], ["xxx", "y", "a long last one"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "A     BB   C\nxxx   y    a long last one\n");
    }
}
