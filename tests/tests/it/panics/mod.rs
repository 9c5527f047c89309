//! Property: if code of the caller panics inside a call, the panic leaves the call, the ledger is
//! exact, every resident shard stays resident, and the manager works as if the call had never been
//! made.
//!
//! Method: a bomb counts every call into the caller's code (sources, readers, sinks, callbacks,
//! policies) and panics at the n-th, for every n until the operation succeeds. After each panic the
//! test compares a picture of the whole state with the one before, and reads all content. A clock
//! is also read after the work is done, so less is required when it panics: the ledger is exact and
//! the manager usable.

mod clocks;
mod operations;

use operations::OPERATIONS;

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Read, Write};
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_residency::{
    Access, ByteLen, Candidate, Clock, EvictionPolicy, Lru, MemoryMode, ModelPlan, ModelSource,
    OnEviction, Piece, Protection, SealRequest, SealedShard, Source, SourceError, SystemClock,
    Timestamp, VramError, VramManager,
};
use vram_tests::reference::{bytes, footprint};
use vram_tests::rig::Rig;

const TOTAL: u64 = 128 << 10;
const LEN: usize = 20_001;

/// Panics at the n-th tick. With 0 it never panics.
#[derive(Debug, Default)]
struct Bomb {
    left: AtomicU64,
}

impl Bomb {
    fn arm(&self, ticks: u64) {
        self.left.store(ticks, Ordering::SeqCst);
    }

    /// Returns whether it has not panicked yet, and disables it.
    fn disarm(&self) -> bool {
        self.left.swap(0, Ordering::SeqCst) > 0
    }

    fn tick(&self) {
        let counted = |left: u64| left.checked_sub(1);
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted);
        assert!(before != Ok(1), "the bomb went off");
    }
}

/// Every kind of caller's code that a manager calls.
struct Ticking<'a, T> {
    bomb: &'a Bomb,
    inner: T,
    access: Access,
}

impl<'a, T> Ticking<'a, T> {
    const fn new(bomb: &'a Bomb, inner: T) -> Self {
        Self { bomb, inner, access: Access::Positional }
    }
}

impl Source for Ticking<'_, &[u8]> {
    fn len(&self) -> u64 {
        self.bomb.tick();
        u64::try_from(self.inner.len()).unwrap()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        self.bomb.tick();
        let start = usize::try_from(offset).unwrap();
        target.copy_from_slice(&self.inner[start..start + target.len()]);
        Ok(())
    }

    fn access(&self) -> Access {
        self.bomb.tick();
        self.access
    }

    fn finish(&self) -> Result<(), SourceError> {
        self.bomb.tick();
        Ok(())
    }
}

impl ModelSource for Ticking<'_, &[u8]> {
    fn read_at(&self, _file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        Source::read_at(self, offset, target)
    }

    fn finish(&self) -> Result<(), SourceError> {
        Source::finish(self)
    }
}

impl<R: Read> Read for Ticking<'_, R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.bomb.tick();
        self.inner.read(target)
    }
}

impl<W: Write> Write for Ticking<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bomb.tick();
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bomb.tick();
        self.inner.flush()
    }
}

#[derive(Debug)]
struct TickingPolicy(Arc<Bomb>);

impl EvictionPolicy for TickingPolicy {
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize> {
        self.0.tick();
        Lru.rank(candidates)
    }
}

#[derive(Debug)]
struct TickingClock(Arc<Bomb>);

impl Clock for TickingClock {
    fn now(&self) -> Timestamp {
        self.0.tick();
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.tick();
        SystemClock.monotonic()
    }
}

/// A manager with a shard in every state.
struct Setup {
    manager: Arc<VramManager>,
    content: Vec<u8>,
    encrypted: SealedShard,
    plain: SealedShard,
    /// In quarantine.
    altered: SealedShard,
    image: Vec<u8>,
    model: ModelPlan,
}

impl Setup {
    fn new(mode: MemoryMode, policy: &Arc<Bomb>, clock: &Arc<Bomb>) -> Self {
        let rig = Rig::with(&[TOTAL, TOTAL], 1, |builder| {
            let builder = builder.memory(0, mode).memory(1, mode);
            let clock = Arc::new(TickingClock(Arc::clone(clock)));
            builder.eviction(TickingPolicy(Arc::clone(policy))).clock(clock)
        });
        let rig = rig.unwrap();
        let manager = Arc::clone(&rig.manager);
        let content = bytes(LEN, 1);
        let encrypted = manager.seal_model("encrypted", 0, &content).unwrap();
        let request = SealRequest::new("plain", 0)
            .protection(Protection::Authenticated)
            .on_eviction(OnEviction::Free);
        let plain = manager.seal(request, &content).unwrap();
        let altered = manager.seal_model("altered", 1, &content).unwrap();
        assert!(rig.flip(&altered, 1, 9000, 3));
        assert!(!manager.verify_shard_integrity(&altered).unwrap());
        let mut image = Vec::new();
        manager.export(&encrypted, &mut image).unwrap();
        let pieces = [
            Piece::new("a", 0, 0, ByteLen::new(9000)),
            Piece::new("b", 0, 9000, ByteLen::new(11_001)),
        ];
        let model = ModelPlan::new(pieces).unwrap();
        Self { manager, content, encrypted, plain, altered, image, model }
    }

    /// The state that a call leaves unchanged if it was never made.
    fn picture(&self) -> String {
        let manager = &self.manager;
        let capacities = [manager.capacity(0).unwrap(), manager.capacity(1).unwrap()];
        let shards = manager.report().shards;
        let shards: Vec<_> = shards
            .iter()
            .map(|one| (&one.shard_id, one.gpu, &one.quarantine, one.leases, one.pinned))
            .collect();
        let parked = manager.park_capacity();
        let reservations = manager.reservations().len();
        format!("{capacities:?} {shards:?} {parked:?} {reservations}")
    }

    /// Checks that the ledger is the sum of what is resident.
    fn books_are_exact(&self, what: &str) {
        for gpu in 0..2 {
            let now = self.manager.capacity(gpu).unwrap();
            let here = self.manager.shards().into_iter().filter(|shard| shard.gpu_index == gpu);
            let used: u64 =
                here.map(|shard| footprint(usize::try_from(shard.plaintext_len).unwrap())).sum();
            assert_eq!((now.used.get(), now.reserved.get()), (used, 0), "{what}: gpu {gpu}");
            assert_eq!(now.free.get(), TOTAL - used, "{what}: gpu {gpu}");
        }
    }

    /// Checks that every resident shard can be read and freed, and that the GPU then accepts its
    /// full capacity.
    fn still_works(self, what: &str) {
        if self.manager.unseal_model(&self.altered).is_err() {
            self.manager.free_shard(&self.altered).unwrap();
        }
        for shard in self.manager.shards() {
            let out = self.manager.unseal_and_free(&shard).unwrap();
            assert!(self.content.windows(out.len().max(1)).any(|part| part == out), "{what}");
        }
        for gpu in 0..2 {
            let whole = vec![3; usize::try_from(TOTAL).unwrap()];
            let shard = self.manager.seal_model("whole", gpu, &whole).unwrap();
            assert!(self.manager.verify_shard_integrity(&shard).unwrap(), "{what}");
        }
    }
}

type Operation = (&'static str, fn(&Setup, &Bomb) -> Result<(), VramError>);

/// Lets the bomb panic at every tick in turn, and runs `look` after each panic.
fn explode_everywhere(operation: &Operation, look: impl Fn(&Setup, &str, &str)) -> u64 {
    let (name, run) = operation;
    let mut explosions = 0;
    for mode in [MemoryMode::Region, MemoryMode::Blocks] {
        for tick in 1.. {
            let bomb = Bomb::default();
            let setup = Setup::new(mode, &Arc::default(), &Arc::default());
            let before = setup.picture();
            bomb.arm(tick);
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&setup, &bomb)));
            let what = format!("{name}, {mode:?}, tick {tick}");
            if bomb.disarm() {
                outcome.unwrap().unwrap_or_else(|error| panic!("{what}: {error}"));
                break;
            }
            assert!(outcome.is_err(), "{what}: the panic was swallowed");
            explosions += 1;
            look(&setup, &before, &what);
            setup.still_works(&what);
        }
    }
    explosions
}

#[test]
fn a_panic_of_the_callers_code_at_any_point_leaves_everything_as_it_was() {
    for operation in OPERATIONS {
        let explosions = explode_everywhere(operation, |setup, before, what| {
            assert_eq!(setup.picture(), before, "{what}");
        });
        assert!(explosions >= 4, "{}: only {explosions} explosions", operation.0);
    }
}

/// If a policy panics, no shard is evicted, and the caller gets the error for lack of room.
#[test]
fn a_policy_that_panics_at_any_point_evicts_nothing() {
    for mode in [MemoryMode::Region, MemoryMode::Blocks] {
        let mut explosions = 0;
        for tick in 1.. {
            let policy: Arc<Bomb> = Arc::default();
            let setup = Setup::new(mode, &policy, &Arc::default());
            let before = setup.picture();
            policy.arm(tick);
            let urgent = SealRequest::new("urgent", 0).priority(u32::MAX);
            let outcome = setup.manager.seal(urgent, &vec![5; 100_000]);
            if policy.disarm() {
                assert!(outcome.is_ok(), "without a panic there is a way: {outcome:?}");
                break;
            }
            explosions += 1;
            let what = format!("{mode:?}, tick {tick}");
            if let Err(error) = &outcome {
                assert!(error.is_capacity(), "{what}: {error}");
                assert_eq!(setup.picture(), before, "{what}");
                setup.still_works(&what);
            }
        }
        assert!(explosions >= 1, "the policy was never asked");
    }
}
