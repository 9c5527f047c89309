//! Making room waits for nobody: a shard that is in use is passed over, and a refusal says who it
//! was.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Write};
use std::sync::{Arc, Barrier, Mutex, mpsc};

use vram_residency::device::fault::{Action, Hook, Op};
use vram_residency::{DeviceOffset, Lru, OnEviction, SealedShard, Threads, VramError, VramManager};
use vram_test_rigs::{SlowReader, begin, in_time};

use super::eviction::{KB8, names, shortfall};
use super::hands::{KIB, bytes, faulty, hosts};

/// A manager that frees what it evicts, and shards of 8 KiB that fill its GPU.
fn full(models: &[&str]) -> (Arc<VramManager>, Vec<SealedShard>) {
    let total = u64::try_from(models.len()).unwrap() * 8 * KIB;
    let builder = hosts(&[total]).eviction(Lru).on_eviction(OnEviction::Free);
    let manager = Arc::new(builder.threads(Threads::ONE).build().unwrap());
    let shards = models.iter().map(|model| manager.seal_model(model, 0, &KB8).unwrap()).collect();
    (manager, shards)
}

/// Seals on a thread of its own, with an answer in time.
fn seal(manager: &Arc<VramManager>, len: usize) -> Result<SealedShard, VramError> {
    let manager = Arc::clone(manager);
    in_time("a seal", move || manager.seal_model("new", 0, &vec![1; len]))
}

#[test]
fn a_seal_that_makes_room_passes_over_a_shard_that_is_being_read() {
    let (manager, shards) = full(&["a", "b"]);
    let reader = SlowReader::of(&manager, &shards[0]);
    // The policy names a first.
    manager.unseal_model(&shards[1]).unwrap();
    seal(&manager, 8192).unwrap();
    assert!(manager.shard(&shards[0].shard_id).is_some());
    assert!(manager.shard(&shards[1].shard_id).is_none());
    reader.end().unwrap();
}

/// A writer that hands over each part and waits until it was taken.
struct Handing(mpsc::SyncSender<Vec<u8>>);

impl Write for Handing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_pipeline_that_reads_one_shard_and_seals_another_ends() {
    let builder = hosts(&[24 << 20]).eviction(Lru).on_eviction(OnEviction::Free);
    let manager = Arc::new(builder.threads(Threads::ONE).build().unwrap());
    let source = manager.seal_model("source", 0, &vec![1; 20 << 20]).unwrap();
    let (hand, parts) = mpsc::sync_channel(0);
    let reading = Arc::clone(&manager);
    let read = begin(move || reading.unseal_to(&source, Handing(hand)));
    in_time("the pipeline", move || {
        for part in parts {
            drop(manager.seal_model("copy", 0, &part));
        }
        read.recv().unwrap().unwrap();
    });
}

#[test]
fn nothing_goes_in_vain_where_one_shard_of_a_plan_is_in_use() {
    let (manager, shards) = full(&["a", "b", "c"]);
    let reader = SlowReader::of(&manager, &shards[1]);
    // Two neighbours would have to go, and b lies between the others.
    let refused = shortfall(seal(&manager, 16 << 10));
    assert_eq!(manager.shards().len(), 3);
    assert_eq!((refused.busy.count, refused.busy.bytes), (1, bytes(8 * KIB)));
    assert_eq!(refused.busy.first, [shards[1].shard_id.clone()]);
    assert!(refused.to_string().contains("is in use"), "{refused}");
    reader.end().unwrap();
    seal(&manager, 16 << 10).unwrap();
}

/// The program may wait where a request does not.
#[test]
fn the_plan_of_a_refusal_names_shards_in_use_and_evict_waits_for_them() {
    let (manager, shards) = full(&["a"]);
    let reader = SlowReader::of(&manager, &shards[0]);
    let plan = shortfall(seal(&manager, 8192)).plan.unwrap();
    assert_eq!(names(&plan), ["a"]);
    let evicting = Arc::clone(&manager);
    let evicted = begin(move || evicting.evict(&plan));
    assert!(evicted.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
    reader.end().unwrap();
    assert!(in_time("the eviction", move || evicted.recv().unwrap()).unwrap().is_complete());
    seal(&manager, 8192).unwrap();
}

#[test]
fn a_refusal_names_the_first_shards_in_use_and_counts_all() {
    let models: Vec<String> = (0..12).map(|number| format!("model {number}")).collect();
    let (manager, shards) = full(&models.iter().map(String::as_str).collect::<Vec<_>>());
    let leases: Vec<_> = shards[..9].iter().map(|shard| manager.lease(shard).unwrap()).collect();
    let readers: Vec<_> = shards[9..].iter().map(|shard| SlowReader::of(&manager, shard)).collect();
    let refused = shortfall(seal(&manager, 1));
    assert_eq!((refused.busy.count, refused.busy.bytes), (12, bytes(12 * 8 * KIB)));
    assert_eq!(refused.busy.first.len(), 8);
    drop(leases);
    seal(&manager, 1).unwrap();
    drop(readers);
}

/// the same victim was planned twice, and there was no second try.
#[test]
fn threads_that_evict_are_refused_nothing_while_shards_could_go() {
    const THREADS: u64 = 4;
    for policy_parks in [false, true] {
        let how = if policy_parks { OnEviction::Park } else { OnEviction::Free };
        // Four times as many places as threads: some shard is idle at every moment.
        let builder = hosts(&[16 * 4 * KIB]).eviction(Lru).on_eviction(how);
        let manager = Arc::new(builder.threads(Threads::ONE).build().unwrap());
        let (refused, start) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(4)));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (manager, refused, start) =
                    (Arc::clone(&manager), Arc::clone(&refused), Arc::clone(&start));
                begin(move || {
                    start.wait();
                    for _ in 0..500 {
                        if let Err(error) = manager.seal_model("model", 0, &[7; 4096]) {
                            refused.fetch_add(1, Ordering::Relaxed);
                            assert!(matches!(error, VramError::InsufficientVram(_)), "{error}");
                        }
                        drop(manager.take_evicted());
                    }
                })
            })
            .collect();
        for thread in threads {
            in_time("a thread that seals", move || thread.recv().unwrap());
        }
        assert_eq!(refused.load(Ordering::Relaxed), 0, "parks: {policy_parks}");
        assert_eq!(manager.capacity(0).unwrap().used.get(), 16 * 4 * KIB);
    }
}

/// C18: what was found altered while an eviction waited stays, as evidence.
#[test]
fn an_eviction_that_waited_for_a_reader_who_found_it_altered_leaves_the_shard() {
    let (device, same) = faulty(1 << 20);
    let builder = VramManager::builder().device(same).threads(Threads::ONE);
    let builder = builder.eviction(Lru).on_eviction(OnEviction::Free);
    let manager = Arc::new(builder.build().unwrap());
    let shard = manager.seal_model("m", 0, &[7; 1000]).unwrap();
    let plan = manager.plan_eviction(0, bytes(1 << 20)).unwrap();
    assert_eq!(plan.evictions.len(), 1);
    let (entered, inside) = mpsc::channel();
    let (go, go_on) = mpsc::channel::<()>();
    let go_on = Mutex::new(go_on);
    let hook = Hook::new(move || {
        entered.send(()).unwrap();
        let _gone = go_on.lock().unwrap().recv();
    });
    device.next(Op::Read, Action::Run(hook)).unwrap();
    // The shard lies at the high end.
    for at in ((1 << 20) - 1024..1 << 20).step_by(256) {
        device.flip_bit_at(None, DeviceOffset::new(at), 1).unwrap();
    }
    let (reading, evicting, read) = (Arc::clone(&manager), Arc::clone(&manager), shard.clone());
    let reading = begin(move || reading.unseal_model(&read));
    in_time("the reader", move || inside.recv().unwrap());
    let evicted = begin(move || evicting.evict(&plan).unwrap());
    assert!(evicted.recv_timeout(Duration::from_millis(100)).is_err(), "it waits");
    go.send(()).unwrap();
    let read = in_time("the reader", move || reading.recv().unwrap());
    assert!(matches!(read, Err(VramError::ShardAltered { .. })));
    let report = in_time("the eviction", move || evicted.recv().unwrap());
    assert!(report.evicted.is_empty() && report.kept.len() == 1, "{report:?}");
    assert!(matches!(manager.unseal_model(&shard), Err(VramError::Quarantined { .. })));
}
