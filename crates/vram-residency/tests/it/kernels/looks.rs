//! Looks at shards by kernels.

use core::time::Duration;

use proptest::prelude::*;
use vram_residency::device::fault::Op;
use vram_residency::{
    ByteLen, Checked, Compute, EventKind, EventLog, Evidence, ReadBack, ScrubCursor, ShardId, Site,
    Verify,
};

use super::*;

const BY_PROOF: Checked = Checked { evidence: Evidence::Proof, site: Site::Host };
const BY_FINGERPRINT: Checked = Checked { evidence: Evidence::Fingerprint, site: Site::Host };

/// Flips bits of the only shard, in device memory.
fn flip(rig: &Rig, at: u64, bits: &[usize]) {
    for bit in bits {
        let at = at + u64::try_from(bit / 8).unwrap();
        rig.flip(0, at, u8::try_from(bit % 8).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two managers, one over devices with kernels: the same shards, the same flips, the same
    /// answers, at every level and in every form.
    #[test]
    fn with_and_without_kernels_every_look_says_the_same(
        form in 0..FORMS.len(),
        len in prop_oneof![1..3 * SEGMENT, Just(SEGMENT), Just(4 * SEGMENT), Just(1)],
        flips in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        compute in prop_oneof![Just(Compute::Checks), Just(Compute::Card)],
        looked_before in any::<bool>(),
    ) {
        let (protection, suite) = FORMS[form];
        let bytes = content(len);
        let bits: Vec<usize> = flips.iter().map(|flip| flip.index(8 * len)).collect();
        for level in [
            Verify::Fingerprint,
            Verify::Segments,
            Verify::Full,
            Verify::Sample { segments: 2, seed: 5 },
            Verify::Range { offset: 0, length: u64::try_from(len).unwrap() },
        ] {
            let verdicts = [rig(&[1 << 20], Compute::Host), rig(&[1 << 20], compute)].map(|rig| {
                let shard = rig.manager.seal(request(protection, suite), &bytes).unwrap();
                if looked_before {
                    let verdict = rig.manager.verify(&shard, Verify::Fingerprint).unwrap();
                    assert!(verdict.sound);
                }
                flip(&rig, rig.written_at(0), &bits);
                let verdict = rig.manager.verify(&shard, level).unwrap();
                let again = rig.manager.unseal_model(&shard).map_err(|error| error.code());
                (verdict.sound, verdict.content, verdict.altered, verdict.checked_bytes, again)
            });
            let [host, kernels] = verdicts;
            let altered = !bits.is_empty() && flips_something(&bits);
            let sampled = matches!(level, Verify::Sample { .. });
            prop_assert!(sampled || host.0 != altered, "an alteration was missed");
            prop_assert_eq!(host, kernels);
        }
    }
}

/// Whether a bit is flipped an odd number of times.
fn flips_something(bits: &[usize]) -> bool {
    bits.iter().any(|bit| bits.iter().filter(|other| *other == bit).count() % 2 == 1)
}

#[test]
fn a_verdict_says_what_it_rests_on() {
    let bytes = content(5 * SEGMENT + 17);
    let len = ByteLen::from_usize(bytes.len());
    for (protection, suite) in FORMS {
        let rig = rig(&[1 << 20], Compute::Checks);
        let shard = rig.manager.seal(request(protection, suite), &bytes).unwrap();
        let by = |level| rig.manager.verify(&shard, level).unwrap().checked;
        assert_eq!(by(Verify::Record), None);
        assert_eq!(by(Verify::Full), Some(BY_PROOF));
        let before = figures(&rig);
        assert!(before.used);
        // The hashes of plaintext are as fast, and prove more: but who asks for fingerprints gets
        // them, from the second look on.
        let first = by(Verify::Fingerprint);
        let open = protection == Protection::Authenticated;
        assert_eq!(first, Some(if open { BY_PROOF } else { BY_FINGERPRINT }));
        assert_eq!(by(Verify::Fingerprint), Some(BY_FINGERPRINT));
        let report = rig.manager.report();
        assert_eq!(report.shards[0].last_checked, Some(BY_FINGERPRINT));
        // The first look at a shard that has none takes them on the host.
        let by_kernels = if open { 1 } else { 2 } * len.get();
        assert_eq!(figures(&rig).fingerprinted.get(), before.fingerprinted.get() + by_kernels);
        let text = rig.manager.verify(&shard, Verify::Fingerprint).unwrap().to_string();
        assert!(text.ends_with("(fingerprint by the host)"), "{text}");
        let samples = rig.manager.metrics().to_prometheus();
        assert!(samples.contains("vram_gpu_kernels_used{gpu=\"0\","), "{samples}");
        let ticket = rig.manager.ticket(&shard, [1; 32]).unwrap();
        assert_eq!(ticket.checked, Some(BY_FINGERPRINT));
    }
}

/// The key of a fingerprint is on the device for one look alone.
#[test]
fn each_look_at_fingerprints_renews_them_in_the_same_pass() {
    let rig = rig(&[1 << 20], Compute::Checks);
    let request = request(Protection::Encrypted, Suite::Aes256Gcm);
    let shard = rig.manager.seal(request, &content(3 * SEGMENT)).unwrap();
    let device = &rig.devices[0];
    assert_eq!(device.call_count(Op::Fingerprint), 1, "read back after the seal");
    device.clear_log();
    for round in 1..4 {
        let verdict = rig.manager.verify(&shard, Verify::Fingerprint).unwrap();
        assert!(verdict.sound && verdict.checked == Some(BY_FINGERPRINT));
        assert_eq!(device.call_count(Op::Fingerprint), round, "one pass a look");
        assert_eq!(device.call_count(Op::Read), 0, "no byte came to the host");
    }
}

#[test]
fn the_default_read_back_sees_every_byte_where_there_are_kernels() {
    for (protection, suite) in FORMS {
        for compute in [Compute::Checks, Compute::Card] {
            // In a middle segment, that no sample looks at.
            for write in 1..=10 {
                let rig = rig(&[1 << 20], compute);
                let device = &rig.devices[0];
                let action = vram_residency::device::fault::Action::FlipBit { byte: 77, bit: 3 };
                let when = vram_residency::device::fault::When::Nth(write);
                device.add(Op::QueueWrite, when, action).unwrap();
                let request = request(protection, suite);
                let sealed = rig.manager.seal(request, &content(40 * SEGMENT));
                let writes = device.call_count(Op::QueueWrite);
                if writes < write {
                    continue;
                }
                let error = sealed.unwrap_err();
                assert_eq!(error.code(), "write-not-kept", "{protection:?} {suite:?} {write}");
                assert_eq!(rig.used(0), 0);
            }
        }
    }
    let rig = rig(&[1 << 20], Compute::Checks);
    let request = request(Protection::Encrypted, Suite::Aes256Gcm).read_back(ReadBack::None);
    rig.manager.seal(request, &content(SEGMENT)).unwrap();
    assert_eq!(figures(&rig).fingerprinted, ByteLen::ZERO, "who wants no read-back pays for none");
}

#[test]
fn a_scrubber_finds_what_was_altered_and_says_by_what() {
    for (protection, suite) in FORMS {
        for by in [None, Some(Evidence::Proof), Some(Evidence::Fingerprint)] {
            let log = EventLog::new(64);
            let rig = Rig::over(devices(&[1 << 20]), MemoryMode::Region, |builder| {
                builder.event_sink(log.clone())
            });
            let request = request(protection, suite).read_back(ReadBack::None);
            let shard = rig.manager.seal(request, &content(9 * SEGMENT)).unwrap();
            let mut cursor = ScrubCursor::new();
            if let Some(by) = by {
                cursor = cursor.by(by);
            }
            // In steps smaller than the shard: fingerprints are taken part by part.
            let budget = ByteLen::from_usize(2 * SEGMENT);
            let mut pass = |rig: &Rig| {
                let mut altered = Vec::new();
                loop {
                    let step = rig.manager.scrub_step(&mut cursor, budget);
                    assert_eq!((step.errors, step.skipped), (0, 0), "{:?}", step.error);
                    altered.extend(step.altered);
                    if step.pass_ended || step.idle {
                        return altered;
                    }
                }
            };
            assert_eq!(pass(&rig), Vec::<ShardId>::new());
            assert_eq!(pass(&rig), Vec::<ShardId>::new());
            let fingerprint = by.unwrap_or(match protection {
                Protection::Authenticated => Evidence::Proof,
                _ => Evidence::Fingerprint,
            });
            let checked = rig.manager.report().shards[0].last_checked.unwrap();
            assert_eq!(checked.evidence, fingerprint, "{protection:?} {by:?}");
            assert!(rig.manager.flush_events(Duration::from_secs(10)));
            let told = log.events().into_iter().filter_map(|event| match event.kind {
                EventKind::Verified { by, .. } => Some(by),
                _ => None,
            });
            assert_eq!(told.last(), Some(checked));
            flip(&rig, rig.written_at(0), &[8 * 7 * SEGMENT + 3]);
            let altered = pass(&rig);
            assert!(altered == [shard.shard_id], "{protection:?} {suite:?} {by:?}: {altered:?}");
            let quarantine = rig.manager.report().shards[0].quarantine.clone().unwrap();
            assert_eq!(quarantine.to_string(), "segment 7");
        }
    }
}
