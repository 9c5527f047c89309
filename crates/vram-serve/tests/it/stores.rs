//! P157, P158: a model from a store is what the pinned manifest names, whatever its sources send; it is repaired
//! from there, and a restart brings it back.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;
use vram_residency::{
    ByteLen, DeviceOffset, Protection, SealKey, SealParams, SegmentSize, create_key_file,
};
use vram_serve::{Check, Config};
use vram_store::{Push, Store, StoreOptions};

use crate::config::checked;
use crate::support::{Rig, folder, read_until, request, wait};

const FILES: [&str; 2] = ["a.safetensors", "b.safetensors"];

/// A folder with model files, a key, and a store with two revisions of a model of two shards. Returns the pins.
fn pushed() -> (TempDir, [String; 2]) {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let key = SealKey::from_bytes(&[7; 32]);
    create_key_file(&at("node.key"), &key).unwrap();
    fs::create_dir(at("store")).unwrap();
    let store = Store::folder(at("store")).unwrap();
    let pins = [1, 2].map(|revision| {
        let push = Push {
            key: &key,
            model: "llama",
            revision,
            context: b"tenant",
            files: FILES.map(at).to_vec(),
            format: "safetensors",
            ranks: vec![],
            fleet: None,
            params: SealParams::new()
                .with_protection(Protection::Encrypted)
                .with_segment(SegmentSize::MIN),
            plaintext: false,
            created: "2026-11-26T11:40:00Z".into(),
            mirrors: vec![],
        };
        store.push(&push, &StoreOptions::new()).unwrap().id.to_string()
    });
    (folder, pins)
}

/// A configuration of one model in the store, under a name of its own.
fn model(name: &str, more: &str) -> String {
    format!(
        "[key]\nfile = \"node.key\"\n[[model]]\nname = \"{name}\"\nstore = \"store\"\n\
         image = \"llama@1\"\ncontext = \"tenant\"\nprotection = \"authenticated\"\n{more}\n"
    )
}

fn images(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![store.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "vseal") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            assert!(fs::copy(&path, &target).unwrap() > 0);
        }
    }
}

fn flip_last(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Flips a bit of a file's content where it lies on a device in plaintext.
fn flip_on_device(rig: &Rig, file: &str) {
    let content = fs::read(rig.path(file)).unwrap();
    let end = &content[content.len() - 64..];
    for device in &rig.devices {
        let memory = device.inspect(None, DeviceOffset::new(0), ByteLen::new(16 << 20)).unwrap();
        if let Some(at) = memory.windows(64).position(|window| window == end) {
            let at = DeviceOffset::new(u64::try_from(at).unwrap());
            return device.flip_bit_at(None, at, 3).unwrap();
        }
    }
    panic!("{file} lies on no device");
}

/// The mirror lies about one image; the store has it. A bit flips in device memory, a check finds it, the model
/// is served to nobody, and the store repairs it while the mirror still lies.
#[test]
fn a_model_comes_from_a_store_with_a_lying_mirror_and_is_repaired_from_there() {
    let (folder, [pin, _]) = pushed();
    copy(&folder.path().join("store"), &folder.path().join("mirror"));
    for image in images(&folder.path().join("mirror")) {
        flip_last(&image);
    }
    let lines = model("prod", &format!("manifest = \"{pin}\"\nmirrors = [\"mirror\"]"));
    let rig = Rig::in_folder(folder, &lines);
    let mut events = rig.connect();
    let asked = request("GET", "/events", &[], "");
    std::io::Write::write_all(&mut events, asked.as_bytes()).unwrap();
    rig.wait_ready();

    let view = rig.model("prod");
    assert_eq!((&view["state"], &view["shards"]), (&"resident".into(), &2.into()));
    assert_eq!(view["manifest"], pin.as_str());
    assert!(view["loading"].is_null() && view["failure"].is_null());
    let total: u64 = FILES.iter().map(|file| fs::metadata(rig.path(file)).unwrap().len()).sum();
    assert!(view["bytes"].as_u64().unwrap() >= total, "{view}");
    assert_eq!(rig.post("/v1/models/prod/verify", "{\"level\":\"full\"}").json()["sound"], true);

    for file in FILES {
        flip_on_device(&rig, file);
        let verified = rig.post("/v1/models/prod/verify", "").expect(200).json();
        assert_eq!(verified["sound"], false, "{verified}");
        assert_eq!(rig.model("prod")["quarantined"], 1);
        rig.post("/v1/leases", "{\"model\":\"prod\"}").expect_problem(409, "quarantined");
        let repaired = rig.post("/v1/models/prod/repair", "").expect(200).json();
        assert_eq!((&repaired["shards"], &repaired["segments"]), (&1.into(), &1.into()));
        assert_eq!(
            rig.post("/v1/models/prod/verify", "{\"level\":\"full\"}").json()["sound"],
            true
        );
        rig.get("/readyz").expect(200);
    }

    // It is a model like any other.
    rig.post("/v1/models/prod/park", "").expect(200);
    assert_eq!(rig.model("prod")["state"], "parked");
    rig.post("/v1/models/prod/wake", "").expect(200);
    assert_eq!(rig.model("prod")["shards"], 2);
    rig.post("/v1/models/prod/free", "").expect(200);
    assert!(rig.model("prod")["manifest"].is_null());
    rig.post("/v1/models/prod/load", "").expect(200);

    // Who lied was told, with the segment.
    let told = read_until(&mut events, "event: source_lied");
    let told = told + &read_until(&mut events, "was altered");
    assert!(told.contains("/mirror\"") && told.contains("\"model\":\"prod\""), "{told}");

    // What no source gives is not repaired, and the refusal names source and segment.
    flip_on_device(&rig, FILES[0]);
    assert_eq!(rig.post("/v1/models/prod/verify", "").json()["sound"], false);
    for image in images(&rig.path("store")) {
        flip_last(&image);
    }
    // The same segment: the last one of the file.
    let refused = rig.post("/v1/models/prod/repair", "").expect_problem(502, "source-lied");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("/store: image") && message.contains("segment"), "{message}");
    rig.post("/v1/leases", "{\"model\":\"prod\"}").expect_problem(409, "quarantined");
}

/// A restart has the images from its cache, verified, also where the store has nothing more, for the same pin.
#[test]
fn a_restart_comes_back_from_the_cache_under_the_same_pin() {
    let (folder, [pin, _]) = pushed();
    let cached = "[cache]\nfolder = \"cache\"\nlimit = \"64MiB\"\n";
    let lines = model("prod", &format!("manifest = \"{pin}\"\n{cached}"));
    let rig = Rig::in_folder(folder, &lines);
    rig.wait_ready();
    assert_eq!(images(&rig.path("cache")).len(), 2, "kept by the same pass");
    rig.stopper.drain();
    let folder = rig.give_folder();
    // The store is gone; a mount that has nothing is one too. A check finds what a start finds.
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    let text = format!("{lines}[[device]]\ndevice = \"host:16MiB\"\n");
    let check = checked(&Config::parse(&text, "vram.toml", folder.path()).unwrap());
    assert!(check.usable, "{check:?}");
    let rig = Rig::in_folder(folder, &lines);
    rig.wait_ready();
    assert_eq!(rig.model("prod")["manifest"], pin.as_str());
    rig.stopper.drain();
    let folder = rig.give_folder();
    fs::create_dir(folder.path().join("store")).unwrap();

    let rig = Rig::in_folder(folder, &lines);
    rig.wait_ready();
    assert_eq!(rig.model("prod")["manifest"], pin.as_str());
    assert_eq!(rig.post("/v1/models/prod/verify", "{\"level\":\"full\"}").json()["sound"], true);
    rig.stopper.drain();
    let folder = rig.give_folder();

    // A cache that was altered is believed no more than any other source.
    for image in images(&folder.path().join("cache")) {
        flip_last(&image);
    }
    let rig = Rig::in_folder(folder, &lines);
    wait(|| !rig.model("prod")["failure"].is_null());
    let view = rig.model("prod");
    assert_eq!(
        (&view["state"], &view["failure"]["code"]),
        (&"absent".into(), &"source-lied".into())
    );
    let message = view["failure"]["message"].as_str().unwrap();
    assert!(message.contains("/cache: image") && message.contains("segment"), "{message}");
}

/// Whatever is wrong with a store is the failure of its model alone, with the reason; nothing is resident.
#[test]
fn a_store_that_does_not_have_what_is_pinned_is_refused_and_the_others_serve() {
    let (folder, [_, other]) = pushed();
    let lines = model("wrong", &format!("manifest = \"{other}\""));
    let lines = lines
        + "[[model]]\nname = \"unpinned\"\nstore = \"store\"\nimage = \"llama@2\"\ncontext = \"tenant\"\n"
        + "[[model]]\nname = \"tenant\"\nstore = \"store\"\nimage = \"llama@2\"\n"
        + "[[model]]\nname = \"absent\"\nstore = \"store\"\nimage = \"llama@3\"\n"
        + "[[model]]\nname = \"nowhere\"\nstore = \"no-store\"\nimage = \"llama@1\"\n"
        + "[[model]]\nname = \"late\"\nstore = \"store\"\nimage = \"llama@1\"\ndeadline = \"100ms\"\n"
        + &failing_mirrors(folder.path())
        + "\n"
        + "[[model]]\nname = \"c\"\npath = \"c.safetensors\"\n";
    let rig = Rig::in_folder(folder, &lines);
    wait(|| rig.model("c")["state"] == "resident");
    for (name, code) in [
        ("wrong", "not-found"),
        ("tenant", "context-mismatch"),
        ("absent", "not-found"),
        ("nowhere", "store"),
        ("late", "store-deadline"),
    ] {
        wait(|| !rig.model(name)["failure"].is_null());
        let view = rig.model(name);
        assert_eq!(view["state"], "absent", "{view}");
        let found = view["failure"]["code"].as_str().unwrap();
        assert!(found == code, "{name}: {view}");
        assert!(!view["failure"]["next"].as_str().unwrap().is_empty());
        if name == "nowhere" {
            // A share that is not mounted may be soon.
            let failure = &view["failure"];
            assert_eq!(failure["retryable"], true, "{failure}");
            let message = failure["message"].as_str().unwrap();
            assert!(message.contains("the folder of the store is not there"), "{failure}");
        }
    }
    wait(|| rig.model("unpinned")["state"] == "resident");
    rig.get("/readyz?model=unpinned").expect(200);
    // What a configuration takes from a store is loaded from files where the call says so.
    let body = serde_json::json!({"path": rig.path(FILES[0])});
    let view = rig.post("/v1/models/nowhere/load", &body.to_string()).expect(200).json();
    assert_eq!((&view["state"], &view["manifest"]), (&"resident".into(), &().into()));
}

/// Mirrors that fail again and again stand for a source that hangs.
#[test]
fn a_source_that_is_slow_holds_up_no_model_of_other_sources() {
    let (folder, [pin, _]) = pushed();
    let lines = busy(folder.path(), &pin)
        + "[[model]]\nname = \"other\"\nstore = \"store\"\nimage = \"llama@2\"\ncontext = \"tenant\"\n"
        + "[[model]]\nname = \"c\"\npath = \"c.safetensors\"\n";
    let rig = Rig::in_folder(folder, &lines);
    wait(|| rig.model("c")["state"] == "resident" && rig.model("other")["state"] == "resident");
    assert_ne!(rig.model("prod")["state"], "resident", "it is not slow");
}

/// A configuration whose load is busy for long with mirrors that fail, each of which is asked several times.
fn busy(folder: &Path, pin: &str) -> String {
    model("prod", &format!("manifest = \"{pin}\"\n{}", failing_mirrors(folder)))
}

/// Mirrors that fail again and again.
fn failing_mirrors(folder: &Path) -> String {
    copy(&folder.join("store"), &folder.join("mirror"));
    for image in images(&folder.join("mirror")) {
        fs::remove_file(&image).unwrap();
        std::os::unix::fs::symlink(&image, &image).unwrap();
    }
    format!("mirrors = [{}]", ["\"mirror\""; 200].join(", "))
}

/// A source that does not answer ends with the server: nothing waits for it.
#[test]
fn a_server_that_ends_does_not_wait_for_a_store_that_fails_for_long() {
    let (folder, [pin, _]) = pushed();
    let lines = busy(folder.path(), &pin);
    let rig = Rig::in_folder(folder, &lines);
    wait(|| rig.model("prod")["state"] == "loading");
    let loading = &rig.model("prod")["loading"];
    assert_eq!(loading["done_bytes"], 0, "{loading}");
    let began = Instant::now();
    rig.stopper.drain();
    assert!(rig.ended().complete);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// `vram stop`: what is under way is ended, and nothing of it stays.
#[test]
fn a_load_that_is_under_way_is_ended_by_a_free() {
    let (folder, [pin, _]) = pushed();
    let lines = busy(folder.path(), &pin);
    let rig = Rig::in_folder(folder, &lines);
    wait(|| rig.model("prod")["state"] == "loading");
    let began = Instant::now();
    let freed = rig.post("/v1/models/prod/free", "").expect(200).json();
    assert_eq!(freed["shards"], 0, "{freed}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let view = rig.model("prod");
    assert_eq!((&view["state"], &view["failure"]["code"]), (&"absent".into(), &"cancelled".into()));
}

/// A pipe in the place of an image is no source: nothing waits for it, and the failure says what it is.
#[test]
fn a_pipe_in_a_store_is_refused_at_once() {
    let (folder, [pin, _]) = pushed();
    for image in images(&folder.path().join("store")) {
        fs::remove_file(&image).unwrap();
        let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &image, fifo, mode, 0).unwrap();
    }
    let rig = Rig::in_folder(folder, &model("prod", &format!("manifest = \"{pin}\"")));
    wait(|| !rig.model("prod")["failure"].is_null());
    let failure = rig.model("prod")["failure"].clone();
    assert_eq!(failure["code"], "no-source", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("it is a pipe"), "{failure}");
}

/// What a load would find only after it began, a check finds before.
#[test]
fn a_check_compares_contexts_and_looks_at_the_cache() {
    let (folder, _) = pushed();
    let check = |lines: &str| {
        let text = format!("{lines}[[device]]\ndevice = \"host:16MiB\"\n");
        checked(&Config::parse(&text, "vram.toml", folder.path()).unwrap())
    };
    let other = model("prod", "").replace("\"tenant\"", "\"another\"");
    let refused = check(&other);
    assert_eq!(refused.models[0].problem.as_ref().unwrap().code, "context-mismatch");
    fs::write(folder.path().join("file"), b"").unwrap();
    let cached = |at: &str| model("prod", &format!("[cache]\nfolder = \"{at}\"\nlimit = \"1MiB\""));
    let refused = check(&cached("file/cache"));
    assert!(!refused.usable && refused.problems[0].contains("file/cache"), "{refused:?}");
    let refused = check(&cached("store/cache"));
    let problem = refused.models[0].problem.clone().unwrap();
    assert!(problem.message.contains("a folder of its own"), "{problem:?}");
    assert!(!folder.path().join("store/cache").exists());
    fs::create_dir(folder.path().join("other")).unwrap();
    fs::write(folder.path().join("other/file"), b"").unwrap();
    for at in ["/proc/x", "", "other"] {
        let refused = check(&cached(at));
        assert!(!refused.usable && refused.problems.len() == 1, "{at}: {refused:?}");
    }
    let never = model("prod", "deadline = \"0s\"\n[[device]]\ndevice = \"host:16MiB\"");
    let refused = Config::parse(&never, "vram.toml", folder.path()).unwrap_err().to_string();
    assert!(refused.contains("deadline"), "{refused}");
}

#[test]
fn a_check_reads_the_manifest_and_names_what_is_wrong_with_a_store() {
    let (folder, [pin, other]) = pushed();
    let check = |lines: &str| {
        let text = format!("{lines}[[device]]\ndevice = \"host:16MiB\"\n");
        let config = Config::parse(&text, "vram.toml", folder.path()).unwrap();
        checked(&config)
    };
    let cached = "[cache]\nfolder = \"cache\"\nlimit = \"1MiB\"\n";
    let good = check(&model("prod", &format!("manifest = \"{pin}\"\n{cached}")));
    assert!(good.usable, "{good:?}");
    assert_eq!(good.models[0].pieces, 2);
    assert!(!folder.path().join("cache").exists(), "a check makes nothing");
    let code = |check: Check| {
        assert!(!check.usable);
        check.models[0].problem.clone().unwrap().code
    };
    assert_eq!(code(check(&model("prod", &format!("manifest = \"{other}\"")))), "not-found");
    let elsewhere = model("prod", "").replace("\"store\"", "\"no-store\"");
    assert_eq!(code(check(&elsewhere)), "store");
    let secret = model("prod", "").replace("\"store\"", "\"s3://user:hunter2@bucket/x\"");
    let refused = check(&secret);
    assert!(!format!("{refused:?}{refused}").contains("hunter2"), "{refused:?}");
    assert_eq!(code(refused), "store-address");
    fs::remove_file(folder.path().join("node.key")).unwrap();
    let keyless = check(&model("prod", ""));
    assert_eq!((keyless.problems.len(), &*code(keyless)), (1, "key-source"));
}
