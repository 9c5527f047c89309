//! The speed of sealing into device memory, verifying and opening, relative to a plain page-locked
//! copy of the same bytes in the same rounds.

use core::cell::RefCell;
use core::time::Duration;

use vram_alloc::ByteLen;
use vram_gpu::{CudaDevice, Device};
use vram_residency::{
    Budget, Protection, ReadBack, SealRequest, SealedShard, SivScope, Suite, Verify, VramManager,
};

use crate::machine;
use crate::measure::{self, Job, at_each_size, timed};
use crate::plain::Plain;
use crate::rows::row;

/// Bytes of one random read.
const READ_LEN: usize = 1 << 20;

#[test]
fn seals_are_sound_and_this_quick() {
    for device in machine::devices() {
        at_each_size("seal", &device, 4, |len| {
            let request = || SealRequest::new("bench", 0);
            let shard = || request().suite(Suite::Aes256Gcm).scope(SivScope::Shard);
            for (mode, request) in [
                ("AES, scope shard", shard()),
                ("AES, scope shard, read back in full", shard().read_back(ReadBack::Full)),
                ("AES, scope segment", shard().scope(SivScope::Segment)),
                ("ChaCha20, scope segment", {
                    request().suite(Suite::ChaCha20Poly1305).scope(SivScope::Segment)
                }),
                ("authenticated", request().protection(Protection::Authenticated)),
            ] {
                at(&device, len, mode, &request);
            }
        });
    }
}

fn at(device: &CudaDevice, len: ByteLen, mode: &str, request: &SealRequest) {
    let bytes = measure::noise(len);
    let plain = RefCell::new(Plain::new(device.ordinal(), len));
    let opened = machine::open(device.ordinal(), 0);
    let budget = Budget::Bytes(len.saturating_add(opened.kernel_scratch()));
    let manager = VramManager::builder().device(opened).budget(0, budget).build().unwrap();
    // Otherwise the first rounds would be of the host.
    let _absent_where_there_are_none = manager.wait_for_kernels(0, Duration::from_secs(30));
    let before = manager.capacity(0).unwrap();
    let seal = || manager.seal(request.clone(), &bytes).unwrap();
    let shard: RefCell<SealedShard> = RefCell::new(seal());
    let mut back = vec![0; bytes.len()];
    let mut part = vec![0; READ_LEN.min(bytes.len())];
    let reads = bytes.len() / part.len();

    let mut jobs: [(&str, usize, Job<'_>); 7] = [
        ("plain copy to the device", 0, Box::new(|| plain.borrow_mut().copy_in())),
        ("plain copy to the host", 1, Box::new(|| plain.borrow_mut().copy_out())),
        (
            "seal",
            0,
            Box::new(|| {
                // The region has room for one shard: the previous one is freed first, outside the
                // measured time.
                manager.free_shard(&shard.borrow()).unwrap();
                timed(|| {
                    shard.replace(seal());
                })
            }),
        ),
        (
            "verify every segment",
            1,
            Box::new(|| {
                timed(|| assert!(manager.verify(&shard.borrow(), Verify::Segments).unwrap().sound))
            }),
        ),
        (
            "verify the fingerprints of all of it",
            1,
            Box::new(|| {
                timed(|| {
                    assert!(manager.verify(&shard.borrow(), Verify::Fingerprint).unwrap().sound);
                })
            }),
        ),
        (
            "open all of it",
            1,
            Box::new(|| timed(|| manager.unseal_into(&shard.borrow(), &mut back).unwrap())),
        ),
        (
            "read it 1 MiB at a time, out of order",
            1,
            Box::new(|| {
                timed(|| {
                    for turn in 0..reads {
                        // An odd stride visits every part once if their number is a power of two.
                        let place = turn * 7919 % reads;
                        let offset = (place * part.len()) as u64;
                        manager.read_into(&shard.borrow(), offset, &mut part).unwrap();
                    }
                })
            }),
        ),
    ];
    let names: Vec<_> = jobs.iter().map(|(name, reference, _)| (*name, *reference)).collect();
    let mut work: Vec<Job<'_>> = Vec::new();
    for (_, _, job) in &mut jobs {
        work.push(Box::new(job));
    }
    let times = measure::in_turns(&mut work);
    drop(work);
    drop(jobs);
    for ((name, reference), time) in names.into_iter().zip(&times) {
        let [median, range] = time.rates(len);
        let ratio = time.of(&times[reference]);
        let what = format!("{mode}: {name}");
        row("seal", &[&machine::name(device), &measure::mib(len), &what, &median, &range, &ratio]);
    }

    assert!(back == bytes, "what was opened is not what was sealed");
    let last = (reads - 1) * 7919 % reads * part.len();
    assert!(part == bytes[last..last + part.len()], "a read differs");
    manager.free_shard(&shard.borrow()).unwrap();
    assert_eq!(manager.capacity(0).unwrap(), before, "the capacity is not back");
    assert!(device.state().is_ready());
}
