//! Log lines such as a busy web service writes: no two alike, and much in them that comes again.

use crate::Noise;
use std::io::Write as _;

const LEVELS: [&str; 8] = ["INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "ERROR"];
const SERVICES: [&str; 6] =
    ["gateway", "billing", "session-store", "catalog", "mailer", "inventory-sync"];
const PATHS: [&str; 8] = [
    "/api/v1/orders",
    "/api/v1/orders/{id}/items",
    "/api/v2/users",
    "/healthz",
    "/static/app.js",
    "/api/v1/carts",
    "/login",
    "/api/v2/search?q=winter+boots",
];
const EVENTS: [&str; 6] = [
    "cache miss, loading from the database",
    "retrying after a timeout of the upstream",
    "connection pool is at its limit, waiting for a free one",
    "token refreshed",
    "job finished",
    "slow query: SELECT id, state, updated_at FROM orders WHERE customer_id = $1 ORDER BY id",
];
const METHODS: [&str; 4] = ["GET", "GET", "POST", "PUT"];
const STATUSES: [u16; 8] = [200, 200, 200, 200, 201, 304, 404, 502];

/// A service's log, line by line.
#[derive(Debug)]
pub(crate) struct LogText {
    noise: Noise,
    /// µs since midnight.
    time_us: u64,
    request: u64,
}

impl Default for LogText {
    fn default() -> Self {
        Self { noise: Noise::new(2), time_us: 9 * 3_600_000_000, request: 48_113 }
    }
}

impl LogText {
    /// Appends the next line.
    pub(crate) fn line(&mut self, out: &mut Vec<u8>) {
        self.time_us = (self.time_us + 40 + self.noise.below(9_000)) % 86_400_000_000;
        let us = self.time_us;
        let (s, us) = (us / 1_000_000, us % 1_000_000);
        let level = self.pick(&LEVELS);
        let service = self.pick(&SERVICES);
        let id = self.noise.next();
        let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
        let head = format!("2026-03-14T{h:02}:{m:02}:{s:02}.{us:06}Z {level:<5} {service}");
        self.request += 1;
        let request = self.request;
        let rest = if self.noise.below(3) == 0 {
            let event = self.pick(&EVENTS);
            let (attempt, ms) = (1 + self.noise.below(4), self.noise.below(2_000));
            format!("request={request} {event} attempt={attempt} elapsed_ms={ms}")
        } else {
            let (method, path) = (self.pick(&METHODS), self.pick(&PATHS));
            let status = self.pick(&STATUSES);
            let (bytes, us) = (self.noise.below(40_000), self.noise.below(90_000));
            let (a, b) = (self.noise.below(256), self.noise.below(256));
            format!(
                "request={request} trace={id:016x} {method} {path} status={status} bytes={bytes} \
                 took={us}us client=10.20.{a}.{b}"
            )
        };
        writeln!(out, "{head} {rest}").unwrap_or_default();
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let i = self.noise.below(among.len() as u64) as usize;
        among[i]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_lines_are_alike() {
        let mut bytes = Vec::new();
        let mut text = LogText::default();
        (0..5_000).for_each(|_| text.line(&mut bytes));
        let text = String::from_utf8(bytes).unwrap();
        let lines: BTreeSet<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5_000);
        let length = text.len() / 5_000;
        assert!((90..180).contains(&length), "{length} bytes a line");
    }
}
