//! A real S3 server, where `VRAM_STORE_S3` names a bucket of one (`s3://…`), with the usual variables.

use core::time::Duration;
use std::process::Command;

use vram_store::object_store::aws::AmazonS3Builder;
use vram_store::object_store::{ObjectStoreExt as _, PutPayload};
use vram_store::{Part, Pull, Sample, Store, StoreOptions, VerifyMeans, image_key, manifest_key};

use crate::model::{MODEL, World, load, manager};

/// The address of the bucket; `None` is told, and is a failure where `CI` is `true`.
pub(crate) fn address() -> Option<String> {
    let address = std::env::var("VRAM_STORE_S3").ok();
    if address.is_none() {
        println!(
            "NOT RUN store::s3: no server (scripts/engines, then cargo xtask store --engine seaweedfs)"
        );
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "an engine is required where CI=true"
        );
    }
    address
}

/// A part of the bucket that no other run uses.
pub(crate) fn fresh(address: &str, name: &str) -> Store {
    let address = format!("{address}/{name}-{}", std::process::id());
    Store::open(&address).unwrap()
}

fn put(address: &str, name: &str, key: &str, bytes: Option<Vec<u8>>) {
    let bucket = address.trim_start_matches("s3://").split('/').next().unwrap().to_owned();
    let client = vram_store::object_store::ClientOptions::new().with_allow_http(true);
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_client_options(client);
    let objects = builder.build().unwrap();
    let key = format!("{name}-{}/{key}", std::process::id());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match bytes {
            Some(bytes) => {
                drop(objects.put(&key.as_str().into(), PutPayload::from(bytes)).await.unwrap());
            }
            None => objects.delete(&key.as_str().into()).await.unwrap(),
        }
    });
}

#[test]
fn a_real_server_is_pushed_to_loaded_from_and_not_believed() {
    let Some(address) = address() else { return };
    let store = fresh(&address, "basic");
    let check = store.check(&StoreOptions::new()).unwrap();
    for trial in &check.trials {
        let good = match trial.good {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        println!("  {good}: {}: {}", trial.what, trial.seen);
    }
    assert!(check.is_good(), "{check:?}");

    // Several parts, so that it is a multipart upload.
    let world = World::new(40 << 20);
    let pushed = world.push(&store);
    assert_eq!((pushed.sent, pushed.present), (1, 0));
    let again = world.push(&store);
    assert_eq!((again.sent, again.present, again.id), (0, 1, pushed.id));
    let manifest = world.manifest(&store, &pushed);
    let content = std::fs::read(&world.file).unwrap();
    let device = manager(content.len() as u64);
    let shard = load(&Pull::new(&manifest, &world.keys, b"", &store), &device).unwrap();
    assert_eq!(device.unseal_model(&shard).unwrap(), content);
    let folder = world.folder.path().join("out");
    Pull::new(&manifest, &world.keys, b"", &store).to_folder(&folder).unwrap();
    let image = std::fs::read(folder.join("00000.vseal")).unwrap();

    // The lying bucket: a flipped bit, then an older valid image, then nothing.
    let (id, mut flipped) = (manifest.shards()[0].image, image.clone());
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    put(&address, "basic", &image_key(&id), Some(flipped));
    let refused =
        load(&Pull::new(&manifest, &world.keys, b"", &store), &manager(content.len() as u64));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("segment 159 was altered"), "{text}");
    let verdict =
        store.verify(None, VerifyMeans::Keyless, Sample::All, &StoreOptions::new()).unwrap();
    assert_eq!(verdict.findings.len(), 1);
    assert_eq!(verdict.findings[0].part, Some(Part::FilePart(5)));
    let older = world.push_revision(&store, 0);
    let older = world.manifest(&store, &older);
    let other = world.folder.path().join("older");
    Pull::new(&older, &world.keys, b"", &store).to_folder(&other).unwrap();
    let older = std::fs::read(other.join("00000.vseal")).unwrap();
    put(&address, "basic", &image_key(&id), Some(older));
    let refused =
        load(&Pull::new(&manifest, &world.keys, b"", &store), &manager(content.len() as u64));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("the record is not the one that the manifest names"), "{text}");
    put(&address, "basic", &image_key(&id), None);
    assert_eq!(world.push(&store).sent, 1, "what is missing is sent");

    put(&address, "basic", &manifest_key(MODEL, 1, &pushed.id), None);
    let found = store.collect(Duration::ZERO, true, &StoreOptions::new()).unwrap();
    assert_eq!(found.unnamed.len(), 2, "{found:?}");
}

/// The program itself, killed while it pushes: never a manifest without its images.
#[test]
fn a_push_to_a_real_server_that_is_killed_names_nothing_that_is_not_whole() {
    let (Some(address), Ok(program)) = (address(), std::env::var("VRAM_PROGRAM")) else { return };
    let world = World::new(24 << 20);
    let folder = world.folder.path();
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).current_dir(folder);
        command
    };
    assert!(run(&["keygen", "-o", "key"]).status().unwrap().success());
    // The server makes the bucket at the first write, which a killed push may not have come to.
    put(&address, "killed", "first", Some(vec![0]));
    let mut killed = 0;
    for turn in 0..10_u64 {
        let to = format!("{address}/killed-{}-{turn}", std::process::id());
        let push = [
            "push",
            "model",
            "--model-id",
            "m",
            "--revision",
            "1",
            "--key-file",
            "key",
            "--store",
            &to,
        ];
        let mut child = run(&push).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 * turn));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let verify = ["store", "verify", "--key-file", "key", &to];
        // Sound, or without a manifest: then nothing was verified.
        let code = run(&verify).status().unwrap().code();
        assert!(matches!(code, Some(0 | 2)), "after {turn}: {code:?}");
        assert!(run(&push).status().unwrap().success());
        assert!(run(&verify).status().unwrap().success());
    }
    println!(
        "  killed {killed} of 10 pushes before their end; each store was sound, and sound after the next push"
    );
}
