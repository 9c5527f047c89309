//! A GPU is drained while a worker still computes on it: nobody frees or moves what is leased, and
//! the orchestrator waits for the worker, and no longer than it wants to.
//!
//! `cargo run -p vram-residency --example drain`

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;

use vram_residency::{Protection, SealRequest, VramError, VramManager};

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Arc::new(VramManager::new_mock_multi_gpu(vec![8 << 20, 8 << 20])?);
    let weights = vec![7_u8; 3 << 20];
    let request = SealRequest::new("llama", 0).protection(Protection::Authenticated);
    let shard = manager.seal(request, &weights)?;

    // The worker gets a lease, not a pointer to hope for.
    let lease = manager.lease(&shard)?;
    let (go_home, may_go_home) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let worker = thread::spawn(move || {
        // A kernel would be launched with this; it reads verified plaintext in place.
        let launched = lease.device_pointer().is_some() && lease.ensure_sound().is_ok();
        let told = started.send(launched).is_ok() && may_go_home.recv().is_ok();
        println!("worker: {} of {} read", lease.len(), lease.shard().model_id);
        drop(lease);
        told
    });
    assert!(has_started.recv()?);

    // Meanwhile the weights stay: at once, or after a moment's patience.
    let refused = manager.migrate_shard(&shard, 1);
    assert!(matches!(refused, Err(VramError::InUse { leases: 1, .. })));
    let Err(error) = manager.free_shard_within(&shard, Duration::from_millis(20)) else {
        return Err("leased weights were freed".into());
    };
    println!("orchestrator: {error}");
    assert!(error.retry_after().is_some());

    // With patience, the move happens as soon as the worker is done.
    let patient = {
        let (manager, shard) = (Arc::clone(&manager), shard.clone());
        thread::spawn(move || manager.migrate_shard_within(&shard, 1, Duration::from_mins(1)))
    };
    go_home.send(())?;
    assert!(worker.join().map_err(|_panic| "the worker panicked")?);
    let moved = patient.join().map_err(|_panic| "the orchestrator panicked")??;
    println!("orchestrator: moved to gpu {}", moved.gpu_index);
    assert!(manager.report().shards.iter().all(|shard| shard.leases == 0));
    assert!(manager.unseal_and_free(&moved)? == weights);
    Ok(())
}
