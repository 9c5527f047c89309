//! A slice that changes while it is sealed: a mapping of a file that another process rewrites. The
//! sealed bytes are the hashed bytes, and the seal never notices.
//!
//! The slice is rewritten through `/proc/self/mem`, from another thread, as fast as possible. The
//! program does not know it, as it would not know of a mapping.

#![cfg(target_os = "linux")]

#[macro_use]
extern crate vram_testkit;

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use vram_seal::{
    Expected, Opener, SealContext, SealKey, SealParams, SegmentSize, SivScope, Threads, seal,
    unseal,
};

const LEN: usize = 64 * 4096;
const ROUNDS: usize = 40;

/// Stops the other thread, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_sealed_is_what_was_hashed_though_the_slice_changes_meanwhile() {
    let (source, stop) = (vec![0x11_u8; LEN], AtomicBool::new(false));
    let address = u64::try_from(source.as_ptr().addr()).unwrap();
    let memory = OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
    let contents = [vec![0x11_u8; LEN], vec![0x22_u8; LEN]];
    let key = SealKey::from_bytes(&[7; 32]);
    let context = SealContext::new("m").unwrap();
    let mut mixed = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for content in contents.iter().cycle() {
                memory.write_all_at(content, address).unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let _stop = Stop(&stop);
        for siv in [SivScope::Shard, SivScope::Segment] {
            let params = SealParams::new().with_segment(SegmentSize::MIN).with_scope(siv);
            for _ in 0..ROUNDS {
                let (mut data, mut back) = (vec![0; LEN], vec![0; LEN]);
                let source = black_box(source.as_slice());
                let sealed = seal(&key, &context, params, Threads::ONE, source, &mut data).unwrap();
                let (record, digest) = (sealed.record, sealed.digest);
                let opener =
                    Opener::open(&key, &record, sealed.tags, &Expected::from(&context)).unwrap();
                unseal(&opener, Threads::ONE, &data, &mut back).unwrap();
                assert_eq!(blake3::hash(&back).as_bytes(), digest.as_bytes(), "{siv:?}");
                mixed += usize::from(back.contains(&0x11) && back.contains(&0x22));
            }
        }
    });
    assert!(mixed > 0, "the slice changed within a seal");
}
