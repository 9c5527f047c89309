//! Kernels that compute wrongly, stop, or are not there: what counts is what the host finds.

use core::any::Any;
use core::panic::AssertUnwindSafe;
use core::time::Duration;

use vram_gpu::kernels::{
    CipherSpan, FingerprintKey, Fingerprints, HashSpan, KernelError, Kernels, NoKernels, Unfit,
};
use vram_gpu::{Device, DeviceInfo, DeviceMemory, DeviceState, GpuError, MemoryInfo, Staging};
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    Checked, Event, EventKind, EventLog, ScrubCursor, SealedShard, Verify, VramManager,
};

use super::*;

/// A rig whose events are kept.
fn told_rig() -> (Rig, EventLog) {
    let log = EventLog::new(256);
    let rig = Rig::over(devices(&[1 << 20]), MemoryMode::Region, |builder| {
        builder.event_sink(log.clone())
    });
    (rig, log)
}

fn names(manager: &VramManager, log: &EventLog) -> Vec<&'static str> {
    assert!(manager.flush_events(Duration::from_secs(10)));
    log.take().iter().map(|event: &Event| event.kind.name()).collect()
}

fn open_shard(rig: &Rig, len: usize) -> SealedShard {
    rig.manager.seal(request(Protection::Authenticated, Suite::default()), &content(len)).unwrap()
}

#[test]
fn what_only_kernels_call_altered_is_no_alteration() {
    for (level, op) in [(Verify::Segments, Op::Hash), (Verify::Fingerprint, Op::Fingerprint)] {
        for lie in [Action::FlipResults, Action::FlipResult { span: 3, bit: 100 }] {
            let (rig, log) = told_rig();
            let shard = open_shard(&rig, 9 * SEGMENT);
            let _armed = rig.manager.verify(&shard, Verify::Fingerprint).unwrap();
            let _seen = names(&rig.manager, &log);
            rig.devices[0].next(op, lie.clone()).unwrap();
            let verdict = rig.manager.verify(&shard, level).unwrap();
            assert!(verdict.sound && verdict.altered.is_empty(), "{verdict} {level:?} {lie:?}");
            assert_eq!(names(&rig.manager, &log), ["kernels_disagreed", "verified"]);
            assert!(figures(&rig).disagreements > 0);
            // And the next look is as if nothing had been.
            assert!(rig.manager.verify(&shard, level).unwrap().sound);
            assert_eq!(names(&rig.manager, &log), ["verified"]);
        }
    }
}

/// A lie in the whole content: the host looks at all of it.
#[test]
fn a_digest_that_kernels_compute_wrongly_is_computed_by_the_host() {
    let (rig, log) = told_rig();
    let shard = open_shard(&rig, 9 * SEGMENT);
    let _seen = names(&rig.manager, &log);
    rig.devices[0].next(Op::Hash, Action::FlipResult { span: 0, bit: 1 }).unwrap();
    let verdict = rig.manager.verify(&shard, Verify::Full).unwrap();
    assert!(verdict.sound && verdict.content);
    assert_eq!(verdict.checked, Some(Checked::BY_HOST));
    assert_eq!(names(&rig.manager, &log), ["kernels_disagreed", "verified"]);
}

#[test]
fn where_kernels_give_nothing_the_host_computes_and_says_so_once() {
    let (rig, log) = told_rig();
    let shard = open_shard(&rig, 3 * SEGMENT);
    assert_eq!(names(&rig.manager, &log), ["kernels_used", "sealed"]);
    let device = &rig.devices[0];
    let unfit = Action::Unfit(Unfit::Unaligned { at: 7 });
    for (what, withheld, rule) in [
        ("unfit", None, Some(unfit)),
        ("an error", None, Some(Action::Driver(1))),
        ("refused", Some(NoKernels::Refused { code: 209 }), None),
        ("wrong", Some(NoKernels::WrongAnswer { kernel: "blake3_items" }), None),
    ] {
        device.withhold_kernels(withheld);
        if let Some(action) = rule {
            device.add(Op::Hash, When::From(1), action).unwrap();
        }
        let before = figures(&rig);
        for _ in 0..2 {
            let verdict = rig.manager.verify(&shard, Verify::Segments).unwrap();
            assert!(verdict.sound && verdict.checked == Some(Checked::BY_HOST), "{what}");
        }
        let now = figures(&rig);
        assert!(now.fallbacks >= before.fallbacks + 2, "{what}");
        let told = names(&rig.manager, &log);
        assert_eq!(told.iter().filter(|name| **name == "verified").count(), 2);
        // What does not apply to some bytes may apply to others: nothing is told.
        let idle = usize::from(what != "unfit");
        assert_eq!(told.iter().filter(|name| **name == "kernels_idle").count(), idle, "{what}");
        assert_eq!((told.len(), now.used), (2 + idle, idle == 0), "{what}: {told:?}");
        device.clear();
        device.withhold_kernels(None);
        assert!(rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
        let again = &["kernels_used", "verified"][1 - idle..];
        assert_eq!(names(&rig.manager, &log), again, "{what}");
        assert!(figures(&rig).used);
    }
    // While they load, which every start passes through, nobody is told.
    device.withhold_kernels(Some(NoKernels::Loading));
    assert!(rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
    assert_eq!(names(&rig.manager, &log), ["verified"]);
}

#[test]
fn a_device_that_is_lost_in_a_kernel_is_lost() {
    let (rig, log) = told_rig();
    let shard = open_shard(&rig, 3 * SEGMENT);
    let _seen = names(&rig.manager, &log);
    rig.devices[0].next(Op::Hash, Action::Driver(700)).unwrap();
    let error = rig.manager.verify(&shard, Verify::Segments).unwrap_err();
    assert_eq!(error.code(), "device-lost");
    assert_eq!(names(&rig.manager, &log), ["device_lost", "refused"]);
    assert_eq!(rig.devices[0].calls_after_loss(), 0);
}

#[test]
fn kernels_that_panic_leave_the_shard_as_it_was() {
    let (rig, _log) = told_rig();
    let shard = open_shard(&rig, 3 * SEGMENT);
    rig.devices[0].next(Op::Hash, Action::Panic).unwrap();
    let looked =
        std::panic::catch_unwind(AssertUnwindSafe(|| rig.manager.verify(&shard, Verify::Segments)));
    assert!(looked.is_err());
    assert!(rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
    rig.manager.free_shard(&shard).unwrap();
    assert_eq!(rig.used(0), 0);
}

/// Kernels that compute nothing: every hash is that of the first span.
#[derive(Debug)]
struct Dead(Arc<dyn Kernels>);

impl Kernels for Dead {
    fn site(&self) -> vram_residency::Site {
        self.0.site()
    }

    fn hash(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[HashSpan],
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        let computed = self.0.hash(memory, spans)?;
        Ok(vec![computed[0]; computed.len()])
    }

    fn fingerprint(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[vram_alloc::DeviceRange],
        key: &FingerprintKey,
        renewed: Option<&FingerprintKey>,
    ) -> Result<Vec<Fingerprints>, KernelError> {
        self.0.fingerprint(memory, spans, key, renewed)
    }

    fn tags(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        self.0.tags(memory, spans, keys)
    }

    fn open(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
        tags: &[[u8; 16]],
    ) -> Result<Vec<bool>, KernelError> {
        self.0.open(source, target, spans, keys, tags)
    }

    fn seal(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        self.0.seal(source, target, spans, keys)
    }
}

/// A device with dead kernels.
#[derive(Debug)]
struct WithDead(HostDevice);

impl Device for WithDead {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        self.0.memory()
    }

    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
        self.0.allocate(len)
    }

    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
        self.0.staging(len)
    }

    fn state(&self) -> DeviceState {
        self.0.state()
    }

    fn reset(&self) -> Result<(), GpuError> {
        self.0.reset()
    }

    fn can_copy_from_peer(&self, other: &dyn Device) -> bool {
        self.0.can_copy_from_peer(other)
    }

    fn kernels(&self) -> Result<Arc<dyn Kernels>, NoKernels> {
        Ok(Arc::new(Dead(self.0.kernels()?)))
    }

    fn backing(&self) -> &dyn Device {
        self.0.backing()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A shard of equal segments has equal hashes but for their places in the tree: only the canary can
/// tell that nothing is computed.
#[test]
fn kernels_that_miss_the_canary_are_not_asked_again() {
    let log = EventLog::new(64);
    let host = HostDevice::builder(GpuIndex::new(0), ByteLen::MIB).kernels().build().unwrap();
    let manager = VramManager::builder()
        .device(Arc::new(WithDead(host)))
        .event_sink(log.clone())
        .build()
        .unwrap();
    // One segment: the dead kernels' one value is the right one.
    let shard =
        manager.seal(request(Protection::Authenticated, Suite::default()), &content(1000)).unwrap();
    assert_eq!(names(&manager, &log), ["kernels_used", "kernels_idle", "sealed"]);
    let verdict = manager.verify(&shard, Verify::Segments).unwrap();
    assert!(verdict.sound && verdict.checked == Some(Checked::BY_HOST));
    let mut cursor = ScrubCursor::new();
    let step = manager.scrub_step(&mut cursor, ByteLen::MIB);
    assert_eq!((step.errors, step.altered.len()), (0, 0));
    assert_eq!(figures_of(&manager).hashed, ByteLen::new(1000), "asked once");
    // A reset loads them anew, and they are tried again.
    let why = |event: &Event| match &event.kind {
        EventKind::KernelsIdle { why, .. } => Some(why.to_string()),
        _ => None,
    };
    assert!(manager.flush_events(Duration::from_secs(10)));
    assert_eq!(log.take().iter().find_map(why), None);
}

fn figures_of(manager: &VramManager) -> KernelFigures {
    manager.metrics().gpus[0].kernels
}
