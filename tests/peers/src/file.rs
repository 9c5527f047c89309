//! From one file into another: the source in the page cache, the target synced.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vram_files::{
    Expected, FileSource, ImageOptions, KeyRing, Overwrite, SealContext, SealKey, SealParams,
    seal_image, unseal_image,
};

use vram_seal::Threads;

use crate::{Failure, OURS, Peer, timed};

const BUFFER: usize = 1 << 20;
const FILE: &str = "file";

/// Where everything lies.
pub(crate) struct Files {
    plain: PathBuf,
    sealed: PathBuf,
    opened: PathBuf,
    key: PathBuf,
}

impl Files {
    /// Writes the plain file.
    pub(crate) fn new(folder: &Path, plain: &[u8]) -> Result<Self, Failure> {
        let at = |name| folder.join(name);
        std::fs::write(at("plain"), plain)?;
        Ok(Self { plain: at("plain"), sealed: at("sealed"), opened: at("opened"), key: at("key") })
    }

    fn same(&self) -> Result<(), Failure> {
        let same = std::fs::read(&self.opened)? == std::fs::read(&self.plain)?;
        std::fs::remove_file(&self.opened)?;
        if same { Ok(()) } else { Err("what was opened is not what was sealed".into()) }
    }
}

/// Everything that works on files. Programs that are not there take no part.
pub(crate) fn peers(files: &Files, all: usize) -> Result<Vec<Peer<'_>>, Failure> {
    let mut peers = vec![copy(files)];
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        peers.push(ours(files, threads)?);
    }
    peers.push(age(files));
    for program in ["age", "rage"] {
        if is_there(program) {
            peers.push(age_program(files, program)?);
        }
    }
    if is_there("openssl") {
        peers.push(openssl(files));
    }
    Ok(peers)
}

fn copy(files: &Files) -> Peer<'_> {
    let turn = move || {
        let ((), took) = timed(|| {
            std::fs::copy(&files.plain, &files.sealed)?;
            sync(&files.sealed)
        })?;
        Ok((took, None))
    };
    Peer {
        kind: FILE,
        name: "a plain copy",
        threads: 1,
        promises: "the limit of the file system",
        lacks: "any protection",
        turn: Box::new(turn),
    }
}

fn ours(files: &Files, threads: usize) -> Result<Peer<'_>, Failure> {
    let keys = KeyRing::new(SealKey::from_bytes(&[7; 32]));
    let context = SealContext::new("peer")?;
    let turn = move || {
        let options =
            || ImageOptions::new().overwrite(Overwrite::Replace).threads(Threads::exactly(threads));
        let (_, sealing) = timed(|| {
            let source = FileSource::open(&files.plain)?;
            let (key, params) = (keys.active(), SealParams::new());
            Ok(seal_image(key, &context, params, &source, &files.sealed, options())?)
        })?;
        let (_, opening) = timed(|| {
            let expected = Expected::from(&context);
            Ok(unseal_image(&keys, &expected, &files.sealed, &files.opened, options())?)
        })?;
        files.same()?;
        Ok((sealing, Some(opening)))
    };
    Ok(Peer {
        kind: FILE,
        name: "vram image, AES-256-GCM",
        threads,
        promises: OURS,
        lacks: "recipients, passphrases",
        turn: Box::new(turn),
    })
}

fn age(files: &Files) -> Peer<'_> {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public();
    let turn = move || {
        let ((), sealing) = timed(|| {
            let to = std::iter::once(&recipient as &dyn age::Recipient);
            let out = BufWriter::with_capacity(BUFFER, File::create(&files.sealed)?);
            let mut writer = age::Encryptor::with_recipients(to)?.wrap_output(out)?;
            pump(File::open(&files.plain)?, &mut writer)?;
            let mut out = writer.finish()?;
            out.flush()?;
            Ok(out.get_ref().sync_all()?)
        })?;
        let ((), opening) = timed(|| {
            let sealed = BufReader::with_capacity(BUFFER, File::open(&files.sealed)?);
            let from = age::Decryptor::new_buffered(sealed)?;
            let reader = from.decrypt(std::iter::once(&identity as &dyn age::Identity))?;
            let mut out = File::create(&files.opened)?;
            pump(reader, &mut out)?;
            Ok(out.sync_all()?)
        })?;
        files.same()?;
        Ok((sealing, Some(opening)))
    };
    Peer {
        kind: FILE,
        name: "age (crate 0.11), X25519",
        threads: 1,
        promises: "recipients; order and end are authenticated; ranges open in pieces of 64 KiB",
        lacks: "commitment, digest, threads, AES",
        turn: Box::new(turn),
    }
}

/// The program `age` or `rage`, with a key of its own.
fn age_program<'a>(files: &'a Files, program: &'static str) -> Result<Peer<'a>, Failure> {
    let key = files.key.with_extension(program);
    run(Command::new(format!("{program}-keygen")).arg("-o").arg(&key))?;
    let text = std::fs::read_to_string(&key)?;
    let recipient = text.split_whitespace().find(|word| word.starts_with("age1"));
    let recipient = recipient.ok_or("no public key in the key file")?.to_owned();
    let turn = move || {
        let ((), sealing) = timed(|| {
            let mut command = Command::new(program);
            command.args(["-r", &recipient, "-o"]).args([&files.sealed, &files.plain]);
            run(&mut command)?;
            sync(&files.sealed)
        })?;
        let ((), opening) = timed(|| {
            let mut command = Command::new(program);
            command.arg("-d").arg("-i").arg(&key).arg("-o").args([&files.opened, &files.sealed]);
            run(&mut command)?;
            sync(&files.opened)
        })?;
        files.same()?;
        Ok((sealing, Some(opening)))
    };
    Ok(Peer {
        kind: FILE,
        name: if program == "age" { "age (program)" } else { "rage (program)" },
        threads: 1,
        promises: "recipients; order and end are authenticated",
        lacks: "commitment, digest, AES; includes the start of the program",
        turn: Box::new(turn),
    })
}

/// Its `enc` offers no cipher that authenticates.
fn openssl(files: &Files) -> Peer<'_> {
    let turn = move || {
        let enc = |way: &[&str], from: &Path, to: &Path| {
            let mut command = Command::new("openssl");
            command.args(["enc", "-aes-256-ctr"]).args(way);
            command.args(["-K", &"07".repeat(32), "-iv", &"00".repeat(16)]);
            command.args(["-bufsize", "1048576", "-in"]).arg(from).arg("-out").arg(to);
            run(&mut command)?;
            sync(to)
        };
        let ((), sealing) = timed(|| enc(&["-e"], &files.plain, &files.sealed))?;
        let ((), opening) = timed(|| enc(&["-d"], &files.sealed, &files.opened))?;
        files.same()?;
        Ok((sealing, Some(opening)))
    };
    Peer {
        kind: FILE,
        name: "openssl enc -aes-256-ctr (program)",
        threads: 1,
        promises: "secrecy",
        lacks: "authentication of any kind, digest; includes the start of the program",
        turn: Box::new(turn),
    }
}

fn pump(mut from: impl Read, to: &mut impl Write) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            len => to.write_all(&buffer[..len])?,
        }
    }
}

fn sync(path: &Path) -> Result<(), Failure> {
    Ok(File::open(path)?.sync_all()?)
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {told}", output.status).into())
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
