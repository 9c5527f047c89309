//! Other libraries and programs that encrypt, beside this one, in turns: memory against memory, in
//! place, and file against file.
//!
//! ```text
//! vram-peers [--quick] [FOLDER]     FOLDER: where the files lie, the system's temporary folder without it
//! ```
//!
//! One line a peer, its fields separated by tabs: the kind (`memory`, `in place` or `file`),
//! the name, the threads, GB/s sealing, GB/s opening (`-`: not measured), what it promises, what it lacks. Medians
//! of all rounds. Everything that writes a file also syncs it.

#![forbid(unsafe_code)]

mod file;
mod memory;

use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;
/// One turn: how long sealing took, and opening what was sealed.
type Turn<'a> = Box<dyn FnMut() -> Result<(Duration, Option<Duration>), Failure> + 'a>;

/// Something that takes part.
struct Peer<'a> {
    kind: &'static str,
    name: &'static str,
    threads: usize,
    promises: &'static str,
    lacks: &'static str,
    turn: Turn<'a>,
}

/// What is promised by more than one peer.
const OURS: &str =
    "any range opens alone; commits to key and name; digest of the whole; nonce cannot be misused";
const STREAM: &str = "order and end of the stream are authenticated";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let parent = arguments.iter().find(|argument| !argument.starts_with("--"));
    let folder = match parent {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let (len, rounds) = if quick { (4 << 20, 1) } else { (64 << 20, 7) };
    let plain: Vec<u8> = (0..len).map(|at: usize| at.wrapping_mul(31).to_le_bytes()[1]).collect();
    let all = std::thread::available_parallelism()?.get();
    let mut spaces = memory::Spaces::new(len);
    measure(len, rounds, &mut memory::peers(&plain, &mut spaces, all)?)?;
    let files = file::Files::new(folder.path(), &plain)?;
    measure(len, rounds, &mut file::peers(&files, all)?)
}

/// Lets all take turns, and prints the medians.
fn measure(len: usize, rounds: usize, peers: &mut [Peer<'_>]) -> Result<(), Failure> {
    let mut took = vec![(Vec::new(), Vec::new()); peers.len()];
    for _ in 0..rounds {
        for (peer, (sealed, opened)) in peers.iter_mut().zip(&mut took) {
            let (sealing, opening) =
                (peer.turn)().map_err(|error| format!("{}: {error}", peer.name))?;
            sealed.push(sealing);
            opened.extend(opening);
        }
    }
    for (peer, (sealed, opened)) in peers.iter().zip(took) {
        let Peer { kind, name, threads, promises, lacks, .. } = peer;
        let (sealed, opened) = (rate(len, sealed), rate(len, opened));
        println!("{kind}\t{name}\t{threads}\t{sealed}\t{opened}\t{promises}\t{lacks}");
    }
    Ok(())
}

fn rate(len: usize, mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let Some(median) = took.get(took.len() / 2) else { return "-".to_owned() };
    let mib = f64::from(u32::try_from(len >> 10).unwrap_or(u32::MAX)) * 1024.0;
    format!("{:.3}", mib / median.as_secs_f64() / 1e9)
}

fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(T, Duration), Failure> {
    let start = Instant::now();
    let done = work()?;
    Ok((done, start.elapsed()))
}
