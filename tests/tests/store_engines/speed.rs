//! Speed as ratios in one run: a folder against `import_from`, S3 against its plain ranged GETs.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Runtime;
use vram_residency::ImportRequest;
use vram_store::object_store::aws::AmazonS3Builder;
use vram_store::object_store::path::Path;
use vram_store::object_store::prefix::PrefixStore;
use vram_store::object_store::{ObjectStore, ObjectStoreExt as _};
use vram_store::{Cache, Pull, Store, Trusted, image_key};

use crate::link::Link;
use crate::model::{MODEL, World, load, manager};
use crate::s3;

const ROUNDS: usize = 7;

/// The middle one of several times.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn rate(len: u64, seconds: f64) -> f64 {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a figure for people")]
    let bytes = len as f64;
    bytes / seconds / 1e9
}

/// Begins to count the largest resident memory anew.
fn forget_peak() {
    let _not_on_this_kernel = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident memory of this process since then, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("0 0");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[test]
fn a_load_from_a_folder_is_as_fast_as_an_import_of_the_file() {
    let len: u64 = 512 << 20;
    let world = World::new(usize::try_from(len).unwrap());
    let at = world.folder.path().join("store");
    let store = Store::open_or_create(at.to_str().unwrap()).unwrap();
    let pushed = world.push(&store);
    let manifest = world.manifest(&store, &pushed);
    let image = at.join(image_key(&pushed.manifest.shards[0].image));
    let device = manager(len);
    forget_peak();
    let (mut loads, mut imports, mut pulls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let shard = device.import_from(ImportRequest::new(MODEL, 0), &image).unwrap();
        imports.push(began.elapsed());
        device.free_shard(&shard).unwrap();
        let began = Instant::now();
        let shard = load(&Pull::new(&manifest, &world.keys, b"", &store), &device).unwrap();
        loads.push(began.elapsed());
        device.free_shard(&shard).unwrap();
    }
    for _ in 0..3 {
        let began = Instant::now();
        Pull::new(&manifest, &world.keys, b"", &store).verify(0).unwrap();
        pulls.push(began.elapsed());
    }
    let (load_time, import_time) = (median(loads), median(imports));
    let ratio = import_time / load_time;
    println!(
        "  folder: import_from {:.2} GB/s, load {:.2} GB/s, ratio {ratio:.2}; verified by ranges {:.2} GB/s",
        rate(len, import_time),
        rate(len, load_time),
        rate(len, median(pulls))
    );
    // The device itself is 512 MiB of this process.
    println!("  memory: peak {} MiB with a device of {} MiB", peak(), len >> 20);
    assert!(ratio >= 0.7, "far below what was measured: {ratio:.2}");
}

#[test]
fn a_load_from_s3_is_nearly_as_fast_as_plain_ranged_gets() {
    let Some(address) = s3::address() else { return };
    let len: u64 = 256 << 20;
    let world = World::new(usize::try_from(len).unwrap());
    let store = s3::fresh(&address, "speed");
    let began = Instant::now();
    let pushed = world.push(&store);
    println!(
        "  s3: pushed at {:.2} GB/s, sealing and reading back included",
        rate(len, began.elapsed().as_secs_f64())
    );
    let manifest = world.manifest(&store, &pushed);
    let shard = &manifest.shards()[0];
    let (objects, key) = (below(&address, "speed"), Path::from(image_key(&shard.image)));
    let runtime = runtime();
    let plain = || plain_gets(&runtime, &objects, &key, shard.image_len);
    let device = manager(len);
    forget_peak();
    let cache =
        Cache::open(world.folder.path().join("cache"), vram_residency::ByteLen::new(1 << 30))
            .unwrap();
    let (mut plains, mut loads, mut cached, mut verifies) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        plains.push(plain());
        let began = Instant::now();
        let shard = load(&Pull::new(&manifest, &world.keys, b"", &store), &device).unwrap();
        loads.push(began.elapsed());
        device.free_shard(&shard).unwrap();
        let began = Instant::now();
        Pull::new(&manifest, &world.keys, b"", &store).verify(0).unwrap();
        verifies.push(began.elapsed());
    }
    for _ in 0..3 {
        let began = Instant::now();
        let shard =
            load(&Pull::new(&manifest, &world.keys, b"", &store).cache(&cache), &device).unwrap();
        cached.push(began.elapsed());
        device.free_shard(&shard).unwrap();
    }
    let plain_time = median(plains);
    let (load_time, verify_time) = (median(loads), median(verifies));
    println!(
        "  s3: plain ranged GETs {:.2} GB/s, load {:.2} GB/s (ratio {:.2}), verified alone {:.2} GB/s (ratio {:.2})",
        rate(len, plain_time),
        rate(len, load_time),
        plain_time / load_time,
        rate(len, verify_time),
        plain_time / verify_time
    );
    println!(
        "  s3: with a cache, first load {:.2} GB/s, then {:.2} GB/s",
        rate(len, cached[0].as_secs_f64()),
        rate(len, cached[2].as_secs_f64())
    );
    assert!(plain_time / load_time >= 0.5, "far below what was measured");
    where_the_network_is_the_limit(&world, &manifest, &objects, rate_of(len, plain_time) / 2);
}

/// The same beside GETs through a link that gives half of what this machine can: server, client and
/// checks have processors left, as where the network is the limit.
fn where_the_network_is_the_limit(
    world: &World,
    manifest: &Trusted,
    objects: &Arc<dyn ObjectStore>,
    bytes_per_second: u64,
) {
    let shard = &manifest.shards()[0];
    let link = Link::before(objects, bytes_per_second);
    let (key, runtime) = (Path::from(image_key(&shard.image)), runtime());
    let store = Store::over("link", Arc::clone(&link));
    let device = manager(shard.plaintext_len);
    let (mut plains, mut loads) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        plains.push(plain_gets(&runtime, &link, &key, shard.image_len));
        let began = Instant::now();
        let loaded = load(&Pull::new(manifest, &world.keys, b"", &store), &device).unwrap();
        loads.push(began.elapsed());
        device.free_shard(&loaded).unwrap();
    }
    let (plain_time, load_time) = (median(plains), median(loads));
    let ratio = plain_time / load_time;
    println!(
        "  s3 through a link of {:.2} GB/s: plain ranged GETs {:.2} GB/s, load {:.2} GB/s (ratio {ratio:.2})",
        rate(bytes_per_second, 1.0),
        rate(shard.image_len, plain_time),
        rate(shard.plaintext_len, load_time),
    );
    assert!(ratio >= 0.75, "far below what was measured: {ratio:.2}");
}

/// The bucket itself, below the folder of this run.
fn below(address: &str, name: &str) -> Arc<dyn ObjectStore> {
    let bucket = address.trim_start_matches("s3://").split('/').next().unwrap();
    let client = vram_store::object_store::ClientOptions::new().with_allow_http(true);
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_client_options(client);
    let folder = format!("{name}-{}", std::process::id());
    Arc::new(PrefixStore::new(builder.build().unwrap(), folder))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// How long the ranges of an object take, 8 of 8 MiB at a time, of which nothing is kept.
fn plain_gets(runtime: &Runtime, objects: &Arc<dyn ObjectStore>, key: &Path, len: u64) -> Duration {
    runtime.block_on(async {
        let began = Instant::now();
        let (mut at, mut waiting) = (0, std::collections::VecDeque::new());
        let mut sum = 0;
        while at < len || !waiting.is_empty() {
            while at < len && waiting.len() < 8 {
                let range = at..(at + (8 << 20)).min(len);
                at = range.end;
                let (objects, key) = (Arc::clone(objects), key.clone());
                waiting.push_back(tokio::spawn(async move {
                    objects.get_range(&key, range).await.unwrap()
                }));
            }
            sum += waiting.pop_front().unwrap().await.unwrap().len() as u64;
        }
        assert_eq!(sum, len);
        began.elapsed()
    })
}

/// Bytes a second.
fn rate_of(len: u64, seconds: f64) -> u64 {
    let micros = Duration::from_secs_f64(seconds).as_micros().try_into().unwrap_or(u64::MAX);
    len * 1_000_000 / micros
}
