//! The steps of a load: verify, read back, compare, free. Each is timed, and each can be cancelled.

use core::hash::BuildHasher as _;
use core::time::Duration;
use std::hash::RandomState;
use std::io::{self, Write};
use std::time::Instant;

use vram_residency::{
    ByteLen, CancelToken, ContentDigest, ModelHandle, Piece, SealedShard, Verify, VramError,
    VramManager,
};

use crate::failure::Failure;
use crate::interrupt;
use crate::model::digests::{Expectations, Found, Hashers};
use crate::model::{Model, ModelFile};
use crate::progress::Bar;

/// Bytes of a file read at a time.
const WINDOW: usize = 1 << 20;
/// Longest range that is compared with the file.
const RANGE_LEN_MAX: u64 = 256 << 10;

/// A model in device memory, and the files that it was loaded from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded<'a> {
    pub(crate) manager: &'a VramManager,
    pub(crate) model: &'a Model,
    pub(crate) handle: &'a ModelHandle,
    pub(crate) token: &'a CancelToken,
}

impl<'a> Loaded<'a> {
    /// Each piece with the shard that holds it, in the order of the files.
    fn pieces(&self) -> impl Iterator<Item = (&'a Piece, &'a SealedShard)> + use<'a> {
        self.handle.pieces.iter().map(|one| (&one.piece, &one.shard))
    }

    /// Checks every byte in device memory against its seal.
    pub(crate) fn verify(&self) -> Result<Duration, Failure> {
        let bar = Bar::new("verify", self.model.plan.total());
        let started = Instant::now();
        for (piece, shard) in self.pieces() {
            interrupt::check(self.token)?;
            let verdict =
                self.manager.verify(shard, Verify::Full).map_err(|error| at(piece, error))?;
            if !verdict.sound {
                let segments: Vec<String> =
                    verdict.altered.iter().take(8).map(ToString::to_string).collect();
                return Err(Failure::integrity(format!(
                    "{} on gpu {} was altered in device memory: {}",
                    name(piece),
                    shard.gpu_index,
                    if segments.is_empty() {
                        "its content".to_owned()
                    } else {
                        segments.join(", ")
                    },
                ))
                .detail(|details| {
                    details.tensor = Some(name(piece));
                    details.gpu = Some(shard.gpu_index);
                })
                .hint("load it again; if it happens again, the memory is failing"));
            }
            bar.advance(shard.plaintext_len);
        }
        Ok(started.elapsed())
    }

    /// Opens every shard in device memory, and returns the digests of each file as it is there: its
    /// tensors, and from the file what lies before, between and behind them.
    pub(crate) fn digests(
        &self,
        expected: &Expectations,
    ) -> Result<(Vec<Found>, Duration), Failure> {
        let bar = Bar::new("read", self.model.plan.total());
        let mut pieces = self.pieces().peekable();
        let mut digests = Vec::with_capacity(self.model.files.len());
        let mut time = Duration::ZERO;
        for ((index, file), number) in (0_u32..).zip(&self.model.files).zip(0..) {
            let sha256 = expected.needs_sha256(number);
            let mut target =
                Hashing { hashers: Hashers::new(sha256), bar: &bar, token: self.token };
            let mut end = 0;
            while let Some((piece, shard)) = pieces.next_if(|(piece, _)| piece.file == index) {
                hash_file(file, end, piece.source_offset, &mut target.hashers)?;
                let started = Instant::now();
                let written = self.manager.unseal_to(shard, &mut target);
                time = time.saturating_add(started.elapsed());
                interrupt::check(self.token)?;
                written.map_err(|error| at(piece, error))?;
                end = end_of(piece);
            }
            hash_file(file, end, file.header.file_len().get(), &mut target.hashers)?;
            digests.push(target.hashers.finalize());
        }
        Ok((digests, time))
    }

    /// The SHA-256 of one file as it lies in device memory.
    pub(crate) fn sha256(&self, number: usize) -> Result<ContentDigest, Failure> {
        let (index, file) = u32::try_from(number)
            .ok()
            .zip(self.model.files.get(number))
            .ok_or_else(|| Failure::input("there is no such file"))?;
        let bar = Bar::new("read", file.header.tensor_bytes());
        let mut target = Hashing { hashers: Hashers::new(true), bar: &bar, token: self.token };
        let mut end = 0;
        for (piece, shard) in self.pieces().filter(|(piece, _)| piece.file == index) {
            hash_file(file, end, piece.source_offset, &mut target.hashers)?;
            self.manager.unseal_to(shard, &mut target)?;
            end = end_of(piece);
        }
        hash_file(file, end, file.header.file_len().get(), &mut target.hashers)?;
        let found = target.hashers.finalize();
        Ok(found.sha256.unwrap_or(found.blake3))
    }

    /// Reads the first byte, the last one, and ranges at random places, `count` in all, and
    /// compares them with the files. Returns how many were compared; 0 for an empty model.
    pub(crate) fn compare_ranges(&self, count: u64) -> Result<u64, Failure> {
        let shards: Vec<_> = self.pieces().filter(|(piece, _)| !piece.len.is_zero()).collect();
        let mut dice = Dice::new(RandomState::new().hash_one(0_u8));
        let mut compared = 0_u64;
        for turn in 0..count {
            interrupt::check(self.token)?;
            let index = match turn {
                0 => 0,
                1 => shards.len().saturating_sub(1),
                _ => dice
                    .below(u64::try_from(shards.len()).unwrap_or(u64::MAX))
                    .try_into()
                    .unwrap_or(0),
            };
            let Some(&(piece, shard)) = shards.get(index) else { break };
            let len = piece.len.get();
            let offset = match turn {
                0 => 0,
                1 => len.saturating_sub(1),
                _ => dice.below(len),
            };
            let most = len.saturating_sub(offset).min(RANGE_LEN_MAX);
            let wanted = if turn < 2 { 1 } else { dice.below(most).saturating_add(1) };
            self.compare(piece, shard, offset, wanted)?;
            compared = compared.saturating_add(1);
        }
        Ok(compared)
    }

    /// Compares one range of one piece with the file that it came from.
    fn compare(
        &self,
        piece: &Piece,
        shard: &SealedShard,
        offset: u64,
        wanted: u64,
    ) -> Result<(), Failure> {
        let too_long = || Failure::input("this host cannot address such a range");
        let (Ok(start), Ok(len)) = (usize::try_from(offset), usize::try_from(wanted)) else {
            return Err(too_long());
        };
        let resident = self.manager.read_shard_at_offset(shard, start, len);
        let resident = resident.map_err(|error| at(piece, error))?;
        let file = usize::try_from(piece.file).ok().and_then(|index| self.model.files.get(index));
        let Some(file) = file else { return Err(too_long()) };
        let mut original = vec![0; len];
        file.read(piece.source_offset.saturating_add(offset), &mut original)?;
        if resident != original {
            return Err(Failure::integrity(format!(
                "{wanted} bytes at {offset} of {} differ from {}",
                name(piece),
                file.path.display()
            ))
            .hint("leave the file alone while it loads"));
        }
        Ok(())
    }
}

/// An error of the library, with the tensor at which it happened.
fn at(piece: &Piece, error: VramError) -> Failure {
    Failure::from(error).at_tensor(&name(piece))
}

/// The name of a piece in messages: the tensor, and which part of it.
pub(crate) fn name(piece: &Piece) -> String {
    if piece.part_count <= 1 {
        return format!("tensor {}", piece.name);
    }
    let part = piece.part.saturating_add(1);
    format!("tensor {} (part {part} of {})", piece.name, piece.part_count)
}

/// Where a piece ends in its file.
const fn end_of(piece: &Piece) -> u64 {
    piece.source_offset.saturating_add(piece.len.get())
}

/// Hashes bytes of a file that belong to no tensor: they are not in device memory.
fn hash_file(
    file: &ModelFile,
    mut offset: u64,
    end: u64,
    hashers: &mut Hashers,
) -> Result<(), Failure> {
    if offset >= end {
        return Ok(());
    }
    // Padding is short, and there may be as much of it as there are tensors.
    let longest = usize::try_from(end.saturating_sub(offset)).unwrap_or(WINDOW).min(WINDOW);
    let mut window = vec![0; longest];
    while offset < end {
        let left = end.saturating_sub(offset);
        let now = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW);
        let part = window.get_mut(..now).unwrap_or_default();
        file.read(offset, part)?;
        hashers.update(part);
        offset = offset.saturating_add(ByteLen::from_usize(now).get());
    }
    Ok(())
}

/// Hashes the bytes written to it; fails once the user asked to stop.
pub(crate) struct Hashing<'a> {
    pub(crate) hashers: Hashers,
    pub(crate) bar: &'a Bar,
    pub(crate) token: &'a CancelToken,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.token.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        self.hashers.update(bytes);
        self.bar.advance(ByteLen::from_usize(bytes.len()).get());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Random places; no check depends on how random they are.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be zero: the generator would stay at zero.
        Self(seed.max(1))
    }

    /// A number from 0 to `end`, exclusive; 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.checked_rem(end).unwrap_or_default()
    }
}
