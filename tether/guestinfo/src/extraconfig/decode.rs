//! Decoding: extraconfig pairs as a value that serde can build, with every fault told.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::DeserializeOwned;

use super::key::{Header, Key};
use super::pairs::{Lookup, Pairs};
use crate::vmx::start_of;

mod access;
mod node;

/// One value that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {found}; expected {expected}")]
pub struct DecodeError {
    /// The key.
    pub key: String,
    /// The start of its value, quoted; "nothing" if there is none; only the size of a secret.
    pub found: String,
    /// What the value should be.
    pub expected: String,
}

/// Every value that is not what it should be, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeErrors(pub Vec<DecodeError>);

impl std::error::Error for DecodeErrors {}

impl fmt::Display for DecodeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "{n} bad config {}", if n == 1 { "key" } else { "keys" })?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

/// What could be read, beside what could not.
#[derive(Debug, Clone)]
pub struct Decoded<T> {
    /// The value, with stand-ins (zero, empty, default) where there was a fault; `None` if a
    /// field without a default was missing.
    pub value: Option<T>,
    /// The faults.
    pub errors: Vec<DecodeError>,
}

impl<T> Decoded<T> {
    /// The value if there was no fault at all.
    ///
    /// # Errors
    /// All the faults.
    pub fn into_result(self) -> Result<T, DecodeErrors> {
        match self.value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(DecodeErrors(self.errors)),
        }
    }
}

/// Reads a value from pairs below `header`. Pairs that it does not ask for are ignored.
///
/// # Errors
/// Every value that is not what it should be.
pub fn from_pairs<T, K, V>(
    header: Header,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Result<T, DecodeErrors>
where
    T: DeserializeOwned,
    K: AsRef<str>,
    V: Into<String>,
{
    from_lookup(header, &Pairs::new(header, pairs)).into_result()
}

/// How many faults that a type's own `Deserialize` finds are gathered; each costs another pass.
const MAX_CUSTOM_ERRORS: usize = 32;

/// Reads a value from any [`Lookup`], and hands back what could be read even when there are faults.
pub fn from_lookup<T: DeserializeOwned>(header: Header, lookup: &dyn Lookup) -> Decoded<T> {
    let mut skipped = HashSet::new();
    let mut custom = Vec::new();
    loop {
        let pass =
            Pass { lookup, skipped: &skipped, errors: RefCell::default(), n_found: Cell::new(0) };
        let outcome = T::deserialize(node::Node::at(&pass, Key::root(header)));
        let mut errors = pass.errors.into_inner();
        let fault = match outcome {
            Ok(value) => {
                errors.append(&mut custom);
                return Decoded { value: Some(value), errors };
            }
            Err(fault) => fault,
        };
        let at = fault.key.clone();
        custom.push(fault.into_error(lookup));
        // A fault that serde reports ends the pass; the next one goes around it to find the others.
        match at {
            Some(at) if custom.len() < MAX_CUSTOM_ERRORS && skipped.insert(at.to_string()) => {}
            _ => {
                errors.append(&mut custom);
                return Decoded { value: None, errors };
            }
        }
    }
}

/// How many faults are told; what follows them is one more that says so. A short value can hold
/// many.
const MAX_ERRORS: usize = 1000;

/// One pass over the values.
struct Pass<'a> {
    lookup: &'a dyn Lookup,
    /// Fields that made a `Deserialize` fail in an earlier pass, now treated as absent.
    skipped: &'a HashSet<String>,
    errors: RefCell<Vec<DecodeError>>,
    /// How many values have been found so far.
    n_found: Cell<usize>,
}

impl<'a> Pass<'a> {
    fn value(&self, key: &str) -> Option<Cow<'a, str>> {
        let value = self.lookup.value(key)?;
        self.n_found.set(self.n_found.get() + 1);
        Some(value)
    }

    fn skips(&self, key: &Key) -> bool {
        !self.skipped.is_empty() && self.skipped.contains(&key.to_string())
    }

    fn report(&self, key: &Key, value: Option<&str>, expected: impl Into<String>) {
        self.push(error_at(key, value, expected.into()));
    }

    fn push(&self, error: DecodeError) {
        let mut errors = self.errors.borrow_mut();
        match errors.len() {
            0..MAX_ERRORS => errors.push(error),
            MAX_ERRORS => errors.push(DecodeError {
                key: error.key,
                found: "yet another fault".to_owned(),
                expected: "fewer; correct those before it first".to_owned(),
            }),
            _ => {}
        }
    }
}

fn error_at(key: &Key, value: Option<&str>, expected: String) -> DecodeError {
    let found = match value {
        None => "nothing".to_owned(),
        Some(value) if key.is_secret() => format!("({} secret bytes)", value.len()),
        Some(value) => start_of(value),
    };
    DecodeError { key: key.to_string(), found, expected }
}

/// A fault that serde or a type's own `Deserialize` found; the innermost field that it passes
/// through is its key.
#[derive(Debug)]
struct Fault {
    key: Option<Key>,
    message: String,
}

impl Fault {
    fn at(mut self, key: &Key) -> Self {
        self.key.get_or_insert_with(|| key.clone());
        self
    }

    fn into_error(self, lookup: &dyn Lookup) -> DecodeError {
        let key = self.key.unwrap_or_else(|| Key::root(Header::default()));
        let value = lookup.value(&key.to_string());
        error_at(&key, value.as_deref(), self.message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { key: None, message: message.to_string() }
    }
}
