//! From one buffer into another, and in place in one: all touched before.

use std::cell::RefCell;
use std::io::{Read, Write};

use aead_stream::{DecryptorBE32, EncryptorBE32, Nonce, StreamBE32};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit};
use dryoc::dryocstream::{DryocStream, Tag};
use vram_seal::{
    Expected, Opener, SealContext, SealKey, SealParams, Suite, Threads, seal, seal_in_place,
    unseal, unseal_in_place,
};

use crate::{Failure, OURS, Peer, STREAM, timed};

/// The length of a piece of a stream, as age has it.
const PIECE: usize = 64 << 10;
const TAG: usize = 16;
const MEMORY: &str = "memory";
const IN_PLACE: &str = "in place";
#[cfg(feature = "aws-lc")]
const GCM_SIV: &str = "AES-256-GCM-SIV of aws-lc-rs 1.19, pieces of 64 KiB";
#[cfg(feature = "aws-lc")]
const GCM_SIV_PROMISES: &str = "a nonce that is used twice reveals equality alone";
#[cfg(feature = "aws-lc")]
const GCM_SIV_LACKS: &str = "order of the pieces, a file format, commitment, digest, threads";

/// What is sealed into, and what is opened into; one at a time uses them.
pub(crate) struct Spaces {
    sealed: RefCell<Vec<u8>>,
    opened: RefCell<Vec<u8>>,
}

impl Spaces {
    /// With room for the tags and the headers of every peer.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            sealed: RefCell::new(vec![1; len + len / PIECE * 64 + 4096]),
            opened: RefCell::new(vec![1; len]),
        }
    }
}

/// Everything that works on memory.
pub(crate) fn peers<'a>(
    plain: &'a [u8],
    spaces: &'a mut Spaces,
    all: usize,
) -> Result<Vec<Peer<'a>>, Failure> {
    let spaces = &*spaces;
    let mut peers = Vec::new();
    for (suite, name) in [
        (Suite::Aes256Gcm, "vram-seal, AES-256-GCM"),
        (Suite::ChaCha20Poly1305, "vram-seal, ChaCha20-Poly1305"),
    ] {
        for threads in if all > 1 { vec![1, all] } else { vec![1] } {
            peers.push(ours(name, suite, threads, plain, spaces)?);
        }
    }
    peers.push(age(plain, spaces));
    peers.push(rustcrypto(plain, spaces));
    peers.push(secretstream(plain, spaces));
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        peers.push(ours_in_place(threads, plain, spaces)?);
    }
    #[cfg(feature = "aws-lc")]
    peers.extend([gcm_siv(plain, spaces)?, gcm_siv_in_place(plain, spaces)?]);
    Ok(peers)
}

fn ours<'a>(
    name: &'static str,
    suite: Suite,
    threads: usize,
    plain: &'a [u8],
    spaces: &'a Spaces,
) -> Result<Peer<'a>, Failure> {
    let key = SealKey::from_bytes(&[7; 32]);
    let params = SealParams::new().with_suite(suite);
    let count = Threads::exactly(threads);
    let context = SealContext::new("peer")?;
    let turn = move || {
        let (mut sealed, mut opened) = (spaces.sealed.borrow_mut(), spaces.opened.borrow_mut());
        let sealed = sealed.get_mut(..plain.len()).ok_or("no room")?;
        let (made, sealing) = timed(|| Ok(seal(&key, &context, params, count, plain, sealed)?))?;
        let ((), opening) = timed(|| {
            let expected = Expected::from(&context).params(params);
            let reader = Opener::open(&key, &made.record, made.tags, &expected)?;
            Ok(unseal(&reader, count, sealed, &mut opened)?)
        })?;
        same(&opened, plain)?;
        Ok((sealing, Some(opening)))
    };
    Ok(Peer {
        kind: MEMORY,
        name,
        threads,
        promises: OURS,
        lacks: "recipients, passphrases",
        turn: Box::new(turn),
    })
}

/// Fills the space anew in each turn, which is not timed.
fn ours_in_place<'a>(
    threads: usize,
    plain: &'a [u8],
    spaces: &'a Spaces,
) -> Result<Peer<'a>, Failure> {
    let key = SealKey::from_bytes(&[7; 32]);
    let params = SealParams::new().with_suite(Suite::Aes256Gcm);
    let count = Threads::exactly(threads);
    let context = SealContext::new("peer")?;
    let turn = move || {
        let mut sealed = spaces.sealed.borrow_mut();
        let bytes = sealed.get_mut(..plain.len()).ok_or("no room")?;
        bytes.copy_from_slice(plain);
        let (made, sealing) = timed(|| Ok(seal_in_place(&key, &context, params, count, bytes)?))?;
        let ((), opening) = timed(|| {
            let expected = Expected::from(&context).params(params);
            let reader = Opener::open(&key, &made.record, made.tags, &expected)?;
            Ok(unseal_in_place(&reader, count, bytes)?)
        })?;
        same(bytes, plain)?;
        Ok((sealing, Some(opening)))
    };
    Ok(Peer {
        kind: IN_PLACE,
        name: "vram-seal, AES-256-GCM",
        threads,
        promises: OURS,
        lacks: "recipients, passphrases",
        turn: Box::new(turn),
    })
}

fn age<'a>(plain: &'a [u8], spaces: &'a Spaces) -> Peer<'a> {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public();
    let turn = move || {
        let (mut sealed, mut opened) = (spaces.sealed.borrow_mut(), spaces.opened.borrow_mut());
        let (left, sealing) = timed(|| {
            let to = std::iter::once(&recipient as &dyn age::Recipient);
            let mut out = &mut sealed[..];
            let mut writer = age::Encryptor::with_recipients(to)?.wrap_output(&mut out)?;
            writer.write_all(plain)?;
            writer.finish()?;
            Ok(out.len())
        })?;
        let len = sealed.len() - left;
        let ((), opening) = timed(|| {
            let from = age::Decryptor::new_buffered(&sealed[..len])?;
            let mut reader = from.decrypt(std::iter::once(&identity as &dyn age::Identity))?;
            Ok(reader.read_exact(&mut opened)?)
        })?;
        same(&opened, plain)?;
        Ok((sealing, Some(opening)))
    };
    Peer {
        kind: MEMORY,
        name: "age (crate 0.11), X25519",
        threads: 1,
        promises: "recipients; order and end are authenticated; ranges open in pieces of 64 KiB",
        lacks: "commitment, digest, threads, AES",
        turn: Box::new(turn),
    }
}

fn rustcrypto<'a>(plain: &'a [u8], spaces: &'a Spaces) -> Peer<'a> {
    let turn = move || {
        let (mut sealed, mut opened) = (spaces.sealed.borrow_mut(), spaces.opened.borrow_mut());
        let nonce = Nonce::<ChaCha20Poly1305, StreamBE32<ChaCha20Poly1305>>::default();
        let cipher = || ChaCha20Poly1305::new(&Key::from([7; 32]));
        let mut piece = Vec::with_capacity(PIECE + TAG);
        let ((), sealing) = timed(|| {
            let mut stream = EncryptorBE32::from_aead(cipher(), &nonce);
            for (from, to) in plain.chunks(PIECE).zip(sealed.chunks_mut(PIECE + TAG)) {
                piece.clear();
                piece.extend_from_slice(from);
                stream.encrypt_next_in_place(&[], &mut piece).map_err(|_| "not encrypted")?;
                to[..piece.len()].copy_from_slice(&piece);
            }
            Ok(())
        })?;
        let ((), opening) = timed(|| {
            let mut stream = DecryptorBE32::from_aead(cipher(), &nonce);
            for (from, to) in sealed.chunks(PIECE + TAG).zip(opened.chunks_mut(PIECE)) {
                piece.clear();
                piece.extend_from_slice(&from[..to.len() + TAG]);
                stream.decrypt_next_in_place(&[], &mut piece).map_err(|_| "not authentic")?;
                to.copy_from_slice(&piece);
            }
            Ok(())
        })?;
        same(&opened, plain)?;
        Ok((sealing, Some(opening)))
    };
    Peer {
        kind: MEMORY,
        name: "RustCrypto STREAM (aead-stream 0.6), ChaCha20-Poly1305",
        threads: 1,
        promises: STREAM,
        lacks: "a file format, commitment, digest, threads, safety of a nonce used twice",
        turn: Box::new(turn),
    }
}

fn secretstream<'a>(plain: &'a [u8], spaces: &'a Spaces) -> Peer<'a> {
    let turn = move || {
        let mut opened = spaces.opened.borrow_mut();
        let key = dryoc::dryocstream::Key::from([7; 32]);
        let mut pieces: Vec<Vec<u8>> = Vec::with_capacity(plain.len().div_ceil(PIECE));
        let (header, sealing) = timed(|| {
            let (mut stream, header): (_, dryoc::dryocstream::Header) =
                DryocStream::init_push(&key);
            for piece in plain.chunks(PIECE) {
                pieces.push(stream.push_to_vec(piece, None, Tag::Message)?);
            }
            Ok(header)
        })?;
        let ((), opening) = timed(|| {
            let mut stream = DryocStream::init_pull(&key, &header);
            for (from, to) in pieces.iter().zip(opened.chunks_mut(PIECE)) {
                to.copy_from_slice(&stream.pull_to_vec(from, None)?.0);
            }
            Ok(())
        })?;
        same(&opened, plain)?;
        Ok((sealing, Some(opening)))
    };
    Peer {
        kind: MEMORY,
        name: "secretstream of libsodium, as dryoc 2.0 has it, XChaCha20-Poly1305",
        threads: 1,
        promises: STREAM,
        lacks: "ranges, commitment, digest, threads; allocates each piece; libsodium in C is faster",
        turn: Box::new(turn),
    }
}

#[cfg(feature = "aws-lc")]
fn gcm_siv<'a>(plain: &'a [u8], spaces: &'a Spaces) -> Result<Peer<'a>, Failure> {
    use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &[7; 32])?);
    let turn = move || {
        let (mut sealed, mut opened) = (spaces.sealed.borrow_mut(), spaces.opened.borrow_mut());
        let sealed = sealed.get_mut(..plain.len()).ok_or("no room")?;
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        let (tags, sealing) = timed(|| {
            let mut tags = Vec::with_capacity(plain.len().div_ceil(PIECE));
            for (from, to) in plain.chunks(PIECE).zip(sealed.chunks_mut(PIECE)) {
                to.copy_from_slice(from);
                tags.push(key.seal_in_place_separate_tag(nonce(), Aad::empty(), to)?);
            }
            Ok(tags)
        })?;
        let ((), opening) = timed(|| {
            for ((from, to), tag) in sealed.chunks(PIECE).zip(opened.chunks_mut(PIECE)).zip(&tags) {
                let empty = Aad::empty();
                key.open_separate_gather(nonce(), empty, from, tag.as_ref(), to)?;
            }
            Ok(())
        })?;
        same(&opened, plain)?;
        Ok((sealing, Some(opening)))
    };
    Ok(Peer {
        kind: MEMORY,
        name: GCM_SIV,
        threads: 1,
        promises: GCM_SIV_PROMISES,
        lacks: GCM_SIV_LACKS,
        turn: Box::new(turn),
    })
}

/// As ours in place. Each piece has its tag behind it, where opening in place wants it.
#[cfg(feature = "aws-lc")]
fn gcm_siv_in_place<'a>(plain: &'a [u8], spaces: &'a Spaces) -> Result<Peer<'a>, Failure> {
    use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &[7; 32])?);
    let turn = move || {
        let mut sealed = spaces.sealed.borrow_mut();
        let len = plain.len() + plain.len().div_ceil(PIECE) * TAG;
        let bytes = sealed.get_mut(..len).ok_or("no room")?;
        for (from, to) in plain.chunks(PIECE).zip(bytes.chunks_mut(PIECE + TAG)) {
            to[..from.len()].copy_from_slice(from);
        }
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        let ((), sealing) = timed(|| {
            for piece in bytes.chunks_mut(PIECE + TAG) {
                let (content, to) = piece.split_at_mut(piece.len() - TAG);
                let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), content)?;
                to.copy_from_slice(tag.as_ref());
            }
            Ok(())
        })?;
        let ((), opening) = timed(|| {
            for piece in bytes.chunks_mut(PIECE + TAG) {
                key.open_in_place(nonce(), Aad::empty(), piece)?;
            }
            Ok(())
        })?;
        for (piece, plain) in bytes.chunks(PIECE + TAG).zip(plain.chunks(PIECE)) {
            same(&piece[..plain.len()], plain)?;
        }
        Ok((sealing, Some(opening)))
    };
    Ok(Peer {
        kind: IN_PLACE,
        name: GCM_SIV,
        threads: 1,
        promises: GCM_SIV_PROMISES,
        lacks: GCM_SIV_LACKS,
        turn: Box::new(turn),
    })
}

fn same(opened: &[u8], plain: &[u8]) -> Result<(), Failure> {
    if opened == plain { Ok(()) } else { Err("what was opened is not what was sealed".into()) }
}
