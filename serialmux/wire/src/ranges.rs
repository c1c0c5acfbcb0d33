//! A set of disjoint half-open ranges of u64: received packet numbers, acknowledged bytes.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent half-open ranges in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds `range`, merging what it touches. Returns whether anything was new.
    pub fn insert(&mut self, range: Range<u64>) -> bool {
        let Range { mut start, mut end } = range;
        if start >= end || self.contains_range(start, end) {
            return false;
        }
        if let Some((&s, &e)) = self.0.range(..=start).next_back()
            && e >= start
        {
            start = s;
            end = end.max(e);
        }
        while let Some((&s, &e)) = self.0.range(start..=end).next() {
            end = end.max(e);
            self.0.remove(&s);
        }
        self.0.insert(start, end);
        true
    }

    /// Takes `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        let Range { start, end } = range;
        if start >= end {
            return;
        }
        let hit: Vec<(u64, u64)> = self
            .0
            .range(..end)
            .rev()
            .map(|(s, e)| (*s, *e))
            .take_while(|(_, e)| *e > start)
            .collect();
        for (s, e) in hit {
            self.0.remove(&s);
            if s < start {
                self.0.insert(s, start);
            }
            if e > end {
                self.0.insert(end, e);
            }
        }
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: u64) -> bool {
        self.contains_range(value, value + 1)
    }

    fn contains_range(&self, start: u64, end: u64) -> bool {
        self.0.range(..=start).next_back().is_some_and(|(_, e)| *e >= end)
    }

    /// Whether any of `range` is in the set.
    pub fn overlaps(&self, range: Range<u64>) -> bool {
        range.start < range.end
            && self.0.range(..range.end).next_back().is_some_and(|(_, end)| *end > range.start)
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u64>> {
        self.0.first_key_value().map(|(s, e)| *s..*e)
    }

    /// Removes and returns the lowest range.
    pub fn pop_first(&mut self) -> Option<Range<u64>> {
        self.0.pop_first().map(|(s, e)| s..e)
    }

    /// Ranges from the highest down.
    pub fn descending(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().rev().map(|(s, e)| *s..*e)
    }

    /// Joins the two lowest ranges, and with them what lies between.
    pub fn close_lowest_gap(&mut self) {
        if let Some(low) = self.pop_first()
            && let Some(next) = self.first()
        {
            self.insert(low.start..next.end);
        }
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(
            ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60),
        ) {
            let mut ranges = RangeSet::default();
            let mut model = BTreeSet::new();
            for (add, start, len) in ops {
                let span = start..start + len;
                if add {
                    let new = span.clone().filter(|n| !model.contains(n)).count() > 0;
                    prop_assert_eq!(ranges.insert(span.clone()), new);
                    model.extend(span);
                } else {
                    ranges.remove(span.clone());
                    span.for_each(|n| { model.remove(&n); });
                }
                let any = (start..start + len).any(|n| model.contains(&n));
                prop_assert_eq!(ranges.overlaps(start..start + len), any);
                for n in 0..90 {
                    prop_assert_eq!(ranges.contains(n), model.contains(&n));
                }
                let listed: Vec<_> = ranges.descending().collect();
                prop_assert!(listed.windows(2).all(|w| w[1].end < w[0].start));
            }
        }
    }
}
