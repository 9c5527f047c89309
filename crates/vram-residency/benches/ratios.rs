//! The ratios of docs/performance.md: what the facade costs on top of the bare sealer, and what a
//! second GPU brings. Everything that is compared takes turns in one process, since a shared machine
//! changes its speed from one second to the next. Printed with the median and the best of all turns.
//!
//! The devices are in host memory, their pages touched before. `--quick` takes fewer turns.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may panic"
)]

use core::hint::black_box;
use core::time::Duration;
use std::fs::File;
use std::io::Read as _;
use std::sync::Barrier;
use std::thread;

use turns::{Turn, compare, content, timed};
use vram_residency::{
    ByteLen, FileSource, Protection, ReadBack, SealKey, SealOptions, SealRequest, SivScope,
    VramManager,
};
use vram_seal::{SealContext, SealParams, Threads};

mod turns;

const MIB: usize = 1 << 20;

/// Seals and says how long it took; freeing is not counted.
fn seal(manager: &VramManager, request: &SealRequest, data: &[u8]) -> Duration {
    let request = request.clone();
    let (shard, took) = timed(|| manager.seal(request, black_box(data)).unwrap());
    manager.free_shard(&shard).unwrap();
    took
}

fn against_the_bare_sealer(rounds: usize) {
    let data = content(256 * MIB, 0);
    let mut copy = data.clone();
    let mut sealed = data.clone();
    let mut sealed_in_two = data.clone();
    let mut opened = data.clone();
    let manager = VramManager::new_mock(data.len()).unwrap();
    let encrypted = SealRequest::new("model", 0);
    seal(&manager, &encrypted, &data);
    let key = SealKey::random().unwrap();
    let context = SealContext::new("model").unwrap();
    let (manager, data) = (&manager, &data[..]);
    let facade = |request: SealRequest| -> Box<dyn FnMut() -> Duration + '_> {
        Box::new(move || seal(manager, &request, data))
    };
    let authenticated = encrypted.clone().protection(Protection::Authenticated);
    let mut turns: Vec<Turn<'_>> = vec![
        ("memcpy, one thread", Box::new(|| timed(|| copy.copy_from_slice(black_box(data))).1)),
        (
            "bare seal",
            Box::new(|| {
                let (params, threads) = (SealParams::default(), Threads::AUTO);
                let out = &mut sealed[..];
                timed(|| vram_seal::seal(&key, &context, params, threads, data, out).unwrap()).1
            }),
        ),
        (
            "bare seal, scope Shard",
            Box::new(|| {
                let params = SealParams::default().with_scope(SivScope::Shard);
                let out = &mut sealed_in_two[..];
                let threads = Threads::AUTO;
                timed(|| vram_seal::seal(&key, &context, params, threads, data, out).unwrap()).1
            }),
        ),
        ("seal_model, no read-back", facade(encrypted.clone().read_back(ReadBack::None))),
        ("seal_model, default read-back", facade(encrypted.clone())),
        ("seal_model, full read-back", facade(encrypted.clone().read_back(ReadBack::Full))),
        ("seal_model, scope Shard", facade(encrypted.clone().scope(SivScope::Shard))),
        ("authenticated, full read-back", facade(authenticated)),
        (
            "unseal_into",
            Box::new(|| {
                let shard = manager.seal_model("model", 0, data).unwrap();
                let ((), took) = timed(|| manager.unseal_into(&shard, &mut opened).unwrap());
                manager.free_shard(&shard).unwrap();
                took
            }),
        ),
    ];
    compare("256 MiB, all threads", rounds, &["bare seal"], &mut turns);
}

/// Sealing from a file in the page cache is to be nearly as fast as the slower of its two halves.
fn from_a_file(rounds: usize) {
    let data = content(256 * MIB, 3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    std::fs::write(&path, &data).unwrap();
    let mut buffer = vec![0_u8; MIB];
    let manager = VramManager::new_mock(data.len()).unwrap();
    let request = SealRequest::new("model", 0);
    seal(&manager, &request, &data);
    let (manager, data, path) = (&manager, &data[..], path.as_path());
    let from_file = |request: SealRequest| -> Box<dyn FnMut() -> Duration + '_> {
        Box::new(move || {
            let request = request.clone();
            let (shard, took) = timed(|| {
                let source = FileSource::open(path).unwrap();
                manager.seal_from(request, source, SealOptions::new()).unwrap()
            });
            manager.free_shard(&shard).unwrap();
            took
        })
    };
    let mut read = || {
        let mut file = File::open(path).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {
            black_box(&buffer);
        }
    };
    let authenticated = request.clone().protection(Protection::Authenticated);
    let mut turns: Vec<Turn<'_>> = vec![
        ("reading the file, one thread", Box::new(|| timed(&mut read).1)),
        ("seal from memory", Box::new(|| seal(manager, &request, data))),
        ("seal from the file", from_file(request.clone())),
        ("authenticated, from memory", Box::new(|| seal(manager, &authenticated, data))),
        ("authenticated, from the file", from_file(authenticated.clone())),
    ];
    compare("256 MiB from the page cache, all threads", rounds, &["seal from memory"], &mut turns);
}

/// Runs both at once, from one start to the end of the later one.
fn both(first: impl FnOnce() + Send, second: impl FnOnce()) -> Duration {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            start.wait();
            first();
        });
        start.wait();
        let ((), took) = timed(|| {
            second();
            other.join().unwrap();
        });
        took
    })
}

/// Two GPUs with a thread each take as long as one GPU alone, unless something is shared: a share of
/// 1.00 is a scaling of 2. What the memory of the machine allows is what two copies take.
fn two_gpus(rounds: usize) {
    let data = [content(128 * MIB, 1), content(128 * MIB, 2)];
    let mut copies = data.clone();
    let len = ByteLen::from_usize(128 * MIB);
    let manager = VramManager::builder()
        .host_device(len)
        .host_device(len)
        .threads(Threads::exactly(1))
        .build()
        .unwrap();
    let requests = [SealRequest::new("model", 0), SealRequest::new("model", 1)];
    for (request, data) in requests.iter().zip(&data) {
        seal(&manager, request, data);
    }
    let manager = &manager;
    let on = |gpu: usize| manager.seal(requests[gpu].clone(), black_box(&data[gpu])).unwrap();
    let alone = || {
        let (shard, took) = timed(|| on(0));
        manager.free_shard(&shard).unwrap();
        took
    };
    let pair = || {
        let took = both(|| drop(on(0)), || drop(on(1)));
        manager.shards().iter().for_each(|shard| drop(manager.free_shard(shard).unwrap()));
        took
    };
    let mut turns: Vec<Turn<'_>> =
        vec![("seal on one GPU", Box::new(alone)), ("seal on two GPUs at once", Box::new(pair))];
    compare("128 MiB a GPU, one thread a GPU", rounds, &["seal on one GPU"], &mut turns);

    let [first, second] = &mut copies;
    let first = core::cell::RefCell::new(first);
    let mut turns: Vec<Turn<'_>> = vec![
        (
            "one memcpy",
            Box::new(|| timed(|| first.borrow_mut().copy_from_slice(black_box(&data[0]))).1),
        ),
        (
            "two at once",
            Box::new(|| {
                let mut first = first.borrow_mut();
                let first = &mut **first;
                both(
                    || first.copy_from_slice(black_box(&data[0])),
                    || second.copy_from_slice(black_box(&data[1])),
                )
            }),
        ),
    ];
    compare("128 MiB each", rounds, &["one memcpy"], &mut turns);
}

fn main() {
    let rounds = if turns::is_quick() { 5 } else { 21 };
    against_the_bare_sealer(rounds);
    from_a_file(rounds);
    two_gpus(rounds);
}
