//! `serialmux cp`: where things go, by Docker's rules, and tar archives of what is here.

mod unpack;

use crate::api::{Input, Sender, answer, input, inside as api, request};
use crate::client::{self, Client, ClientError};
use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::sync::mpsc;
use wire::message::inside::{CopyIn, CopyOut, PathStat, StatPath};

use unpack::unpack;

/// Bytes that go to the daemon in one message.
const PIECE: usize = 64 * 1024;
/// Pieces on their way between the archive's thread and the daemon's connection.
const PIECES: usize = 4;

/// The kind of a file in `st_mode`, and the kind that is a directory (stat(2)).
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Keep owners and groups (numbers) of the source
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link at SOURCE leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// A path here, CONTAINER:PATH, or - for a tar archive on standard input
    source: String,
    /// A path here, CONTAINER:PATH, or - for a tar archive on standard output
    target: String,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Stream,
    Here(PathBuf),
    Inside { container: String, path: String },
}

impl End {
    /// As `docker cp` tells them apart: what begins with `/` or `.` is here, whatever colons it has.
    fn parse(text: &str) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        match text.split_once(':') {
            Some((container, path))
                if !container.starts_with(['/', '.']) && !container.is_empty() =>
            {
                let slash = if path.starts_with('/') { "" } else { "/" };
                Self::Inside { container: container.to_owned(), path: format!("{slash}{path}") }
            }
            _ => Self::Here(text.into()),
        }
    }
}

/// What is known of a target before anything is copied there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Nothing,
    Directory,
    Other,
}

/// Where an archive is unpacked, and what its first name is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placing {
    directory: String,
    name: String,
}

/// Docker's rules. `source` and `target` are paths as they were typed, with their slashes and dots at the end.
fn place(
    source: &str,
    is_directory: bool,
    target: &str,
    existing: Existing,
) -> anyhow::Result<Placing> {
    let (directory, name) = split(target);
    match existing {
        Existing::Directory if is_directory && is_contents(source) => {
            Ok(Placing { directory: target.to_owned(), name: ".".to_owned() })
        }
        Existing::Directory => Ok(Placing { directory: target.to_owned(), name: split(source).1 }),
        Existing::Other if is_directory => {
            bail!("cannot copy directory {source} over {target}, which is none")
        }
        Existing::Other if target.ends_with('/') => bail!("{target} is not a directory"),
        Existing::Nothing if !is_directory && ends_as_directory(target) => {
            bail!("destination directory {target} must exist: no such directory")
        }
        Existing::Other | Existing::Nothing => Ok(Placing { directory, name }),
    }
}

/// Whether a path says that it means what is in the directory.
fn is_contents(path: &str) -> bool {
    path.ends_with("/.") || path == "."
}

fn ends_as_directory(path: &str) -> bool {
    path.ends_with('/') || is_contents(path)
}

/// Directory and last name of a path; the root's name is a dot.
fn split(path: &str) -> (String, String) {
    let mut path = path;
    while let Some(shorter) = path.strip_suffix("/.").or_else(|| path.strip_suffix('/')) {
        path = shorter;
    }
    match path.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((directory, name)) => (directory.to_owned(), name.to_owned()),
        None if path.is_empty() => ("/".to_owned(), ".".to_owned()),
        None => (".".to_owned(), path.to_owned()),
    }
}

pub(crate) async fn copy(client: &Client, args: CopyArgs) -> anyhow::Result<ExitCode> {
    match (End::parse(&args.source), End::parse(&args.target)) {
        (End::Inside { container, path }, target @ (End::Stream | End::Here(_))) => {
            copy_out(client, &container, &path, target, &args).await?;
        }
        (source @ (End::Stream | End::Here(_)), End::Inside { container, path }) => {
            copy_in(client, source, &container, &path, &args).await?;
        }
        (End::Inside { .. }, End::Inside { .. }) => {
            bail!("copying between containers is not supported")
        }
        _ => bail!("neither source nor target is in a container; give one as CONTAINER:PATH"),
    }
    Ok(ExitCode::SUCCESS)
}

// ---- out of a container ----

async fn copy_out(
    client: &Client,
    container: &str,
    path: &str,
    target: End,
    args: &CopyArgs,
) -> anyhow::Result<()> {
    let follow = args.follow_link || ends_as_directory(path);
    let End::Here(target) = target else {
        return stream_out(client, container, path, "", follow, io::stdout()).await;
    };
    let stat = stat(client, container, path, follow).await?;
    let typed = target.to_str().with_context(|| format!("{} is not UTF-8", target.display()))?;
    let existing = match fs::metadata(&target) {
        Ok(found) if found.is_dir() => Existing::Directory,
        Ok(_) => Existing::Other,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Existing::Nothing,
        Err(error) => return Err(error).with_context(|| target.display().to_string()),
    };
    let place = place(path, stat.mode & KIND == DIRECTORY, typed, existing)?;
    let directory = PathBuf::from(&place.directory);
    if !directory.is_dir() {
        bail!("{} is no directory; make it first: no such directory", directory.display());
    }
    let (pieces, from) = mpsc::channel(PIECES);
    let owners = args.archive;
    let unpacking = tokio::task::spawn_blocking(move || unpack(from, &directory, owners));
    let streamed = stream_out(client, container, path, &place.name, follow, Pieces(pieces)).await;
    let unpacked = unpacking.await?;
    // Whoever unpacks has stopped reading when it fails, and then that is the reason.
    match streamed {
        Err(error) if error.downcast_ref::<Unwanted>().is_none() => Err(error),
        _ => unpacked,
    }
}

async fn stat(
    client: &Client,
    container: &str,
    path: &str,
    follow: bool,
) -> Result<PathStat, ClientError> {
    let stat = StatPath { path: path.into(), follow };
    let body = api::StatPath { container: container.to_owned(), path: Some(stat) };
    let (_sender, mut receiver) = client.open(request::Body::StatPath(body)).await?;
    match client::next(&mut receiver).await? {
        answer::Body::PathStat(stat) => Ok(stat),
        _ => Err(ClientError::Odd),
    }
}

/// Nobody takes the archive any more.
#[derive(Debug, thiserror::Error)]
#[error("the archive is not wanted any more")]
struct Unwanted;

/// Where an archive goes.
trait Sink {
    async fn put(&mut self, bytes: Bytes) -> anyhow::Result<()>;
}

impl Sink for io::Stdout {
    async fn put(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        self.write_all(&bytes)?;
        self.flush()?;
        Ok(())
    }
}

struct Pieces(mpsc::Sender<Bytes>);

impl Sink for Pieces {
    async fn put(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        self.0.send(bytes).await.map_err(|_| Unwanted.into())
    }
}

async fn stream_out(
    client: &Client,
    container: &str,
    path: &str,
    name: &str,
    follow: bool,
    mut sink: impl Sink,
) -> anyhow::Result<()> {
    let copy = CopyOut { path: path.into(), follow, name: name.into() };
    let body = api::CopyOut { container: container.to_owned(), path: Some(copy) };
    let (_sender, mut receiver) = client.open(request::Body::CopyOut(body)).await?;
    loop {
        match client::next(&mut receiver).await? {
            answer::Body::Piece(api::Piece { bytes }) => sink.put(bytes).await?,
            answer::Body::Done(_) => return Ok(()),
            _ => return Err(ClientError::Odd.into()),
        }
    }
}

// ---- into a container ----

async fn copy_in(
    client: &Client,
    source: End,
    container: &str,
    path: &str,
    args: &CopyArgs,
) -> anyhow::Result<()> {
    let End::Here(source) = source else {
        let place = CopyIn { directory: path.into(), ..CopyIn::default() };
        return stream_in(client, container, place, |sink| {
            io::copy(&mut io::stdin().lock(), sink).map(drop).context("cannot read standard input")
        })
        .await;
    };
    let typed = source.to_str().with_context(|| format!("{} is not UTF-8", source.display()))?;
    let follow = args.follow_link || ends_as_directory(typed);
    let looked = if follow { fs::metadata(&source) } else { fs::symlink_metadata(&source) };
    let found = looked.with_context(|| format!("cannot copy {}", source.display()))?;
    let existing = match stat(client, container, path, true).await {
        Ok(stat) if stat.mode & KIND == DIRECTORY => Existing::Directory,
        Ok(_) => Existing::Other,
        Err(ClientError::Refused(text)) if text.starts_with("no such file") => Existing::Nothing,
        Err(error) => return Err(error.into()),
    };
    let absolute = match typed {
        // Named by what it is, wherever one stands.
        "." | ".." => fs::canonicalize(&source)?.to_string_lossy().into_owned() + "/.",
        typed => typed.to_owned(),
    };
    let Placing { directory, name } = place(&absolute, found.is_dir(), path, existing)?;
    let place =
        CopyIn { directory: directory.into_bytes(), set_owner: !args.archive, uid: 0, gid: 0 };
    stream_in(client, container, place, move |sink| pack(&source, &name, follow, sink)).await
}

/// Writes an archive of what is at `source`, called `name` in it.
fn pack(source: &Path, name: &str, follow: bool, sink: &mut impl Write) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(sink);
    archive.follow_symlinks(false);
    // What the link at the source leads to, but no other.
    let real = if follow { fs::canonicalize(source)? } else { source.to_owned() };
    let failed = || format!("cannot copy {}", source.display());
    if fs::symlink_metadata(&real)?.is_dir() {
        archive.append_dir_all(name, &real).with_context(failed)?;
    } else {
        archive.append_path_with_name(&real, name).with_context(failed)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

/// A thread's output on its way to the daemon.
struct Outgoing {
    pieces: mpsc::Sender<Bytes>,
    held: Vec<u8>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        for piece in std::mem::take(&mut self.held).chunks(PIECE) {
            let piece = Bytes::copy_from_slice(piece);
            self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    }
}

async fn stream_in(
    client: &Client,
    container: &str,
    place: CopyIn,
    write: impl FnOnce(&mut Outgoing) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let body = api::CopyIn { container: container.to_owned(), place: Some(place) };
    let (mut sender, mut receiver) = client.open(request::Body::CopyIn(body)).await?;
    let (pieces, mut from) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        let mut sink = Outgoing { pieces, held: Vec::new() };
        write(&mut sink)?;
        sink.flush().map_err(anyhow::Error::from)
    });
    let mut answer = std::pin::pin!(client::next(&mut receiver));
    loop {
        let piece = tokio::select! {
            // Before the end, too: the archive may be refused at its first entry.
            answer = &mut answer => return finished(answer),
            piece = from.recv() => piece,
        };
        match piece {
            Some(bytes) => put(&mut sender, input::Body::Bytes(bytes)).await,
            None => break,
        }
    }
    // Without its end, the guest knows that the archive is not whole.
    writing.await??;
    put(&mut sender, input::Body::End(request::Hello {})).await;
    finished(answer.await)
}

fn finished(answer: Result<answer::Body, ClientError>) -> anyhow::Result<()> {
    match answer? {
        answer::Body::Done(_) => Ok(()),
        _ => Err(ClientError::Odd.into()),
    }
}

// A daemon that has closed its end says why in what is still to be read from it.
async fn put(sender: &mut Sender, body: input::Body) {
    sender.send(&Input { body: Some(body), at: 0 }).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_as_docker_does() {
        let inside = |container: &str, path: &str| End::Inside {
            container: container.into(),
            path: path.into(),
        };
        assert_eq!(End::parse("-"), End::Stream);
        assert_eq!(End::parse("web:/etc/hosts"), inside("web", "/etc/hosts"));
        assert_eq!(End::parse("web:etc"), inside("web", "/etc"));
        assert_eq!(End::parse("web:"), inside("web", "/"));
        assert_eq!(End::parse("web:/a:b"), inside("web", "/a:b"));
        for path in ["./web:x", "/a:b", "plain", "../x:y"] {
            assert_eq!(End::parse(path), End::Here(path.into()), "{path}");
        }
    }

    #[track_caller]
    fn check(source: &str, is_directory: bool, target: &str, existing: Existing, expected: &str) {
        let found = match place(source, is_directory, target, existing) {
            Ok(Placing { directory, name }) => format!("{directory} {name}"),
            Err(error) => error.to_string(),
        };
        assert!(
            found == expected || (expected.starts_with('!') && found.contains(&expected[1..])),
            "{found}"
        );
    }

    #[test]
    fn files_and_directories_go_where_docker_puts_them() {
        use Existing::{Directory, Nothing, Other};
        check("/a/file", false, "/b/new", Nothing, "/b new");
        check("/a/file", false, "/b/new/", Nothing, "!must exist");
        check("/a/file", false, "/b/old", Other, "/b old");
        check("/a/file", false, "/b", Directory, "/b file");
        check("/a/dir", true, "/b/new", Nothing, "/b new");
        check("/a/dir", true, "/b/new/", Nothing, "/b new");
        check("/a/dir/.", true, "/b/new", Nothing, "/b new");
        check("/a/dir", true, "/b/old", Other, "!cannot copy directory");
        check("/a/dir", true, "/b", Directory, "/b dir");
        check("/a/dir/", true, "/b/", Directory, "/b/ dir");
        check("/a/dir/.", true, "/b", Directory, "/b .");
        check("file", false, "new", Nothing, ". new");
        check("file", false, "/", Directory, "/ file");
        check("/a/file", false, "/b/old/", Other, "!not a directory");
    }

    #[test]
    fn a_tree_goes_through_both_archives() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), vec![b'x'; 200_000]).unwrap();
        std::os::unix::fs::symlink("sub/file", from.join("link")).unwrap();
        let mut archive = Vec::new();
        pack(&from, "new", false, &mut archive).unwrap();
        let (sender, pieces) = mpsc::channel(1000);
        for piece in archive.chunks(1000) {
            sender.blocking_send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(sender);
        unpack(pieces, &to, false).unwrap();
        assert_eq!(fs::read(to.join("new/link")).unwrap().len(), 200_000);
        assert!(fs::symlink_metadata(to.join("new/link")).unwrap().is_symlink());
    }
}
