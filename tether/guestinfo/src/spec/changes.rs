//! What a newer spec asks for beyond an older one, for an agent that reads its config again.

use std::collections::BTreeMap;

use super::{MountSpec, NetworkSpec, SessionSpec, Spec};

/// The difference between two specs, as far as a running container can follow it.
///
/// A session that is no longer mentioned is left alone: VIC's host programs push only what is new, and a
/// key once written is never deleted. To end a session its `active` is set to false. Networks and volumes
/// are named by an index that is written whole, so what is missing there is wanted no more.
#[derive(Debug, Default, PartialEq)]
pub struct Changes<'a> {
    /// Sessions to start that were not there, or not active, before.
    pub sessions: Vec<&'a SessionSpec>,
    /// Execs to start that were not there, or not active, before.
    pub execs: Vec<&'a SessionSpec>,
    /// Sessions and execs to end: they were active and are not any more.
    pub ended: Vec<&'a SessionSpec>,
    /// Sessions and execs that need not wait for a client any more.
    pub released: Vec<&'a SessionSpec>,
    /// Interfaces that were not there before, or were to be otherwise, by network name.
    pub networks: Vec<(&'a str, &'a NetworkSpec)>,
    /// Volumes that were not there before, by volume name.
    pub mounts: Vec<(&'a str, &'a MountSpec)>,
    /// Interfaces and volumes that are no longer mentioned, each by its key.
    pub gone: Vec<String>,
    /// Whether how much is to be logged has changed.
    pub diagnostics: bool,
    /// Whether how output travels has changed, in what a running link can follow: all but its protection.
    pub link: bool,
    /// What has changed but is fixed once a container runs, each by its key: to be told to the
    /// operator.
    pub fixed: Vec<String>,
}

impl Spec {
    /// What this spec asks for beyond `older`.
    pub fn changes_from<'a>(&'a self, older: &Self) -> Changes<'a> {
        let protected = self.link.protection == older.link.protection;
        let mut changes = Changes {
            diagnostics: self.diagnostics != older.diagnostics,
            link: protected && self.link != older.link,
            ..Changes::default()
        };
        let scalars = [
            ("common/id", self.id != older.id),
            ("hostname", self.hostname != older.hostname || self.domainname != older.domainname),
            ("key", self.key != older.key),
            ("link/protection", !protected),
            ("container", self.container != older.container),
        ];
        changes.fixed.extend(
            scalars.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()),
        );
        changes.sessions = changes.follow("sessions", &self.sessions, &older.sessions);
        changes.execs = changes.follow("execs", &self.execs, &older.execs);
        let others = self.networks.iter();
        let others = others.filter(|(name, network)| older.networks.get(*name) != Some(*network));
        changes.networks = others.map(|(name, network)| (name.as_str(), network)).collect();
        changes.note_gone("networks", &self.networks, &older.networks);
        changes.mounts = changes.added("mounts", &self.mounts, &older.mounts);
        changes
    }
}

impl<'a> Changes<'a> {
    /// Whether there is nothing to do and nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Gives those to start; notes those to end, to release, and those that cannot change.
    fn follow(
        &mut self,
        map: &str,
        newer: &'a BTreeMap<String, SessionSpec>,
        older: &BTreeMap<String, SessionSpec>,
    ) -> Vec<&'a SessionSpec> {
        let mut to_start = Vec::new();
        for (id, session) in newer {
            let before = older.get(id);
            match (before.is_some_and(|before| before.active), session.active) {
                (false, true) => to_start.push(session),
                (true, false) => self.ended.push(session),
                (true, true) | (false, false) => {}
            }
            let Some(before) = before.filter(|before| before.active && session.active) else {
                continue;
            };
            if before.run_block && !session.run_block {
                self.released.push(session);
            }
            let as_before = SessionSpec { run_block: before.run_block, ..session.clone() };
            if as_before != *before {
                self.fixed.push(format!("{map}|{id}"));
            }
        }
        to_start
    }

    /// Gives the entries that are new; notes those that are other than before.
    fn added<T: PartialEq>(
        &mut self,
        map: &str,
        newer: &'a BTreeMap<String, T>,
        older: &BTreeMap<String, T>,
    ) -> Vec<(&'a str, &'a T)> {
        let mut added = Vec::new();
        for (name, value) in newer {
            match older.get(name) {
                None => added.push((name.as_str(), value)),
                Some(before) if before != value => self.fixed.push(format!("{map}|{name}")),
                Some(_) => {}
            }
        }
        self.note_gone(map, newer, older);
        added
    }

    fn note_gone<T>(
        &mut self,
        map: &str,
        newer: &BTreeMap<String, T>,
        older: &BTreeMap<String, T>,
    ) {
        let gone = older.keys().filter(|name| !newer.contains_key(*name));
        self.gone.extend(gone.map(|name| format!("{map}|{name}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protection;

    fn spec() -> Spec {
        Spec::from_pairs([
            ("guestinfo.vice./common/id", "ID"),
            ("guestinfo.vice./sessions", "ID"),
            ("guestinfo.vice..sessions|ID.runblock", "true"),
            ("guestinfo.vice./execs@non-persistent", "E1"),
            ("guestinfo.vice./networks", "bridge"),
            ("guestinfo.vice./mounts", "v"),
        ])
        .unwrap()
    }

    #[test]
    fn the_same_spec_asks_for_nothing() {
        assert!(spec().changes_from(&spec()).is_empty());
    }

    #[test]
    fn what_is_new_is_to_be_done() {
        let mut newer = spec();
        newer.execs.insert("E2".into(), SessionSpec { id: "E2".into(), ..SessionSpec::default() });
        newer.execs.insert("E3".into(), SessionSpec { active: false, ..SessionSpec::default() });
        newer.networks.insert("second".into(), NetworkSpec::default());
        newer.mounts.insert("w".into(), MountSpec::default());
        newer.diagnostics.debug = 3;
        newer.link.linger += 1;
        newer.sessions.get_mut("ID").unwrap().run_block = false;
        newer.execs.get_mut("E1").unwrap().active = false;
        let older = spec();
        let changes = newer.changes_from(&older);
        let ids = |sessions: &[&SessionSpec]| {
            sessions.iter().map(|session| session.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&changes.execs), ["E2"]);
        assert_eq!(ids(&changes.ended), ["E1"]);
        assert_eq!(ids(&changes.released), ["ID"]);
        assert_eq!(changes.networks.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["second"]);
        assert_eq!(changes.mounts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["w"]);
        assert!(changes.diagnostics && changes.link);
        assert!(changes.sessions.is_empty() && changes.fixed.is_empty());
        assert_eq!(ids(&older.changes_from(&newer).execs), ["E1"], "active again");
    }

    #[test]
    fn of_what_is_gone_sessions_are_left_alone_and_the_rest_is_told() {
        let nothing = Spec { id: "ID".into(), ..Spec::default() };
        let older = spec();
        let changes = nothing.changes_from(&older);
        let gone = vec!["networks|bridge".to_owned(), "mounts|v".to_owned()];
        assert_eq!(changes, Changes { gone, ..Changes::default() });
    }

    #[test]
    fn what_cannot_change_any_more_is_told() {
        let mut newer = spec();
        newer.hostname = "other".into();
        newer.link.protection = Protection::Plain;
        newer.sessions.get_mut("ID").unwrap().cmd.path = "/other".into();
        newer.networks.get_mut("bridge").unwrap().is_static = true;
        newer.mounts.get_mut("v").unwrap().dest = "/other".into();
        let older = spec();
        let changes = newer.changes_from(&older);
        assert_eq!(changes.fixed, ["hostname", "link/protection", "sessions|ID", "mounts|v"]);
        assert!(changes.sessions.is_empty() && changes.mounts.is_empty());
        assert_eq!(changes.networks.len(), 1, "addresses can change");
    }
}
