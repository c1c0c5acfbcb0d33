//! Which channel's bytes go next: strict for the urgent classes, weighted shares for the rest.

use crate::channel::{ChannelId, Class};
use std::collections::VecDeque;

const N: usize = Class::ALL.len();

/// How far terminals may run ahead of their four fifths of the line: a screenful, at once.
const LEAD: u64 = 16 * 1024;

/// Channels that have something to send, by class.
///
/// Terminals go before the weighted classes, but a terminal that never stops gets four fifths of
/// the line in the long run, so that logs always move.
///
/// The weighted classes run on virtual time: sending `n` bytes costs `n / weight`, and whoever has
/// spent least goes next. A class that wakes up starts at the present, so idling earns nothing.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    ready: [VecDeque<ChannelId>; N],
    spent: [u64; N],
    present: u64,
    /// What terminals have sent while others waited, less four times what those got meanwhile.
    lead: u64,
}

impl Schedule {
    /// Puts a channel at the end of its class's queue. The caller keeps it from being in twice.
    pub(super) fn wake(&mut self, class: Class, channel: ChannelId) {
        let present = self.present;
        let i = class as usize;
        if let (Some(queue), Some(spent)) = (self.ready.get_mut(i), self.spent.get_mut(i)) {
            if queue.is_empty() {
                *spent = (*spent).max(present);
            }
            queue.push_back(channel);
        }
    }

    /// Takes the channel whose turn it is.
    pub(super) fn next(&mut self) -> Option<(Class, ChannelId)> {
        let waiting =
            |class: &Class| self.ready.get(*class as usize).is_some_and(|q| !q.is_empty());
        let spent = |class: &Class| self.spent.get(*class as usize).copied().unwrap_or(0);
        let rank = |class: &Class| match class {
            Class::Terminal if self.lead > LEAD => (Some(u64::MAX), *class as u8),
            class => (class.weight().map(|_| spent(class)), *class as u8),
        };
        let class = Class::ALL.into_iter().filter(waiting).min_by_key(rank)?;
        if class.weight().is_some() {
            self.present = spent(&class);
        }
        let channel = self.ready.get_mut(class as usize)?.pop_front()?;
        Some((class, channel))
    }

    /// Undoes [`next`](Self::next).
    pub(super) fn put_back(&mut self, class: Class, channel: ChannelId) {
        if let Some(queue) = self.ready.get_mut(class as usize) {
            queue.push_front(channel);
        }
    }

    /// Books `n` bytes sent on a class.
    pub(super) fn spend(&mut self, class: Class, n: usize) {
        let n = n as u64;
        if let (Some(weight), Some(spent)) = (class.weight(), self.spent.get_mut(class as usize)) {
            *spent += n * 64 / u64::from(weight);
            self.lead = self.lead.saturating_sub(4 * n);
        } else if class == Class::Terminal {
            let others_wait = self.ready.iter().skip(Class::Exec as usize).any(|q| !q.is_empty());
            self.lead = if others_wait { self.lead + n } else { 0 };
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.iter().all(VecDeque::is_empty)
    }

    /// Forgets everybody.
    pub(super) fn clear(&mut self) {
        self.ready.iter_mut().for_each(VecDeque::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_classes_come_first_and_the_rest_share_by_weight() {
        let mut schedule = Schedule::default();
        let mut sent = [0usize; N];
        for class in Class::ALL {
            schedule.wake(class, ChannelId(class as u32));
        }
        for turn in 0..1302 {
            let (class, channel) = schedule.next().unwrap();
            sent[class as usize] += 100;
            schedule.spend(class, 100);
            if turn == 0 {
                assert_eq!(class, Class::Control);
            } else if turn == 1 {
                assert_eq!(class, Class::Terminal);
            } else {
                schedule.wake(class, channel);
            }
        }
        assert!(sent[2] > 79_000 && sent[3] > 39_000 && sent[4] > 9_000, "{sent:?}");
    }

    #[test]
    fn a_terminal_that_never_stops_leaves_a_fifth_to_the_others() {
        let mut schedule = Schedule::default();
        let mut sent = [0usize; N];
        schedule.wake(Class::Terminal, ChannelId(1));
        schedule.wake(Class::Log, ChannelId(3));
        for turn in 0..5_000 {
            let (class, channel) = schedule.next().unwrap();
            assert!(turn >= 32 || class == Class::Terminal, "a screenful is not held up");
            sent[class as usize] += 512;
            schedule.spend(class, 512);
            schedule.wake(class, channel);
        }
        let share = sent[Class::Log as usize] * 100 / 512 / 5_000;
        assert!((18..=21).contains(&share), "{share} %");
    }

    #[test]
    fn an_idle_class_saves_nothing_up() {
        let mut schedule = Schedule::default();
        schedule.wake(Class::Bulk, ChannelId(4));
        for _ in 0..1000 {
            let (class, channel) = schedule.next().unwrap();
            schedule.spend(class, 100);
            schedule.wake(class, channel);
        }
        schedule.wake(Class::Log, ChannelId(3));
        let turns: Vec<_> = (0..50)
            .map(|_| {
                let (class, channel) = schedule.next().unwrap();
                schedule.spend(class, 100);
                schedule.wake(class, channel);
                class
            })
            .collect();
        let bulk = turns.iter().filter(|class| **class == Class::Bulk).count();
        assert!((8..=12).contains(&bulk), "{bulk} of 50");
    }
}
