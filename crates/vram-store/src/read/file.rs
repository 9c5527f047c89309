//! An image fetched into a file: verified on the way, resumed after an interruption.

use core::time::Duration;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use vram_alloc::ByteLen;
use vram_files::{folder, regular_file};

use super::{ImageRead, Means, Proof};
use crate::error::{Part, Room, StoreError};
use crate::fetch::{Window, read_file};
use crate::manifest::ShardEntry;
use crate::naming::parts::Parts;
use crate::options::StoreEvent;
use crate::store::{is_absent, make_folder};

/// How long to wait before looking again whether another process has finished the same image.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long another process may have the file of an image without writing to it, in stalls of a source.
const STALLS_MAX: u32 = 60;
/// How often what came under a name meanwhile is looked at, before it is refused.
const LOOKS_MAX: u32 = 3;

/// An image on this machine of which every byte was verified, in this call, against a manifest that is
/// trusted. Nothing else makes one.
///
/// ```compile_fail,E0451
/// let image = vram_store::VerifiedImage { path: "/tmp/x".into(), shard: todo!() }; // private fields
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedImage {
    path: PathBuf,
    shard: ShardEntry,
}

impl VerifiedImage {
    /// The file. A reader that opens it later verifies it again, as every import does: the file may be
    /// another one by then.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the manifest states of it.
    #[must_use]
    pub const fn shard(&self) -> &ShardEntry {
        &self.shard
    }
}

/// Proves an image without keeping it, or those of its ranges that are drawn by their numbers, from 0.
/// `done` is called with the bytes of each proven range.
pub(crate) fn verify_only(
    read: &ImageRead<'_, '_>,
    drawn: &dyn Fn(u64) -> bool,
    done: &mut dyn FnMut(u64, &str),
) -> Result<(), StoreError> {
    let proof = prove_start(read)?.0;
    let all = || (0_u64..).zip(proof.steps(0, read.options));
    let steps: Vec<_> = all().filter(|(at, _)| drawn(*at)).map(|(_, step)| step).collect();
    let whole = steps.len() == all().count();
    let (sources, len) = (Arc::clone(&read.sources), read.shard.image_len);
    let mut window = Window::new(sources, len, steps.into_iter(), read.options);
    while let Some((step, fetched)) = window.next(read.options)? {
        let good = read.prove(&proof, &step, fetched)?;
        done(step.range.end.saturating_sub(step.range.start), &read.sources.name(good.source));
    }
    // What only the whole shows.
    if whole { finish(read, &proof) } else { Ok(()) }
}

/// What becomes of a file that lies under the name of an image, and is not that image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is replaced: names in a cache are the cache's.
    Replace,
    /// It stays, and the call is refused: it may be anybody's.
    Keep,
}

/// Fetches an image into a folder as `name`, or verifies the one that is there.
pub(crate) fn fetch_file(
    read: &ImageRead<'_, '_>,
    target: &Path,
    wrong: Wrong,
    done: &mut dyn FnMut(u64, &str),
) -> Result<VerifiedImage, StoreError> {
    let options = read.options;
    let failed = |action, path: &Path, error| StoreError::io(action, path, error);
    let folder = target.parent().unwrap_or(Path::new(".")).to_path_buf();
    let (at, mode) = (folder.clone(), if wrong == Wrong::Replace { 0o700 } else { 0o755 });
    options
        .on_files(move || make_folder(&at, mode))?
        .map_err(|error| failed("make the folder", &folder, error))?;
    let (proof, start) = match prove_start(read) {
        Ok(start) => start,
        // A cache has no digests of parts. A whole file proves itself: its digest is its name.
        Err(StoreError::NoSource { .. }) if wrong == Wrong::Replace && is_whole(read, target)? => {
            let place = target.display().to_string().into();
            options.tell(&StoreEvent::Present { image: read.shard.image, place });
            done(read.shard.image_len, "");
            return Ok(VerifiedImage { path: target.to_path_buf(), shard: read.shard.clone() });
        }
        Err(error) => return Err(error),
    };
    let image = || VerifiedImage { path: target.to_path_buf(), shard: read.shard.clone() };
    let (mut looks, mut other) = (0_u32, Other::default());
    loop {
        options.go_on()?;
        if let Some((file, len)) = there(read, target, wrong)? {
            let (good, _) = proven_prefix(read, &proof, &start, &file)?;
            let whole = len == read.shard.image_len && good == len;
            if whole && proof.finish().is_ok() {
                let place = target.display().to_string().into();
                options.tell(&StoreEvent::Present { image: read.shard.image, place });
                done(read.shard.image_len, "");
                return Ok(image());
            }
            let path = target.to_path_buf();
            if wrong == Wrong::Keep {
                return Err(StoreError::InTheWay { path, image: read.shard.image });
            }
            // A wrong file that stays would be wrong for ever.
            let gone = path.clone();
            options
                .on_files(move || fs::remove_file(gone))?
                .map_err(|error| failed("remove", target, error))?;
            options.tell(&StoreEvent::Dropped { image: read.shard.image, path });
        }
        let partial = folder.join(format!(".vram-{}.pull", read.shard.image));
        let owned = partial.clone();
        let owned = options.on_files(move || own(&owned))?;
        let Some(file) = owned.map_err(|error| failed("open", &partial, error))? else {
            // Another process fetches it: its result is looked at, not believed.
            other.goes_on(read, &partial)?;
            std::thread::sleep(LOOK_AGAIN);
            continue;
        };
        let file = Arc::new(file);
        if let Err(error) = check_room(read, &folder, &file) {
            let at = partial.clone();
            // What was made for this call alone is not left; what an earlier one fetched is.
            let begun =
                move || if file.metadata()?.len() == 0 { fs::remove_file(at) } else { Ok(()) };
            let _stays_empty = options.on_files(begun);
            return Err(error);
        }
        fill(read, &proof, &start, &file, &partial, done)?;
        let (from, to) = (partial.clone(), target.to_path_buf());
        let named = options.on_files(move || {
            file.sync_all()?;
            match wrong {
                Wrong::Replace => fs::rename(&from, &to)?,
                // What came there meanwhile stays, and is looked at.
                Wrong::Keep => match folder::rename_new(&from, &to) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                    other => other?,
                },
            }
            folder::sync_name(&file, to.parent().unwrap_or(Path::new(".")))?;
            Ok(true)
        })?;
        if named.map_err(|error| failed("name", target, error))? {
            return Ok(image());
        }
        looks = looks.saturating_add(1);
        if looks >= LOOKS_MAX || leads_nowhere(read, target)? {
            return Err(in_the_way(read, target));
        }
    }
}

fn in_the_way(read: &ImageRead<'_, '_>, target: &Path) -> StoreError {
    StoreError::InTheWay { path: target.to_path_buf(), image: read.shard.image }
}

/// Whether a path is a link that leads to nothing: no file can be had or given its name there.
fn leads_nowhere(read: &ImageRead<'_, '_>, target: &Path) -> Result<bool, StoreError> {
    let path = target.to_path_buf();
    let look = move || Ok(fs::symlink_metadata(&path).is_ok() && fs::metadata(&path).is_err());
    read.options.on_files(look)?.map_err(|error| StoreError::io("read", target, error))
}

/// Another process that has the file of an unfinished image.
#[derive(Default)]
struct Other {
    /// Bytes of the file, when it was last seen to change, and the moment.
    seen: Option<(u64, Instant)>,
}

impl Other {
    /// Refuses to wait for a process that writes nothing for long.
    fn goes_on(&mut self, read: &ImageRead<'_, '_>, partial: &Path) -> Result<(), StoreError> {
        let path = partial.to_path_buf();
        let look = move || Ok(fs::symlink_metadata(path).map_or(0, |found| found.len()));
        let len = read.options.on_files(look)?;
        let len = len.map_err(|error| StoreError::io("read", partial, error))?;
        let patience = read.options.limits.stall.saturating_mul(STALLS_MAX);
        match self.seen {
            Some((before, since)) if before == len => {
                if since.elapsed() < patience {
                    return Ok(());
                }
                let why = format!("another process has it, and wrote nothing within {patience:?}");
                let error = io::Error::new(io::ErrorKind::TimedOut, why);
                Err(StoreError::io("fetch into", partial, error))
            }
            _ => {
                self.seen = Some((len, Instant::now()));
                Ok(())
            }
        }
    }
}

/// The file that lies at a path, and its length. What cannot be read is an error, or is replaced.
fn there(
    read: &ImageRead<'_, '_>,
    target: &Path,
    wrong: Wrong,
) -> Result<Option<(Arc<File>, u64)>, StoreError> {
    let path = target.to_path_buf();
    let found = read.options.on_files(move || match regular_file::open_regular(&path) {
        Ok(file) => {
            let len = file.metadata()?.len();
            Ok(Some((Arc::new(file), len)))
        }
        Err(error) if is_absent(&error) || wrong == Wrong::Replace => Ok(None),
        Err(error) => Err(error),
    })?;
    found.map_err(|error| StoreError::io("read", target, error))
}

/// Without the key: whether the file at a path is the image, by the digest of all its bytes.
fn is_whole(read: &ImageRead<'_, '_>, target: &Path) -> Result<bool, StoreError> {
    if !matches!(read.means, Means::Parts) {
        return Ok(false);
    }
    let Some((file, len)) = there(read, target, Wrong::Replace)? else { return Ok(false) };
    if len != read.shard.image_len {
        return Ok(false);
    }
    let parts = read.options.on_files(move || Parts::of_file(&file, len))?;
    Ok(parts.is_ok_and(|parts| *parts.id() == read.shard.image))
}

/// Everything before the ranges: the head if there is a key, the digests of the parts if not.
fn prove_start(read: &ImageRead<'_, '_>) -> Result<(Proof, Vec<u8>), StoreError> {
    match read.means {
        Means::Keys { .. } => Proof::keyed(read.head()?),
        Means::Parts => Ok((Proof::Parts(read.parts()?), Vec::new())),
    }
}

/// Opens the file of an unfinished image, if no other process has it.
fn own(partial: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Neither through a link, which may lead anywhere, nor into a pipe, at which it would wait.
    if fs::symlink_metadata(partial).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = options.open(partial)?;
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Ok(None);
    }
    // Between opening and locking, another process may have finished the file and renamed it.
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(partial));
    let same = named.is_ok_and(|named| {
        named.is_file() && (named.dev(), named.ino()) == (opened.dev(), opened.ino())
    });
    if !same {
        return Ok(None);
    }
    // Of another call it would have one name, and no access for others.
    if opened.nlink() != 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a file with another name as well",
        ));
    }
    if opened.mode() & 0o777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(Some(file))
}

/// Refuses to begin what the disk has no room for.
fn check_room(read: &ImageRead<'_, '_>, folder: &Path, file: &Arc<File>) -> Result<(), StoreError> {
    let (file, at) = (Arc::clone(file), folder.to_path_buf());
    let look = move || {
        let there = file.metadata().map_or(0, |found| found.blocks().saturating_mul(512));
        Ok((there, folder::free_bytes(&at).unwrap_or(u64::MAX)))
    };
    let found = read.options.on_files(look)?;
    let (there, room) = found.map_err(|error| StoreError::io("read", folder, error))?;
    let needed = read.shard.image_len.saturating_sub(there);
    if needed <= room {
        return Ok(());
    }
    let (needed, room) = (ByteLen::new(needed), ByteLen::new(room));
    Err(StoreError::NoRoom { folder: folder.to_path_buf(), needed, room, of: Room::Disk })
}

/// How many bytes from the start of a file are proven, and the unit after them.
fn proven_prefix(
    read: &ImageRead<'_, '_>,
    proof: &Proof,
    start: &[u8],
    file: &Arc<File>,
) -> Result<(u64, u64), StoreError> {
    let piece = |at: u64, len: u64| {
        let file = Arc::clone(file);
        read.options.on_files(move || read_file(&file, at, len))
    };
    let start_len = u64::try_from(start.len()).unwrap_or(0);
    if !piece(0, start_len)?.is_ok_and(|found| *found == *start) {
        return Ok((0, 0));
    }
    let mut good = (start_len, 0);
    for step in proof.steps(0, read.options) {
        read.options.go_on()?;
        let len = step.range.end.saturating_sub(step.range.start);
        let Ok(bytes) = piece(step.range.start, len)? else { break };
        if proof.check(&step, &bytes.into())?.is_err() {
            break;
        }
        good = (step.range.end, step.first.saturating_add(step.count));
    }
    Ok(good)
}

/// Writes what is missing. Nothing unproven is written.
fn fill(
    read: &ImageRead<'_, '_>,
    proof: &Proof,
    start: &[u8],
    file: &Arc<File>,
    partial: &Path,
    done: &mut dyn FnMut(u64, &str),
) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("write", partial, error);
    let (good, next) = proven_prefix(read, proof, start, file)?;
    let (target, begins) = (Arc::clone(file), (good == 0).then(|| start.to_vec()));
    let begin = move || {
        target.set_len(good)?;
        target.write_all_at(&begins.unwrap_or_default(), 0)
    };
    read.options.on_files(begin)?.map_err(failed)?;
    done(good, "resumed");
    let mut window = read.window(proof, next);
    while let Some((step, fetched)) = window.next(read.options)? {
        let proven = read.prove(proof, &step, fetched)?;
        let (target, bytes, mut at) = (Arc::clone(file), proven.bytes, step.range.start);
        let write = move || {
            for piece in bytes.pieces() {
                target.write_all_at(piece, at)?;
                at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(0));
            }
            Ok(())
        };
        read.options.on_files(write)?.map_err(failed)?;
        let len = step.range.end.saturating_sub(step.range.start);
        done(len, &read.sources.name(proven.source));
    }
    finish(read, proof)?;
    let written = Arc::clone(file);
    let len = read.options.on_files(move || Ok(written.metadata()?.len()))?.map_err(failed)?;
    if len == read.shard.image_len { Ok(()) } else { Err(read.no_source()) }
}

/// The last check. It finds a wrong content whose segments all have good codes, which only a holder of
/// the key can make; so every source that was used is named.
fn finish(read: &ImageRead<'_, '_>, proof: &Proof) -> Result<(), StoreError> {
    let Err(part) = proof.finish() else { return Ok(()) };
    while let Some(source) = read.sources.next() {
        read.sources.lied(source, true, part, read.options);
    }
    debug_assert_eq!(part, Part::Content, "parts have no last check");
    Err(read.no_source())
}
