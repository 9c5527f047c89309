//! `vram view`: a page of HTML from a snapshot.

use std::io::{self, IsTerminal as _, Read, Write as _};

use serde::Serialize;
use vram_residency::{ByteLen, Snapshot, regular_file};

use super::written;
use crate::args::ViewArgs;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::{streams, table};

/// Most bytes of a snapshot. A shard takes about 700, so that this is some 300,000 shards.
const LEN_MAX: ByteLen = ByteLen::new(256 << 20);

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    snapshot: String,
    page: String,
    page_len: u64,
    gpu_count: usize,
    shard_count: usize,
}

/// Reads the snapshot, and writes the page.
pub(crate) fn run(args: &ViewArgs, output: &mut Output) -> Result<(), Failure> {
    let text = read(args)?;
    let name = streams::input_name(&args.snapshot);
    let unusable = |error: &dyn core::fmt::Display| {
        Failure::input(format!("{name} is no snapshot: {error}"))
            .code("snapshot")
            .hint("give what `vram serve` answers at /snapshot, or what `vram demo --snapshot` writes")
            .detail(|details| details.file = Some(name.clone()))
    };
    // Read as the type that it is: a page of something else would be empty, and look sound.
    let snapshot: Snapshot = serde_json::from_str(&text).map_err(|error| unusable(&error))?;
    let page = vram_view::static_page(&text).map_err(|error| unusable(&error))?;
    let input = streams::input_file(&args.snapshot);
    streams::output_is_none_of(&[input])?;
    if streams::is_dash(&args.output) {
        let mut sink = streams::output()?;
        if let Err(error) = sink.write_all(page.as_bytes())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(Failure::input(format!("cannot write the page: {error}"))
                .code("io")
                .hint("check where standard output goes"));
        }
    } else {
        written::write(&args.output, page.as_bytes(), &[input])?;
    }
    let made = Made {
        snapshot: name.clone(),
        page: streams::output_name(&args.output),
        page_len: ByteLen::from_usize(page.len()).get(),
        gpu_count: snapshot.state.gpus.len(),
        shard_count: snapshot.state.shards.len(),
    };
    note(format!(
        "a page of {} with {}: {}; open it in a browser",
        table::count(u64::try_from(made.gpu_count).unwrap_or(u64::MAX), "GPU"),
        table::count(u64::try_from(made.shard_count).unwrap_or(u64::MAX), "shard"),
        made.page,
    ));
    output.json(&made)
}

/// The text of the snapshot, in bounded memory.
fn read(args: &ViewArgs) -> Result<String, Failure> {
    let path = &args.snapshot;
    let failed = |error: io::Error| {
        Failure::file("read the snapshot in", path, &error)
            .detail(|details| details.file = Some(streams::input_name(path)))
    };
    let mut source: Box<dyn Read> = if streams::is_dash(path) {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(
                Failure::input("standard input is a terminal").hint("give a file, or a pipe")
            );
        }
        Box::new(stdin)
    } else {
        Box::new(regular_file::open_regular(path).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    source
        .by_ref()
        .take(LEN_MAX.get().saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let name = streams::input_name(path);
    if ByteLen::from_usize(bytes.len()) > LEN_MAX {
        return Err(Failure::input(format!("{name} is longer than {}", table::size(LEN_MAX)))
            .code("snapshot")
            .hint("give the snapshot of one node"));
    }
    String::from_utf8(bytes).map_err(|_not_text| {
        Failure::input(format!("{name} is no text"))
            .code("snapshot")
            .hint("give what `vram serve` answers at /snapshot")
    })
}
