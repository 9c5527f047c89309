//! The events of one shard are in the order of its states, whatever other threads do meanwhile.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};

use vram_residency::device::fault::FaultPlan;
use vram_residency::{
    EventLog, ExportOptions, FreedReceipt, ImageReport, MemoryMode, Protection, SealedShard,
    VramError,
};
use vram_test_rigs::{CallingClock, Rig, SEGMENT, begin, content, devices, in_time};

use super::LONG;

thread_local! {
    static EXPORTS: Cell<bool> = const { Cell::new(false) };
}

type Freed = mpsc::Receiver<Result<FreedReceipt, VramError>>;

/// A manager whose clock, when the exporting thread asks it for the time of the event, lets the
/// thread that frees go first, if it can.
fn rig() -> (Arc<Rig>, EventLog, Arc<AtomicBool>, mpsc::Sender<()>) {
    let armed = Arc::new(AtomicBool::new(false));
    let (freed, is_freed) = mpsc::channel();
    let (is_armed, is_freed) = (Arc::clone(&armed), Mutex::new(is_freed));
    let on_now = move || {
        if EXPORTS.get() && is_armed.swap(false, Ordering::SeqCst) {
            let _in_time = is_freed.lock().unwrap().recv_timeout(Duration::from_millis(300));
        }
    };
    let log = EventLog::new(1000);
    let faulty = devices(&[16 * SEGMENT], &FaultPlan::new(1));
    let clock = Arc::new(CallingClock { on_now, on_monotonic: || {} });
    let rig = Rig::over(faulty, MemoryMode::Region, |builder| {
        builder.clock(clock).event_sink(log.clone())
    });
    (Arc::new(rig), log, armed, freed)
}

/// Exports a shard, which another thread frees as soon as it can once all bytes were read.
fn export_and_free(
    export: impl FnOnce(&Rig, &SealedShard, ExportOptions<'_>) -> Result<ImageReport, VramError>
    + Send
    + 'static,
) -> Vec<&'static str> {
    let (rig, log, armed, freed) = rig();
    let shard = rig.seal(0, Protection::Encrypted, &content(3 * SEGMENT, 1));
    let (outcome, mut go) = {
        let (go, started) = mpsc::channel();
        let (rig, shard) = (Arc::clone(&rig), shard.clone());
        let outcome: Freed = begin(move || {
            started.recv().unwrap();
            let receipt = rig.manager.free_shard(&shard);
            drop(freed);
            receipt
        });
        (outcome, Some(go))
    };
    let exporting = {
        let rig = Arc::clone(&rig);
        move || {
            EXPORTS.set(true);
            let options = ExportOptions::new().progress(move |progress| {
                if progress.done == progress.total
                    && let Some(go) = go.take()
                {
                    go.send(()).unwrap();
                    armed.store(true, Ordering::SeqCst);
                }
            });
            export(&rig, &shard, options)
        }
    };
    in_time("the export", exporting).unwrap();
    in_time("the free", move || outcome.recv().unwrap()).unwrap();
    assert!(rig.manager.flush_events(LONG));
    log.take().iter().map(|event| event.kind.name()).collect()
}

#[test]
fn an_image_is_told_before_the_end_of_its_shard() {
    let told = export_and_free(|rig, shard, how| rig.manager.export_with(shard, Vec::new(), how));
    assert_eq!(told, ["sealed", "exported", "freed"]);
    let told = export_and_free(|rig, shard, how| {
        let folder = std::env::temp_dir().join(format!("vram-order-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let exported = rig.manager.export_to(shard, folder.join("image"), how);
        std::fs::remove_dir_all(&folder).unwrap();
        exported
    });
    assert_eq!(told, ["sealed", "exported", "freed"], "to a file");
}
