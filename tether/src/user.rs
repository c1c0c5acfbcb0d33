//! Who the container's process runs as: `name|uid[:group|gid]` against the image's passwd and group files.
//!
//! The rules and the error texts are Docker's: numeric ids need not exist, a name must; without an explicit
//! group the primary group comes from passwd and the supplementary ones from group; with one, it is the only
//! group. Both files are the image's and therefore hostile: the caller bounds their size, lines that do not
//! parse are passed over.

use thiserror::Error;

/// The largest id Docker accepts: the kernel's `(uid_t)-1` and its neighbors mean other things.
const MAX_ID: u32 = i32::MAX as u32;

/// The kernel's limit on supplementary groups (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// The resolved identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// The home directory named in passwd, `/` when there is no entry.
    pub home: String,
}

/// Why a user specification cannot be used. The texts are Docker's: clients match on them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    /// A name that passwd does not have.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// A group name that the group file does not have.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A numeric id that Docker refuses.
    #[error("uids and gids must be in range 0-2147483647, not {0}")]
    Range(u64),
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves `spec` (`""` means root) with the texts of the image's `/etc/passwd` and `/etc/group`.
///
/// # Errors
///
/// See [`UserError`].
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user_part, group_part) = spec.split_once(':').unwrap_or((spec, ""));
    let wanted_uid = number(user_part);
    let entry = passwd.lines().filter_map(passwd_entry).find(|entry| match user_part {
        "" => entry.uid == 0,
        name => entry.name == name || wanted_uid == Some(u64::from(entry.uid)),
    });
    let mut user = User { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() };
    let mut login = "";
    if let Some(entry) = entry {
        login = entry.name;
        user.uid = entry.uid;
        user.gid = entry.gid;
        if !entry.home.is_empty() {
            entry.home.clone_into(&mut user.home);
        }
    } else if !user_part.is_empty() {
        let uid = wanted_uid.ok_or_else(|| UserError::NoUser(user_part.to_owned()))?;
        user.uid = in_range(uid)?;
    }
    if group_part.is_empty() {
        user.groups = memberships(login, group);
    } else {
        user.gid = resolve_group(group_part, group)?;
    }
    Ok(user)
}

/// Adds further groups, by name or number.
///
/// # Errors
///
/// See [`UserError`].
pub fn add_groups(user: &mut User, wanted: &[String], group: &str) -> Result<(), UserError> {
    for one in wanted {
        let gid = resolve_group(one, group)?;
        if !user.groups.contains(&gid) && user.groups.len() < MAX_GROUPS {
            user.groups.push(gid);
        }
    }
    Ok(())
}

fn resolve_group(wanted: &str, group: &str) -> Result<u32, UserError> {
    let wanted_gid = number(wanted);
    let entry = group
        .lines()
        .filter_map(group_entry)
        .find(|entry| entry.name == wanted || wanted_gid == Some(u64::from(entry.gid)));
    match entry {
        Some(entry) => Ok(entry.gid),
        None => in_range(wanted_gid.ok_or_else(|| UserError::NoGroup(wanted.to_owned()))?),
    }
}

/// The groups that list `login` as a member.
fn memberships(login: &str, group: &str) -> Vec<u32> {
    if login.is_empty() {
        return Vec::new();
    }
    group
        .lines()
        .filter_map(group_entry)
        .filter(|entry| entry.members.split(',').any(|member| member == login))
        .map(|entry| entry.gid)
        .take(MAX_GROUPS)
        .collect()
}

fn passwd_entry(line: &str) -> Option<PasswdEntry<'_>> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1).unwrap_or("");
    Some(PasswdEntry { name, uid, gid, home })
}

fn group_entry(line: &str) -> Option<GroupEntry<'_>> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = id(fields.nth(1)?)?;
    let members = fields.next().unwrap_or("");
    Some(GroupEntry { name, gid, members })
}

/// An id of either file. To the kernel, `-1` means to leave the id as it is, and that is root's.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// A plain decimal number; `u64` so that ids which are too large get the range error, not "no such user".
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn in_range(id: u64) -> Result<u32, UserError> {
    u32::try_from(id).ok().filter(|&id| id <= MAX_ID).ok_or(UserError::Range(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                          \n# a comment\nbroken\nhalf:x:12\n\
                          app:x:1000:1001:App,,,:/home/app:/bin/sh\n\
                          nohome:x:1002:1002\n\
                          1234:x:77:78::/num:\n";
    const GROUP: &str =
        "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\naudio:x:29:app\nbad:x:nan:app\nempty:x:30\n";

    #[track_caller]
    fn check(spec: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let expected = User { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
        assert_eq!(resolve(spec, PASSWD, GROUP), Ok(expected), "{spec}");
    }

    #[test]
    fn users_and_groups_resolve_as_docker_resolves_them() {
        check("", 0, 0, &[10], "/root");
        check("root", 0, 0, &[10], "/root");
        check("0", 0, 0, &[10], "/root");
        check("app", 1000, 1001, &[10, 29], "/home/app");
        check("1000", 1000, 1001, &[10, 29], "/home/app");
        check("app:audio", 1000, 29, &[], "/home/app");
        check("app:4242", 1000, 4242, &[], "/home/app");
        check("2000", 2000, 0, &[], "/");
        check("2000:2000", 2000, 2000, &[], "/");
        check(":audio", 0, 29, &[], "/root");
        check("nohome", 1002, 1002, &[], "/");
        check("1234", 77, 78, &[], "/num");
    }

    #[test]
    fn further_groups_come_by_name_or_number_and_once() {
        let mut user = resolve("app", PASSWD, GROUP).expect("a user");
        let wanted = ["empty", "29", "4242", "4242"].map(str::to_owned);
        assert_eq!(add_groups(&mut user, &wanted, GROUP), Ok(()));
        assert_eq!(user.groups, [10, 29, 30, 4242]);
        let error = add_groups(&mut user, &["none".to_owned()], GROUP).expect_err("no such group");
        assert_eq!(error, UserError::NoGroup("none".to_owned()));
    }

    #[test]
    fn an_image_without_the_files_still_has_root_and_numbers() {
        let root = resolve("", "", "").expect("root");
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/"));
        assert_eq!(resolve("7:8", "", "").expect("numbers").gid, 8);
    }

    #[test]
    fn no_entry_stands_for_whoever_starts_the_process() {
        let (passwd, group) =
            ("a:x:4294967295:1::/:\nb:x:1:4294967295::/:\n", "g:x:4294967295:c\n");
        for spec in ["a", "b", "1:g"] {
            assert!(resolve(spec, passwd, group).is_err(), "{spec}");
        }
        assert_eq!(resolve("c", "c:x:5:6::/:", group).expect("a user").groups, []);
    }

    #[test]
    fn the_error_texts_are_dockers() {
        for (spec, expected) in [
            ("nobodyx", "unable to find user nobodyx: no matching entries in passwd file"),
            ("app:none", "unable to find group none: no matching entries in group file"),
            ("2147483648", "uids and gids must be in range 0-2147483647, not 2147483648"),
            ("-1", "unable to find user -1: no matching entries in passwd file"),
            ("+5", "unable to find user +5: no matching entries in passwd file"),
        ] {
            let error = resolve(spec, PASSWD, GROUP).expect_err(spec);
            assert_eq!(error.to_string(), expected);
        }
    }
}
