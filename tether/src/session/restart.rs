//! Whether a process that has ended is run again, and when: Docker's restart policies.
//!
//! The pauses are Docker's, too: 100 ms, doubled with each end up to a minute, and 100 ms again after a run of
//! 10 s or more. A stop that somebody asked for ends it.

use std::time::Duration;

use guestinfo::RestartPolicy;

/// The pause before the first new run.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A run of that length makes the next pause the first again.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The runs of one process so far.
#[derive(Debug, Clone)]
pub struct Restarts {
    policy: RestartPolicy,
    /// How often it was run again.
    pub count: u32,
    pause: Option<Duration>,
}

impl Restarts {
    /// Before the first run.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, count: 0, pause: None }
    }

    /// Somebody wants it to end: the next end is the last. Whether it might not have been.
    pub fn give_up(&mut self) -> bool {
        !matches!(std::mem::replace(&mut self.policy, RestartPolicy::No), RestartPolicy::No)
    }

    /// After a run of the length `ran` that ended with `code`: the pause before the next, if there is to be one.
    pub fn again(&mut self, code: i32, ran: Duration) -> Option<Duration> {
        let again = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure(times) => {
                code != 0 && times.is_none_or(|times| self.count < times)
            }
            RestartPolicy::Always => true,
        };
        if !again {
            return None;
        }
        let pause = match self.pause.filter(|_| ran < GOOD_RUN) {
            None => FIRST_PAUSE,
            Some(pause) => (pause * 2).min(LONGEST_PAUSE),
        };
        self.pause = Some(pause);
        self.count += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_minute_and_a_good_run_starts_them_over() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        let mut pauses = || restarts.again(0, SHORT).unwrap().as_millis();
        let found: Vec<_> = (0..12).map(|_| pauses()).collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000];
        assert_eq!(found, expected);
        assert_eq!(restarts.again(0, GOOD_RUN), Some(FIRST_PAUSE));
        assert_eq!(restarts.count, 13);
    }

    #[test]
    fn only_failures_count_and_only_so_often() {
        let mut restarts = Restarts::new(RestartPolicy::OnFailure(Some(2)));
        assert!(restarts.again(0, SHORT).is_none(), "a success");
        assert!(restarts.again(1, SHORT).is_some());
        assert!(restarts.again(137, SHORT).is_some());
        assert!(restarts.again(1, SHORT).is_none(), "the third time");
        assert_eq!(restarts.count, 2);
    }

    #[test]
    fn a_stop_is_the_end_of_it() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        restarts.give_up();
        assert!(restarts.again(1, SHORT).is_none());
    }
}
