//! The place where the decoder finds values, by key and, like the hypervisor, in any letter case.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::key::{Header, Key, canonical};

/// What the decoder asks of a source of values.
pub trait Lookup {
    /// The value stored under exactly this key, whatever the case of its letters.
    fn value(&self, key: &str) -> Option<Cow<'_, str>>;

    /// Whether there is a value at this key or below it; `None` from a source that cannot know. The
    /// decoder then asks for each key that could be there.
    fn holds(&self, key: &Key) -> Option<bool>;
}

/// A set of pairs, all known beforehand.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    values: HashMap<String, String>,
    canonical: BTreeSet<String>,
}

impl Pairs {
    /// Indexes `pairs` for reading below `header`. Of two keys that differ in case only the first
    /// counts.
    pub fn new<K, V>(header: Header, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: Into<String>,
    {
        let mut all = Self::default();
        for (key, value) in pairs {
            let key = key.as_ref();
            all.canonical.insert(canonical(header, key));
            all.values.entry(key.to_ascii_lowercase()).or_insert_with(|| value.into());
        }
        all
    }
}

impl Lookup for Pairs {
    fn value(&self, key: &str) -> Option<Cow<'_, str>> {
        self.values.get(&key.to_ascii_lowercase()).map(Cow::from)
    }

    fn holds(&self, key: &Key) -> Option<bool> {
        let path = key.canonical();
        let below = |separator: &str| {
            let start = format!("{path}{separator}");
            self.canonical.range(start.clone()..).next().is_some_and(|key| key.starts_with(&start))
        };
        Some(self.canonical.contains(&path) || ["/", "|", "~"].into_iter().any(below))
    }
}
