//! Counts of what passed, failed and was skipped, read from what `cargo test` prints.

use std::ops::AddAssign;

/// What a line begins with by which a test says that it did not run, and why.
pub const SKIPPED: &str = "skipped: ";
/// What a line begins with that holds a figure for the record.
pub const MEASURED: &str = "measured: ";

/// Counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed and did what they are there for.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Did not run, with a printed reason.
    pub skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Reads the output of test programs line by line.
#[derive(Debug, Default)]
pub struct Tally {
    /// The test programs' own counts; tests that skip themselves count as passed there.
    results: Counts,
    /// How many skipped themselves.
    n_skipped_themselves: u64,
    /// Why tests were skipped.
    pub reasons: Vec<String>,
    /// Figures for the record.
    pub measured: Vec<String>,
    /// Inside what passing tests have printed (`--show-output`).
    is_in_successes: bool,
    /// Inside that of a test that has said already that it did not run.
    has_skipped: bool,
}

impl Tally {
    /// Takes a line in; whether it is one to show.
    pub fn line(&mut self, line: &str) -> bool {
        if let Some(reason) = line.strip_prefix(SKIPPED)
            && self.is_in_successes
        {
            // A test that says so for several of its parts is still one test.
            if !std::mem::replace(&mut self.has_skipped, true) {
                self.reasons.push(reason.to_owned());
                self.n_skipped_themselves += 1;
            }
            return true;
        }
        if line.starts_with("test ")
            && let Some((_, reason)) = line.split_once(" ... ignored")
        {
            let reason = reason.strip_prefix(", ").unwrap_or("ignored without a reason");
            self.reasons.push(reason.to_owned());
        }
        if let Some(figure) = line.strip_prefix(MEASURED) {
            self.measured.push(figure.to_owned());
            return true;
        }
        match line {
            "successes:" => self.is_in_successes = true,
            "failures:" => self.is_in_successes = false,
            _ if line.starts_with("---- ") => self.has_skipped = false,
            _ => {}
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.is_in_successes = false;
            self.results += counts(result);
        }
        !self.is_in_successes
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            passed: self.results.passed.saturating_sub(self.n_skipped_themselves),
            failed: self.results.failed,
            skipped: self.results.skipped + self.n_skipped_themselves,
        }
    }
}

// "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s"
fn counts(result: &str) -> Counts {
    let mut counts = Counts::default();
    for part in result.split(['.', ';']) {
        let mut words = part.split_whitespace();
        let (Some(n), Some(what)) = (words.next().and_then(|n| n.parse().ok()), words.next())
        else {
            continue;
        };
        match what {
            "passed" => counts.passed = n,
            "failed" => counts.failed = n,
            "ignored" => counts.skipped = n,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> (Tally, Vec<&str>) {
        let mut tally = Tally::default();
        let shown = text.lines().filter(|line| tally.line(line)).collect();
        (tally, shown)
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let (tally, _) = tally(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.01s",
        );
        assert_eq!(tally.counts(), Counts { passed: 5, failed: 4, skipped: 1 });
    }

    #[test]
    fn a_test_that_skips_itself_does_not_count_as_passed() {
        let (tally, shown) = tally(
            "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\nskipped: no root\nskipped: no root\nnoise\n\n\nsuccesses:\n    a\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(tally.counts(), Counts { passed: 1, failed: 0, skipped: 1 });
        assert_eq!(tally.reasons, ["no root"]);
        assert!(!shown.contains(&"noise") && shown.contains(&"skipped: no root"), "{shown:?}");
    }

    #[test]
    fn an_ignored_test_is_skipped_for_the_reason_it_names() {
        let (tally, _) = tally(
            "test a ... ignored, too big\ntest b ... ignored\n\n\
             test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(tally.counts(), Counts { passed: 0, failed: 0, skipped: 2 });
        assert_eq!(tally.reasons, ["too big", "ignored without a reason"]);
    }

    #[test]
    fn what_failing_tests_have_printed_is_shown() {
        let (_, shown) = tally("successes:\nx\nfailures:\n---- b stdout ----\nwhy");
        assert_eq!(shown, ["failures:", "---- b stdout ----", "why"]);
    }
}
