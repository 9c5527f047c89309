//! Shards that are opened, closed and sealed under another key where they lie.

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{SealKey, SealedShard, SivScope, Verify, VramError};

use super::*;

const CHACHA: Suite = Suite::ChaCha20Poly1305;

/// Opens, closes, and changes the key, and shows each state.
fn through_all(
    rig: &Rig,
    shard: &SealedShard,
    mut show: impl FnMut(&SealedShard),
) -> Result<SealedShard, VramError> {
    let other = SealKey::from_bytes(&[9; 32]);
    let id = other.id();
    rig.manager.add_key(other)?;
    let mut shard = rig.manager.open_resident(shard)?;
    show(&shard);
    shard = rig.manager.reseal_shard(&shard, &id)?;
    show(&shard);
    shard = rig.manager.close_resident(&shard)?;
    show(&shard);
    shard = rig.manager.reseal_shard(&shard, &rig.manager.active_key())?;
    show(&shard);
    Ok(shard)
}

#[test]
fn it_is_what_the_host_would_make_and_no_byte_comes_to_the_host() {
    for scope in [SivScope::Segment, SivScope::Shard] {
        for len in [1, SEGMENT, 9 * SEGMENT + 100] {
            let bytes = content(len);
            let [host, card] = [Compute::Host, Compute::Card].map(|compute| {
                let rig = rig(&[1 << 20], compute);
                let request = request(Protection::Encrypted, CHACHA).scope(scope);
                let shard = rig.manager.seal(request, &bytes).unwrap();
                rig.devices[0].clear_log();
                let mut records = Vec::new();
                let last = through_all(&rig, &shard, |shard| {
                    records.push(shard.sealed_data.clone());
                });
                let reads = rig.devices[0].call_count(Op::Read);
                assert_eq!(reads == 0, compute == Compute::Card, "{scope:?} {len}: {reads}");
                let last = last.unwrap();
                assert_eq!(*rig.manager.unseal_model(&last).unwrap(), bytes);
                assert!(rig.manager.verify(&last, Verify::Full).unwrap().content);
                records
            });
            assert_eq!(host, card, "{scope:?} {len}");
        }
    }
}

#[test]
fn what_was_altered_before_is_never_sealed_anew() {
    for open in [false, true] {
        let rig = rig(&[1 << 20], Compute::Card);
        let protection = if open { Protection::Authenticated } else { Protection::Encrypted };
        let shard = rig.manager.seal(request(protection, CHACHA), &content(9 * SEGMENT)).unwrap();
        rig.flip(0, rig.written_at(0) + 5 * 4096 + 9, 3);
        let changed = if open {
            rig.manager.close_resident(&shard)
        } else {
            rig.manager.open_resident(&shard)
        };
        let error = changed.unwrap_err();
        assert_eq!(error.code(), "shard-altered");
        let quarantine = rig.manager.report().shards[0].quarantine.clone().unwrap();
        assert_eq!(quarantine.to_string(), "segment 5");
    }
}

/// Kernels that lie, stop or are lost at any call: the shard is what it was or what it was to be.
#[test]
fn whatever_kernels_do_the_shard_is_whole() {
    let bytes = content(9 * SEGMENT);
    for op in [Op::Hash, Op::Open, Op::Seal, Op::Tags, Op::Fingerprint, Op::Copy, Op::QueueWrite] {
        for action in [
            Action::Driver(1),
            Action::FlipResult { span: 1, bit: 0 },
            Action::FlipResults,
            Action::FlipBit { byte: 4100, bit: 1 },
            Action::DropCopy,
            Action::Unfit(vram_gpu::kernels::Unfit::OtherMemory),
        ] {
            if !action.applies_to(op) {
                continue;
            }
            for nth in 1..=4 {
                let rig = rig(&[1 << 20], Compute::Card);
                let request = request(Protection::Encrypted, CHACHA);
                let shard = rig.manager.seal(request, &bytes).unwrap();
                rig.devices[0].add(op, When::Nth(nth), action.clone()).unwrap();
                let what = format!("{op:?} {nth} {action:?}");
                let changed = through_all(&rig, &shard, |_shard| ());
                rig.clear();
                let now = rig.manager.shards().pop().unwrap();
                assert!(changed.is_err() || changed.is_ok_and(|last| last == now), "{what}");
                let verdict = rig.manager.verify(&now, Verify::Full).unwrap();
                assert!(verdict.content, "{what}: {verdict}");
                assert_eq!(*rig.manager.unseal_model(&now).unwrap(), bytes, "{what}");
            }
        }
    }
}
