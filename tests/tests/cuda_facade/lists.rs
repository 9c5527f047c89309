//! Lists of addresses that arrive altered on the card: no kernel follows them.

use vram_residency::{Compute, Suite, Verify};

use super::kernels::{Card, WAIT};
use super::*;

/// The bits of the first item of a list, of its second, and of what stands behind.
fn bits() -> impl Iterator<Item = u64> {
    (0..256).step_by(3).chain([78, 79, 256, 324, 327, 334, 335, 336, 3000])
}

/// P131: a copy to the card that alters any bit of a list, once, costs another copy; the shard and its
/// neighbours are as they should be, the card is not lost, and nothing is left where nothing lies.
#[test]
fn a_list_that_arrives_altered_is_sent_again() {
    let card = Card::new(Compute::Card);
    assert!(card.manager.wait_for_kernels(0, WAIT).unwrap());
    let manager = &card.manager;
    let seal = |protection, fill| {
        let request = SealRequest::new("model", 0).protection(protection);
        manager.seal(request.suite(Suite::ChaCha20Poly1305), &bytes(LEN, fill)).unwrap()
    };
    let before = seal(Protection::Authenticated, 2);
    let mut shard = seal(Protection::Encrypted, 3);
    let behind = seal(Protection::Authenticated, 4);
    let flip = |bit| Sim::faults(card.ordinal).next(CallKind::CopyIn, Fault::FlipBit(bit));
    for bit in bits() {
        flip(bit);
        let opened = manager.open_resident(&shard).unwrap();
        assert_eq!(*manager.unseal_model(&opened).unwrap(), bytes(LEN, 3), "{bit}");
        flip(bit);
        shard = manager.close_resident(&opened).unwrap();
        flip(bit);
        for shard in [&before, &shard, &behind] {
            let verdict = manager.verify(shard, Verify::Full).unwrap();
            assert!(verdict.sound && verdict.content, "{bit}: {verdict}");
        }
        Sim::faults(card.ordinal).clear();
    }
    let figures = manager.metrics().gpus[0].kernels;
    assert!(figures.used && (figures.disagreements, figures.fallbacks) == (0, 0), "{figures:?}");
    for shard in [before, shard, behind] {
        manager.free_shard(&shard).unwrap();
    }
    let left = card.region();
    for fill in 2..=4 {
        let content = bytes(LEN, fill);
        let mut pieces = content.chunks_exact(32);
        let found = pieces.find(|piece| left.windows(32).any(|window| window == *piece));
        assert_eq!(found, None, "plaintext was left in free memory");
    }
    card.finish();
}

/// A link that alters every copy of a list leaves the work to the host.
#[test]
fn lists_that_never_arrive_leave_the_work_to_the_host() {
    let card = Card::new(Compute::Card);
    assert!(card.manager.wait_for_kernels(0, WAIT).unwrap());
    let manager = &card.manager;
    let request = || SealRequest::new("model", 0).suite(Suite::ChaCha20Poly1305);
    let shard = manager.seal(request(), &content()).unwrap();
    Sim::faults(card.ordinal).repeat(CallKind::CopyIn, 1, 3, Fault::FlipBit(70));
    let launches = Sim::faults(card.ordinal).calls(CallKind::Launch);
    let verdict = manager.verify(&shard, Verify::Segments).unwrap();
    assert!(verdict.sound);
    assert_eq!(verdict.checked.map(|checked| checked.site), Some(vram_residency::Site::Host));
    assert_eq!(Sim::faults(card.ordinal).calls(CallKind::Launch), launches);
    assert_eq!(manager.metrics().gpus[0].kernels.fallbacks, 1);
    assert_eq!(*manager.unseal_model(&shard).unwrap(), content());
    card.finish();
}

/// P130: a manager whose checks are the host's asks no device for kernels.
#[test]
fn a_manager_of_the_host_takes_no_scratch() {
    let card = Card::new(Compute::Host);
    let before = Sim::used(card.ordinal);
    assert!(!card.manager.wait_for_kernels(0, WAIT).unwrap());
    assert_eq!((Sim::used(card.ordinal), before), (before, ROOM_OF_HOST));
    card.finish();
}

/// The budget of [`Card::new`], which is all for shards then.
const ROOM_OF_HOST: u64 = kernels::ROOM + 1_966_080;
