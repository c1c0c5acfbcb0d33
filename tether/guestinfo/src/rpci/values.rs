//! guestinfo as a source of the spec's pairs and a sink of the report's.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use super::{Requests, RpciError, info_get, info_set};
use crate::Spec;
use crate::extraconfig::{Key, Lookup};
use crate::sink::{Sink, SinkError};
use crate::source::{Source, SourceError, Values};
use crate::sys::Backdoor;

/// VMware's guestinfo, read key by key: the hypervisor lists none, so every key that a spec could
/// have is asked for, and what there is guides what else could be.
pub struct RpciSource<R = Backdoor> {
    host: Option<RefCell<R>>,
}

impl RpciSource {
    /// The hypervisor's, if it is VMware's; otherwise a source that is not there.
    pub fn detect() -> Self {
        Self { host: Backdoor::detect().map(RefCell::new) }
    }
}

impl<R: Requests> RpciSource<R> {
    /// The guestinfo that `host` gives.
    pub fn new(host: R) -> Self {
        Self { host: Some(RefCell::new(host)) }
    }
}

impl<R> fmt::Debug for RpciSource<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpciSource({})", if self.host.is_some() { "there" } else { "not there" })
    }
}

impl<R: Requests> Source for RpciSource<R> {
    fn name(&self) -> &str {
        "VMware guestinfo"
    }

    fn read(&self) -> Result<Option<Values>, SourceError> {
        let Some(host) = &self.host else { return Ok(None) };
        let asked = Asked { host, known: RefCell::default(), fault: RefCell::default() };
        Spec::ask(&asked);
        if let Some(fault) = asked.fault.into_inner() {
            return Err(SourceError::Hypervisor(fault));
        }
        let pairs = asked.known.into_inner().into_iter();
        let pairs: Vec<_> = pairs.filter_map(|(key, value)| Some((key, value?))).collect();
        Ok(if pairs.is_empty() { None } else { Some(pairs) })
    }
}

/// Asks the hypervisor for keys and remembers the answers.
struct Asked<'a, R> {
    host: &'a RefCell<R>,
    known: RefCell<BTreeMap<String, Option<String>>>,
    /// The first thing that went wrong; nothing is asked after it.
    fault: RefCell<Option<String>>,
}

impl<R: Requests> Asked<'_, R> {
    fn ask(&self, key: &str) -> Option<String> {
        if self.fault.borrow().is_some() {
            return None;
        }
        let failed = |why: String| {
            self.fault.replace(Some(why));
        };
        match info_get(&mut *self.host.borrow_mut(), key) {
            Ok(value) => String::from_utf8(value?)
                .map_err(|_| {
                    failed(format!("the value of {key} is not UTF-8; store it as UTF-8 text"))
                })
                .ok(),
            // A name that no request can carry has no value either: it came from a map's index.
            Err(RpciError::Key { .. }) => None,
            Err(error) => {
                failed(error.to_string());
                None
            }
        }
    }
}

impl<R: Requests> Lookup for Asked<'_, R> {
    fn value(&self, key: &str) -> Option<Cow<'_, str>> {
        // A hidden key is not for guests; the hypervisor would say the same.
        if !key.starts_with("guestinfo.") {
            return None;
        }
        if let Some(known) = self.known.borrow().get(key) {
            return known.clone().map(Cow::from);
        }
        let value = self.ask(key);
        self.known.borrow_mut().insert(key.to_owned(), value.clone());
        value.map(Cow::from)
    }

    fn holds(&self, _: &Key) -> Option<bool> {
        None
    }
}

/// VMware's guestinfo, written key by key.
#[derive(Debug)]
pub struct RpciSink<R = Backdoor> {
    host: R,
}

impl RpciSink {
    /// The hypervisor's, if it is VMware's.
    pub fn detect() -> Option<Self> {
        Backdoor::detect().map(Self::new)
    }
}

impl<R: Requests> RpciSink<R> {
    /// The guestinfo that `host` keeps.
    pub const fn new(host: R) -> Self {
        Self { host }
    }
}

impl<R: Requests> Sink for RpciSink<R> {
    fn name(&self) -> &str {
        "VMware guestinfo"
    }

    fn write(&mut self, pairs: &[(String, String)]) -> Result<(), SinkError> {
        let mut write =
            |(key, value): &(String, String)| info_set(&mut self.host, key, value.as_bytes());
        let refused: Vec<_> = pairs.iter().filter_map(|pair| write(pair).err()).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let reasons = refused.iter().map(RpciError::to_string).collect();
        Err(SinkError { sink: self.name().to_owned(), reasons })
    }
}
