//! What was measured, as a table with targets and whether they are met.

use std::fmt::Write as _;
use std::time::Duration;

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    row: &'static str,
    least: f64,
    most: f64,
}

impl Target {
    pub(super) const fn at_least(row: &'static str, least: f64) -> Self {
        Self { row, least, most: f64::INFINITY }
    }

    pub(super) const fn at_most(row: &'static str, most: f64) -> Self {
        Self { row, least: 0.0, most }
    }

    fn words(&self) -> String {
        if self.least > 0.0 {
            format!(">= {:.2}", self.least)
        } else {
            format!("<= {:.2}", self.most)
        }
    }

    fn is_met(&self, ratio: f64) -> bool {
        (self.least..=self.most).contains(&ratio)
    }
}

#[derive(Debug)]
struct Row {
    name: String,
    bare: f64,
    link: f64,
    unit: &'static str,
}

/// The rows so far.
#[derive(Debug)]
pub(super) struct Report {
    targets: &'static [Target],
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(targets: &'static [Target]) -> Self {
        Self { targets, rows: Vec::new() }
    }

    /// Bytes per second.
    pub(super) fn rates(&mut self, name: &str, bare: f64, link: f64) {
        self.push(name, bare / 1000.0, link / 1000.0, "KB/s");
    }

    /// How long something took.
    pub(super) fn times(&mut self, name: &str, bare: Duration, link: Duration) {
        self.push(name, bare.as_secs_f64() * 1e3, link.as_secs_f64() * 1e3, "ms");
    }

    /// Milliseconds of the guest's processor for a million bytes.
    pub(super) fn cpu(&mut self, name: &str, bare: f64, link: f64) {
        self.push(&format!("{name}: guest's CPU"), bare, link, "ms/MB");
    }

    fn push(&mut self, name: &str, bare: f64, link: f64, unit: &'static str) {
        self.rows.push(Row { name: name.to_owned(), bare, link, unit });
    }

    /// All of it, for people.
    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "{:<42}{:>10}{:>10}  {:<6}{:>7}  {:<9}\n",
            "", "bare", "link", "", "ratio", "target"
        );
        for Row { name, bare, link, unit } in &self.rows {
            let ratio = link / bare;
            let target = self.targets.iter().find(|target| target.row == name);
            let judged = target.map_or_else(String::new, |target| {
                let word = if target.is_met(ratio) { "pass" } else { "MISS" };
                format!("{:<9}{word}", target.words())
            });
            let line =
                format!("{name:<42}{bare:>10.2}{link:>10.2}  {unit:<6}{ratio:>7.2}  {judged}");
            let _infallible = writeln!(table, "{}", line.trim_end());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_by_the_ratio_and_rows_without_one_are_not_judged() {
        static TARGETS: [Target; 2] = [Target::at_least("a", 0.95), Target::at_most("b", 1.5)];
        let mut report = Report::new(&TARGETS);
        report.rates("a", 1000.0, 949.0);
        report.times("b", Duration::from_millis(2), Duration::from_millis(3));
        report.cpu("a", 1.0, 9.0);
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].ends_with(">= 0.95  MISS"), "{table}");
        assert!(lines[2].ends_with("<= 1.50  pass"), "{table}");
        assert!(lines[3].ends_with("9.00"), "{table}");
    }
}
