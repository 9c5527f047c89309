//! Blocks set the shared memory that held secrets to zero: nothing later does it for the last of them.

use cuda_sim::{MisuseKind, Sim};

use crate::card::{Argument, Card, Dice, pattern};
use crate::chacha::{self, Segment};
use crate::fingerprint;

/// Kernels whose shared memory holds secrets. That of BLAKE3 holds hashes of sealed bytes.
const SECRET: [&str; 5] =
    ["chacha_open", "chacha_seal", "chacha_tag", "fingerprint", "fingerprint_renew"];

/// Requires it of all of them on a device.
pub(crate) fn require(card: &Card) {
    for kernel in SECRET {
        Sim::require_zero_shared(card.device, kernel);
    }
}

/// Runs something on a device of its own. Returns whether a block left something in its shared memory.
fn leaves(ptx: &str, run: impl Fn(&Card) -> Result<(), u32>) -> bool {
    let card = Card::new(ptx);
    require(&card);
    let Err(code) = run(&card) else {
        card.finish();
        return false;
    };
    let log = Sim::take_misuse(card.device);
    assert!(code == 719 && log.iter().all(|entry| entry.kind == MisuseKind::SharedLeft), "{log:?}");
    card.abandon();
    true
}

#[test]
fn blocks_leave_no_key_and_no_tag_in_shared_memory_be_the_tag_good_or_bad() {
    let mut dice = Dice(11);
    let sealed = [0, 1, 64, 100, 8300].map(|len| Segment::new(len, &mut dice).sealed());
    let mut forged = sealed.clone();
    for segment in &mut forged {
        segment.tag[15] ^= 0x80;
    }
    let runs = [
        ("chacha_seal", &sealed, None),
        ("chacha_tag", &sealed, None),
        ("chacha_open", &sealed, Some(chacha::GOOD)),
        ("chacha_open", &forged, Some(chacha::BAD)),
    ];
    let leaving = runs.iter().filter(|(kernel, segments, verdict)| {
        leaves(chacha::PTX, |card| {
            let outcomes = chacha::on_card(card, kernel, *segments, false)?;
            let is_it = |outcome: &chacha::Outcome| verdict.is_none_or(|is| is == outcome.verdict);
            assert!(outcomes.iter().all(is_it), "{kernel}");
            Ok(())
        })
    });
    assert_eq!(leaving.map(|(kernel, _, verdict)| (*kernel, *verdict)).collect::<Vec<_>>(), []);
}

#[test]
fn blocks_leave_no_key_and_no_sum_of_fingerprints_in_shared_memory() {
    let keys = [1, 2].map(fingerprint::Key::new);
    let keys = keys.each_ref();
    let items = [1, 4097, 20_000].map(|len| pattern(len, 3));
    // One block for all items; a block each; and blocks without an item, which have read the key.
    let runs = [1, 2].into_iter().flat_map(|keys| [1, 3, 5].map(|blocks| (keys, blocks)));
    let leaving = runs.filter(|(count, blocks)| {
        leaves(fingerprint::PTX, |card| {
            fingerprint::on_card(card, &items, &keys[..*count], *blocks).map(drop)
        })
    });
    assert_eq!(leaving.collect::<Vec<_>>(), []);
}

#[test]
fn a_block_that_leaves_one_byte_in_shared_memory_is_found() {
    const PTX: &str = ".version 7.4 .target sm_80 .address_size 64
        .visible .entry test(.param .u32 value) .maxntid 256, 1, 1 {
            .reg .pred %p<1>; .reg .b32 %r<3>; .reg .b64 %d<3>;
            .shared .align 16 .b8 first[256];
            .shared .align 16 .b8 second[256];
            mov.u32 %r0, %tid.x; ld.param.u32 %r1, [value];
            cvt.u64.u32 %d0, %r0;
            mov.u64 %d1, second; add.s64 %d1, %d1, %d0;
            mov.u64 %d2, first; add.s64 %d0, %d2, %d0;
            mov.u32 %r2, 0;
            st.volatile.shared.u8 [%d0], %r2; st.volatile.shared.u8 [%d1], %r2;
            setp.eq.u32 %p0, %r0, 255; @%p0 st.shared.u8 [%d1], %r1; ret; }";
    let card = Card::new(PTX);
    let launch = |value| card.launch("test", 2, &[Argument::Word(value)]);
    assert_eq!(launch(9), 0, "nothing is required yet");
    Sim::require_zero_shared(card.device, "test");
    assert_eq!(launch(0), 0);
    assert_eq!(launch(0x100), 0);
    assert_eq!(launch(9), 719);
    let log = Sim::take_misuse(card.device);
    let [entry] = log.as_slice() else { panic!("one entry, not {log:?}") };
    assert_eq!(entry.kind, MisuseKind::SharedLeft, "{entry}");
    assert!(entry.detail.contains("at the end of block [0, 0, 0] in kernel test"), "{entry}");
    card.abandon();
}
