//! Property: no step makes a valid record for altered bytes, and no wrong byte is ever read.
//!
//! Method: every step that moves a shard, or makes a new record for it, runs while one bit flips in
//! one call of a device: in each kind of call, in each call of that kind, at several places. Then
//! either the step ends with the record that it has without the fault, and the bytes are right or
//! refused as altered; or the step fails, and whatever is left is right or refused. Each flip has a
//! fresh manager.
//!
//! The second half plays the holder of the key, who can make a second body that passes every tag of
//! a record (GCM does not commit to its plaintext): two blocks of one segment are changed so that
//! the tag stays. Only a comparison with the digest, or with the segment's synthetic IV, finds it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]

#[macro_use]
extern crate vram_testkit;

use std::fs;

use vram_alloc::DeviceOffset;
use vram_residency::device::fault::{Action, FaultPlan, Op, When};
use vram_residency::{
    ByteLen, CompactBudget, Expected, ExportOptions, ImageOptions, ImportRequest, KeyRing, Limits,
    MemoryMode, Overwrite, Protection, RepairOptions, SealKey, SealRequest, SealedShard,
    SegmentSize, SivScope, SliceSource, Suite, Threads, Verify, VramError, VramManager,
    unseal_image, unseal_image_to, verify_image,
};
use vram_test_rigs::{Rig, SEGMENT, content, devices};

const LEN: usize = 5 * SEGMENT + 9;
const ROOMS: [usize; 2] = [16 * SEGMENT, 6 * SEGMENT];
/// Calls of one kind that are tried at one step, at most.
const CALLS_MAX: u64 = 60;

#[derive(Clone, Copy, Debug)]
struct Kind {
    protection: Protection,
    scope: SivScope,
    suite: Suite,
}

fn kinds() -> [Kind; 5] {
    let encrypted = |scope, suite| Kind { protection: Protection::Encrypted, scope, suite };
    [
        encrypted(SivScope::Shard, Suite::Aes256Gcm),
        encrypted(SivScope::Segment, Suite::ChaCha20Poly1305),
        Kind {
            protection: Protection::Authenticated,
            scope: SivScope::Shard,
            suite: Suite::Aes256Gcm,
        },
        encrypted(SivScope::Segment, Suite::Aes256Gcm),
        encrypted(SivScope::Shard, Suite::ChaCha20Poly1305),
    ]
}

fn bytes() -> Vec<u8> {
    content(LEN, 3)
}

fn key(number: u8) -> SealKey {
    SealKey::from_bytes(&[number; 32])
}

fn rig(room: usize, deferred: bool) -> Rig {
    let plan = FaultPlan::new(7);
    let plan = if deferred { plan.deferred() } else { plan };
    let limits = Limits::default().staging_bytes(ByteLen::from_usize(4 * SEGMENT));
    let rig = Rig::over(devices(&[room, room], &plan), MemoryMode::Region, |builder| {
        builder.segment_size(SegmentSize::MIN).threads(Threads::exactly(2)).limits(limits)
    });
    rig.manager.add_key(key(8)).unwrap();
    rig
}

fn seal(manager: &VramManager, kind: Kind) -> SealedShard {
    let request = SealRequest::new("model", 0)
        .protection(kind.protection)
        .scope(kind.scope)
        .suite(kind.suite);
    manager.seal(request, &bytes()).unwrap()
}

/// What a step ends with: the shard, and an image if the step writes one.
type Made = (SealedShard, Option<Vec<u8>>);
type Step = (&'static str, fn(&Rig, &SealedShard) -> Result<Made, VramError>);

fn steps() -> Vec<Step> {
    vec![
        ("open", |rig, shard| Ok((rig.manager.open_resident(shard)?, None))),
        ("close", |rig, shard| Ok((rig.manager.close_resident(shard)?, None))),
        ("reseal", |rig, shard| Ok((rig.manager.reseal_shard(shard, &key(8).id())?, None))),
        ("park and wake", |rig, shard| {
            let parked = rig.manager.park(shard)?;
            let woken = rig.manager.wake(parked, 1);
            Ok((woken.map_err(|error| error.into_parts().1)?, None))
        }),
        ("migrate", |rig, shard| Ok((rig.manager.migrate_shard(shard, 1)?, None))),
        ("export", |rig, shard| {
            let mut image = Vec::new();
            rig.manager.export(shard, &mut image)?;
            Ok((shard.clone(), Some(image)))
        }),
        ("export as plaintext", |rig, shard| {
            let mut image = Vec::new();
            rig.manager.export_with(shard, &mut image, ExportOptions::new().plaintext())?;
            Ok((shard.clone(), Some(image)))
        }),
        ("back up", |rig, shard| {
            rig.manager.back_up(shard)?;
            Ok((shard.clone(), None))
        }),
        ("repair", |rig, shard| {
            let content = bytes();
            let source = SliceSource::new(&content);
            let _report = rig.manager.repair_from(shard, source, RepairOptions::new())?;
            Ok((shard.clone(), None))
        }),
        ("relocate", |rig, shard| {
            rig.devices[0].flip_bit_at(None, DeviceOffset::new(0), 2).unwrap();
            let content = bytes();
            let source = SliceSource::new(&content);
            let options = RepairOptions::new().relocate();
            let _report = rig.manager.repair_from(shard, source, options)?;
            Ok((shard.clone(), None))
        }),
        ("compact", |rig, shard| {
            let _report = rig.manager.compact(0, CompactBudget::new())?;
            Ok((shard.clone(), None))
        }),
    ]
}

/// One flip: in which call, and where in its bytes.
#[derive(Clone, Copy, Debug)]
struct Flip {
    op: Op,
    device: usize,
    call: u64,
    byte: u64,
    bit: u8,
}

/// The place of a test: what was done, to which shard, in which room.
struct Case {
    step: Step,
    kind: Kind,
    room: usize,
    deferred: bool,
    /// What comes out without a fault.
    wanted: Option<Made>,
}

impl Case {
    fn new(step: Step, kind: Kind, room: usize, deferred: bool) -> Self {
        let rig = rig(room, deferred);
        let shard = seal(&rig.manager, kind);
        let wanted = step.1(&rig, &shard).ok();
        Self { step, kind, room, deferred, wanted }
    }

    /// Returns false if the call did not happen, or this kind of call has no bytes.
    fn survives(&self, flip: Flip) -> bool {
        let what = format!("{} of {:?}, {} bytes, {flip:?}", self.step.0, self.kind, self.room);
        let rig = rig(self.room, self.deferred);
        let shard = seal(&rig.manager, self.kind);
        let device = &rig.devices[flip.device];
        let before = device.call_count(flip.op);
        let action = Action::FlipBit { byte: flip.byte, bit: flip.bit };
        if device.add(flip.op, When::Nth(flip.call), action).is_err() {
            return false;
        }
        let outcome = self.step.1(&rig, &shard);
        if device.call_count(flip.op) < before + flip.call {
            return false;
        }
        rig.clear();
        match outcome {
            Ok((shard, image)) => {
                if let Some((wanted, wanted_image)) = &self.wanted {
                    assert_eq!(shard.sealed_data, wanted.sealed_data, "another record: {what}");
                    assert!(image == *wanted_image, "another image: {what}");
                }
                let sound = rig.manager.verify(&shard, Verify::Full).unwrap().sound;
                match rig.manager.unseal_model(&shard) {
                    Ok(read) => assert!(sound && read == bytes(), "wrong bytes: {what}"),
                    Err(error) => assert!(!sound && error.is_integrity(), "{error}: {what}"),
                }
            }
            Err(_) => {
                for shard in rig.manager.shards() {
                    match rig.manager.unseal_model(&shard) {
                        Ok(read) => assert!(read == bytes(), "wrong bytes are left: {what}"),
                        Err(VramError::Parked { .. }) => {}
                        Err(error) => assert!(error.is_integrity(), "{error}: {what}"),
                    }
                }
            }
        }
        true
    }

    /// Flips bits in every call of every kind. Returns how many.
    fn run(&self) -> u64 {
        let ops =
            [Op::Read, Op::Write, Op::QueueWrite, Op::QueueRead, Op::Copy, Op::PeerCopy, Op::Fill];
        let mut count = 0;
        for (op, device) in ops.into_iter().flat_map(|op| [(op, 0), (op, 1)]) {
            for call in 1..=CALLS_MAX {
                let places = [(0, 0), (4095, 7), (17, 3)];
                let fired = places
                    .into_iter()
                    .filter(|(byte, bit)| {
                        self.survives(Flip { op, device, call, byte: *byte, bit: *bit })
                    })
                    .count();
                if fired == 0 {
                    break;
                }
                count += fired;
            }
        }
        u64::try_from(count).unwrap()
    }
}

#[test]
fn a_bit_that_flips_in_any_call_of_any_step_never_gets_a_valid_record() {
    let mut flips = 0;
    for (step, kind) in steps().into_iter().flat_map(|step| kinds().map(|kind| (step, kind))) {
        for (room, deferred) in ROOMS.into_iter().flat_map(|room| [(room, false), (room, true)]) {
            flips += Case::new(step, kind, room, deferred).run();
        }
    }
    assert!(flips > 3000, "{flips} flips");
}

/// A product in the field of GCM, where the highest bit is the element 1.
fn product(a: u128, b: u128) -> u128 {
    let (mut sum, mut a) = (0, a);
    for bit in (0..128).rev() {
        if b >> bit & 1 == 1 {
            sum ^= a;
        }
        a = (a >> 1) ^ (if a & 1 == 1 { 0xe1 << 120 } else { 0 });
    }
    sum
}

/// The element by which GCM multiplies under this key. Tags under one nonce of two messages of one
/// block that differ by the element 1 differ by its square.
fn hash_element(key: &[u8; 32]) -> u128 {
    use ring::aead;

    let tag = |mut message: [u8; 16]| {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key).unwrap();
        let nonce = aead::Nonce::assume_unique_for_key([9; 12]);
        let tag = aead::LessSafeKey::new(key)
            .seal_in_place_separate_tag(nonce, aead::Aad::empty(), &mut message)
            .unwrap();
        u128::from_be_bytes(tag.as_ref().try_into().unwrap())
    };
    let mut one = [0; 16];
    one[0] = 0x80;
    let square = tag([0; 16]) ^ tag(one);
    // In a field of 2^128 elements, squaring 127 times is the square root.
    let root = (0..127).fold(square, |root, _| product(root, root));
    assert_eq!(product(root, root), square);
    root
}

/// The first two blocks of the data of an image, changed so that the tag of the segment stays.
fn second_body(image: &[u8], scope: SivScope) -> [u8; 32] {
    let ctx = blake3::hash(&image[..128]);
    let siv = if scope == SivScope::Shard { &image[128..160] } else { &image[256..288] };
    let mut trailer = [0; 32];
    trailer[8..16].copy_from_slice(&u64::try_from(SEGMENT).unwrap().to_le_bytes());
    let encrypt = blake3::derive_key("vram-seal v1 2026-11 segment-key", &[7; 32]);
    let key = blake3::keyed_hash(&encrypt, &[ctx.as_bytes(), siv, &trailer[..]].concat());
    let element = hash_element(key.as_bytes());

    let data = image.len() - LEN;
    let block =
        |at: usize| u128::from_be_bytes(image[data + at..data + at + 16].try_into().unwrap());
    // The first difference times the element is the second one: they cancel.
    let (first, second) = (block(0) ^ (1 << 127), block(16) ^ element);
    let mut body = [0; 32];
    body[..16].copy_from_slice(&first.to_be_bytes());
    body[16..].copy_from_slice(&second.to_be_bytes());
    body
}

const SCOPES: [SivScope; 2] = [SivScope::Shard, SivScope::Segment];

fn gcm(scope: SivScope) -> Kind {
    Kind { protection: Protection::Encrypted, scope, suite: Suite::Aes256Gcm }
}

/// A shard whose device bytes were replaced by a second body, its true image, and the rig.
fn forged(scope: SivScope, room: usize) -> (Rig, SealedShard, Vec<u8>) {
    let rig = rig(room, false);
    let shard = seal(&rig.manager, gcm(scope));
    let mut image = Vec::new();
    rig.manager.export(&shard, &mut image).unwrap();
    let data = image.len() - LEN;
    let wanted = &image[data..data + 32];
    let mut offsets = (0..u64::try_from(room).unwrap()).step_by(256).map(DeviceOffset::new);
    let at = offsets
        .find(|at| {
            rig.devices[0].inspect(None, *at, ByteLen::new(32)).is_ok_and(|found| found == wanted)
        })
        .unwrap();
    rig.devices[0].poke(None, at, &second_body(&image, scope)).unwrap();
    (rig, shard, image)
}

#[test]
fn a_second_body_passes_every_tag_and_full_verification_finds_it() {
    for scope in SCOPES {
        let (rig, shard, _) = forged(scope, ROOMS[0]);
        // This is what tags are worth against a holder of the key.
        assert!(rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
        assert_ne!(rig.manager.unseal_model(&shard).unwrap(), bytes());
        assert!(!rig.manager.verify(&shard, Verify::Full).unwrap().sound);
    }
}

#[test]
fn a_second_body_of_a_holder_of_the_key_gets_no_new_record() {
    for (scope, room) in SCOPES.into_iter().flat_map(|scope| ROOMS.map(|room| (scope, room))) {
        for (name, step) in steps() {
            let what = format!("{name}, {scope:?}, {room} bytes");
            let (rig, shard, image) = forged(scope, room);
            let Ok((after, written)) = step(&rig, &shard) else {
                // What is left is the old record; a full verification still refuses the body.
                for left in rig.manager.shards() {
                    assert_eq!(left.sealed_data, shard.sealed_data, "{what}");
                }
                continue;
            };
            // A step that copies ciphertext keeps the record, and moves the body as it is; a repair
            // puts the true body in its place.
            assert_eq!(after.sealed_data, shard.sealed_data, "{what}: a new record");
            let sound = rig.manager.verify(&after, Verify::Full).unwrap().sound;
            let right = rig.manager.unseal_model(&after).is_ok_and(|read| read == bytes());
            assert_eq!(sound, right, "{what}");
            if let Some(written) = written {
                assert_eq!(written[..256], image[..256], "{what}: an image with a new record");
            }
        }
    }
}

#[test]
fn an_image_with_a_second_body_is_neither_imported_nor_opened() {
    for scope in SCOPES {
        let (rig, _, mut image) = forged(scope, ROOMS[0]);
        let body = second_body(&image, scope);
        let data = image.len() - LEN;
        image[data..data + 32].copy_from_slice(&body);
        let refused = rig.manager.import(ImportRequest::new("model", 1), image.as_slice());
        let error = refused.unwrap_err();
        assert!(error.is_integrity(), "{scope:?}: {error}");

        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("image"), folder.path().join("content"));
        fs::write(&path, &image).unwrap();
        let keys = KeyRing::new(key(7));
        let expected = Expected::new("model").unwrap();
        let options = || ImageOptions::new().overwrite(Overwrite::Replace);
        let mut sink = Vec::new();
        let altered = verify_image(&keys, &expected, &path, options())
            .map(|verdict| verdict.altered.iter().map(|one| one.segment).collect::<Vec<_>>());
        match scope {
            SivScope::Segment => assert_eq!(altered.unwrap(), [0]),
            _ => assert!(altered.unwrap_err().is_integrity()),
        }
        for refused in [
            unseal_image(&keys, &expected, &path, &target, options()).map(|_| ()),
            unseal_image_to(&keys, &expected, &path, &mut sink, options()).map(|_| ()),
        ] {
            let error = refused.unwrap_err();
            assert!(error.is_integrity(), "{scope:?}: {error}");
        }
        assert!(sink.is_empty() && !target.exists());
    }
}

#[test]
fn an_export_reports_only_a_digest_that_its_bytes_have() {
    for (scope, room) in SCOPES.into_iter().flat_map(|scope| ROOMS.map(|room| (scope, room))) {
        let (rig, shard, image) = forged(scope, room);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let refused = rig.manager.export_to(&shard, &path, ExportOptions::new()).unwrap_err();
        assert!(matches!(refused, VramError::ShardAltered { .. }), "{scope:?}: {refused}");
        assert!(!path.exists(), "an image of other content, which would count as the shard's copy");

        let (rig, shard, _) = forged(scope, room);
        let mut sink = Vec::new();
        let refused = rig.manager.export(&shard, &mut sink).unwrap_err();
        assert!(matches!(refused, VramError::ShardAltered { .. }), "{scope:?}: {refused}");
        assert!(sink.len() < image.len(), "{scope:?}: the image is complete");
    }
}

#[test]
fn a_file_that_changes_after_it_was_verified_gives_no_byte_of_other_content() {
    use std::os::unix::fs::FileExt;

    for scope in SCOPES {
        let (_, _, image) = forged(scope, ROOMS[0]);
        let body = second_body(&image, scope);
        let data = u64::try_from(image.len() - LEN).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, &image).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        // Between the passes: every segment was verified, and none was written.
        let options = ImageOptions::new().progress(|progress| {
            if progress.done * 2 == progress.total {
                file.write_all_at(&body, data).unwrap();
            }
        });
        let mut sink = Vec::new();
        let expected = Expected::new("model").unwrap();
        let refused = unseal_image_to(&KeyRing::new(key(7)), &expected, &path, &mut sink, options);
        let error = refused.unwrap_err();
        assert!(error.is_integrity(), "{scope:?}: {error}");
        assert!(bytes().starts_with(&sink), "{scope:?}: a prefix of the content, or nothing");
        assert_ne!(fs::read(&path).unwrap(), image, "the file was changed");
    }
}

#[test]
fn a_source_of_another_content_repairs_nothing() {
    for scope in SCOPES {
        let (rig, shard, _) = forged(scope, ROOMS[0]);
        let forged = rig.manager.unseal_model(&shard).unwrap();
        let before = rig.region(0);
        let source = SliceSource::new(&forged);
        let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
        assert!(refused.is_err(), "the forged content is not that of the record");
        assert_eq!(rig.region(0), before);
        assert!(!rig.manager.verify(&shard, Verify::Full).unwrap().sound);
    }
}
