//! Stores, as a user has them: pushed, loaded, tampered with, killed.

use std::fs;
use std::path::PathBuf;

use crate::support::{Bench, flip, mode};

const PUSH: &str = "push one two --model-id m --revision 1 --store store --key-file key";
const PULL: &str = "pull m@1 --store store --key-file key -o out";

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ')
}

/// A key and two files, of which the first has several segments.
fn bench(len: usize) -> Bench {
    let bench = Bench::new();
    bench.key("key");
    let content = |salt: usize| -> Vec<u8> {
        (0..len).map(|at| (131 * at + 17 * (at >> 8) + salt).to_le_bytes()[0]).collect()
    };
    bench.write("one", content(1));
    bench.write("two", content(2));
    bench
}

/// All objects of a store, sorted.
fn objects(bench: &Bench, store: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![bench.path(store)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn images(bench: &Bench, store: &str) -> Vec<PathBuf> {
    let image = |path: &PathBuf| path.extension().is_some_and(|it| it == "vseal");
    objects(bench, store).into_iter().filter(image).collect()
}

fn manifest_of(shown: &str) -> String {
    let line = shown.lines().find(|line| line.starts_with("manifest ")).unwrap();
    line.split(' ').nth(1).unwrap().trim_end_matches(',').to_owned()
}

#[test]
fn a_model_is_pushed_pulled_and_loaded() {
    let bench = bench(600_000);
    let pushed = bench.run(words(PUSH)).expect_code(0);
    let manifest = manifest_of(&pushed.stdout);
    assert!(pushed.stdout.contains("2 images sent"), "{}", pushed.stdout);
    let again = bench.run(words(PUSH)).expect_code(0);
    assert!(again.stdout.contains("0 images sent"), "{}", again.stdout);
    assert_eq!(manifest_of(&again.stdout), manifest);

    let listed = bench.run(["store", "ls", "store"]).expect_code(0).stdout;
    assert!(listed.contains(&manifest), "{listed}");
    let pinned = format!("{PULL} --manifest {manifest}");
    let pulled = bench.run(words(&pinned)).expect_code(0).stdout;
    assert!(pulled.contains("by its pin and under the key"), "{pulled}");
    // What was pulled is what `vram unseal` opens.
    let line = "unseal out/00001.vseal --key-file key --model-id m --shard-index 1 -o back";
    bench.run(words(line)).expect_code(0);
    assert_eq!(fs::read(bench.path("back")).unwrap(), fs::read(bench.path("two")).unwrap());
    let keyless = format!("pull m@1 --store store --keyless --manifest {manifest} -o copies");
    bench.run(words(&keyless)).expect_code(0);
    assert_eq!(
        fs::read(bench.path("copies/00000.vseal")).unwrap(),
        fs::read(bench.path("out/00000.vseal")).unwrap()
    );

    let load = "load m@1 --store store --key-file key --device host:2MiB --cache cache";
    let loaded = bench.run(words(load)).expect_code(0).stdout;
    assert!(loaded.contains("verified on its way"), "{loaded}");
    assert_eq!(images(&bench, "cache").len(), 2, "cached by the same pass");
    for image in images(&bench, "store") {
        fs::remove_file(image).unwrap();
    }
    bench.run(words(load)).expect_code(0);
    let one = format!("{load} --rank 1");
    bench.run(words(&one)).expect_error(2, &["the model has 1 rank"]);
}

/// Show 5: a machine without the key finds a flipped bit and names the part.
#[test]
fn a_flipped_bit_in_a_store_is_found_named_and_served_around() {
    let bench = bench(600_000);
    bench.run(words(PUSH)).expect_code(0);
    let mirror = PUSH.replace("--store store", "--store mirror");
    bench.run(words(&mirror)).expect_code(0);
    let image = images(&bench, "store").remove(0);
    let len = fs::read(&image).unwrap().len();
    flip(&image, len - 1);

    let keyless = bench.run(["store", "verify", "store", "--keyless"]).expect_code(1);
    let name = image.file_name().unwrap().to_str().unwrap();
    let found = keyless.stdout.lines().find(|line| line.starts_with("WRONG")).unwrap();
    assert!(found.contains(name) && found.contains("part 0 was altered"), "{found}");
    let keyed = bench.run(words("store verify store --key-file key")).expect_code(1);
    let found = keyed.stdout.lines().find(|line| line.starts_with("WRONG")).unwrap();
    assert!(found.contains(name) && found.contains("segment 2 was altered"), "{found}");

    let load = "load m@1 --store store --key-file key --device host:2MiB";
    bench.run(words(load)).expect_error(1, &["store: image", "segment 2 was altered"]);
    bench.run(words(PULL)).expect_error(1, &["store: image", "segment 2 was altered"]);
    // The liar first, the good one after it.
    for line in [load, PULL] {
        let line = line.replace("--store store", "--store mirror --mirror store");
        let ran = bench.run(words(&line)).expect_code(0);
        assert!(ran.stderr.contains("a source lied, and is left out: store"), "{}", ran.stderr);
    }
}

#[test]
fn what_is_not_there_is_passed_over_and_what_was_not_looked_at_is_not_sound() {
    let bench = bench(600_000);
    let pin = manifest_of(&bench.run(words(PUSH)).expect_code(0).stdout);
    let load = "load m@1 --store store --key-file key --device host:8MiB";
    bench.run(words(&format!("{load} --mirror nowhere --cache cache"))).expect_code(0);
    fs::rename(bench.path("store"), bench.path("gone")).unwrap();
    let pinned = format!("{load} --cache cache --manifest {pin}");
    bench.run(words(&pinned)).expect_code(0);
    bench.run(words(load)).expect_error(2, &["store"]);
    fs::rename(bench.path("gone"), bench.path("store")).unwrap();

    let digest = format!("{load} --expect-digest blake3:{}", "0".repeat(64));
    bench.run(words(&digest)).expect_error(2, &["--expect-digest has no meaning with --store"]);
    for option in ["--mode authenticated", "--limit header=1KB"] {
        bench.run(words(&format!("{load} {option}"))).expect_error(2, &["has no meaning"]);
    }

    bench.key("other");
    let verify = "store verify store";
    for means in ["--key-file other", "--key-file key --model-id typo", "--keyless --model-id typo"]
    {
        let ran = bench.run(words(&format!("{verify} {means}"))).expect_code(2);
        assert!(ran.stderr.contains("nothing was verified"), "{}", ran.stderr);
        assert!(!ran.stdout.contains("sound"), "{}", ran.stdout);
    }
    let sampled = bench.run(words(&format!("{verify} --keyless --sample 1"))).expect_code(0);
    assert!(sampled.stdout.contains("sound in a sample of 1 %"), "{}", sampled.stdout);
    let keyed = bench.run(words(&format!("{verify} --key-file key --sample 1"))).expect_code(0);
    assert!(keyed.stdout.contains("sound in a sample of 1 %"), "{}", keyed.stdout);
}

/// What has no manifest is not sound, and what the next push finds wrong it replaces.
#[test]
fn nothing_is_not_sound_and_a_push_replaces_what_is_wrong() {
    let bench = bench(5000);
    fs::create_dir(bench.path("empty")).unwrap();
    let nothing = |line: &str, expected: &str| {
        let ran = bench.run(words(line));
        assert!(!ran.stdout.lines().any(|line| line.starts_with("sound")), "{}", ran.stdout);
        let said = ran.expect_code(2).stderr;
        assert!(said.contains("nothing was verified") && said.contains(expected), "{said}");
        let ran = bench.run(words(&format!("{line} --json")));
        let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(told["sound"], false, "{told}");
        assert_eq!(told["error"]["code"], "nothing-verified", "{told}");
    };
    for means in ["--keyless", "--key-file key"] {
        nothing(&format!("store verify empty {means}"), "has no manifest");
    }
    bench.run(words(PUSH)).expect_code(0);
    let image = images(&bench, "store").remove(0);
    flip(&image, 4000);
    let found = bench.run(words("store verify store --keyless")).expect_code(1);
    assert!(found.stderr.contains("push the model again"), "{}", found.stderr);
    let again = bench.run(words(PUSH)).expect_code(0);
    assert!(again.stdout.contains("0 images sent"), "{}", again.stdout);
    assert!(again.stdout.contains("1 image mended, 1 there already"), "{}", again.stdout);
    bench.run(words("store verify store --keyless")).expect_code(0);
    fs::remove_dir_all(bench.path("store/v1/models")).unwrap();
    nothing("store verify store --keyless", "has 2 images and no manifest");
}

/// A limit on files is an error with words, and not the end of the process by a signal.
#[test]
fn a_file_that_may_not_grow_is_told() {
    let bench = bench(2_000_000);
    let limited = |line: &str| {
        let mut shell = std::process::Command::new("sh");
        let vram = env!("CARGO_BIN_EXE_vram");
        shell.args(["-c", &format!("ulimit -f 512; exec '{vram}' {line}")]);
        let ran = shell.current_dir(bench.path(".")).output().unwrap();
        crate::support::Ran::of(ran).expect_error(3, &["too large", "ulimit -f"]);
    };
    let mut shell = std::process::Command::new("sh");
    let check = format!("ulimit -f 0; exec '{}' store check store", env!("CARGO_BIN_EXE_vram"));
    let ran = shell.args(["-c", &check]).current_dir(bench.path(".")).output().unwrap();
    crate::support::Ran::of(ran).expect_error(3, &["too large"]);
    limited(PUSH);
    bench.run(words(PUSH)).expect_code(0);
    limited(PULL);
    assert!(!bench.path("out/00000.vseal").exists());
}

/// The only manifest of a store.
fn manifest_file(bench: &Bench, store: &str) -> PathBuf {
    let manifest = |path: &PathBuf| path.extension().is_some_and(|it| it == "manifest");
    objects(bench, store).into_iter().find(manifest).unwrap()
}

#[test]
fn a_wrong_manifest_is_named_mended_or_said_to_stay() {
    let bench = bench(5000);
    let pin = manifest_of(&bench.run(words(PUSH)).expect_code(0).stdout);
    let mirror = PUSH.replace("--store store", "--store mirror");
    bench.run(words(&mirror)).expect_code(0);
    fs::remove_dir_all(bench.path("mirror/v1/models")).unwrap();
    let file = manifest_file(&bench, "store");
    let copy = bench.path("mirror").join(file.strip_prefix(bench.path("store")).unwrap());
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, b"{}").unwrap();
    // At a mirror: passed over, and named in words and as data.
    let pinned = format!("{PULL} --mirror mirror --manifest {pin} --json");
    let pulled = bench.run(words(&pinned)).expect_code(0);
    assert!(
        pulled.stderr.contains(&format!("mirror: manifest {pin} is wrong")),
        "{}",
        pulled.stderr
    );
    let told: serde_json::Value = serde_json::from_str(&pulled.stdout).unwrap();
    assert_eq!(told["wrong_manifests"][0]["source"], "mirror", "{told}");

    // In the store: listed with the others, mended by the next push.
    let other = PUSH.replace("--revision 1", "--revision 2");
    bench.run(words(&other)).expect_code(0);
    let len = fs::read(&file).unwrap().len();
    flip(&file, len / 2);
    let listed = bench.run(["store", "ls", "store"]).expect_code(1);
    assert!(listed.stdout.contains("WRONG v1/models/"), "{}", listed.stdout);
    assert!(listed.stdout.contains(" 2 "), "{}", listed.stdout);
    let again = bench.run(words(PUSH)).expect_code(0).stdout;
    assert!(again.contains(&format!("manifest {pin} of this revision was wrong")), "{again}");
    bench.run(words("store verify store --key-file key")).expect_code(0);

    fs::write(&file, b"{}").unwrap();
    // A push in the same second would make the same manifest.
    std::thread::sleep(core::time::Duration::from_millis(1100));
    let stays = bench.run(words(PUSH)).expect_code(0).stdout;
    assert!(stays.contains("delete this object") && stays.contains("WRONG v1/models/"), "{stays}");
    bench.run(words("store verify store --keyless")).expect_code(1);
}

#[test]
fn a_pull_leaves_files_of_others_and_a_cache_is_no_store() {
    let bench = bench(5000);
    bench.run(words(PUSH)).expect_code(0);
    fs::create_dir(bench.path("out")).unwrap();
    let taken = bench.write("out/00001.vseal", b"of another model");
    bench.run(words(PULL)).expect_error(2, &["out/00001.vseal is there", "move it away"]);
    assert_eq!(fs::read(&taken).unwrap(), b"of another model");
    assert!(!bench.path("out/00000.vseal").exists(), "nothing was fetched");

    let load =
        "load m@1 --store store --key-file key --device host:2MiB --cache-limit 1KiB --cache";
    std::os::unix::fs::symlink("store", bench.path("link")).unwrap();
    for cache in ["store", "link", "store/v1/cache"] {
        let line = format!("{load} {cache}");
        bench.run(words(&line)).expect_error(2, &["a folder of its own"]);
    }
    assert_eq!(images(&bench, "store").len(), 2);
    // Nor is a store that the command does not name.
    let mirror = PUSH.replace("--store store", "--store other");
    bench.run(words(&mirror)).expect_code(0);
    bench.run(words(&format!("{load} other"))).expect_error(2, &["other is no cache", "it has v1"]);
    assert_eq!(images(&bench, "other").len(), 2);
}

/// With a key and without one, and with no store at all where the manifest is pinned.
#[test]
fn what_is_in_the_cache_needs_no_store() {
    let bench = bench(5000);
    let pin = manifest_of(&bench.run(words(PUSH)).expect_code(0).stdout);
    let pull = |more: &str| format!("pull m@1 --store store --cache cache {more}");
    bench.run(words(&pull("--key-file key"))).expect_code(0);
    bench.run(words(&PUSH.replace("--store store", "--store cache"))).expect_error(2, &["cache"]);
    for image in images(&bench, "store") {
        fs::remove_file(image).unwrap();
    }
    bench.run(words(&pull("--key-file key"))).expect_code(0);
    fs::rename(bench.path("store"), bench.path("gone")).unwrap();
    for means in ["--key-file key", "--keyless"] {
        let pulled = bench.run(words(&pull(&format!("{means} --manifest {pin}")))).expect_code(0);
        assert!(pulled.stdout.contains("every byte verified"), "{}", pulled.stdout);
    }
    let verified = bench.run(words("store verify cache --keyless")).expect_code(0).stdout;
    assert!(verified.contains("sound"), "{verified}");
    let cached = images(&bench, "cache").remove(0);
    let good = fs::read(&cached).unwrap();
    flip(&cached, 4000);
    let wrong = bench.run(words("store verify cache --keyless")).expect_code(1).stderr;
    assert!(wrong.contains("the next command with this cache"), "{wrong}");
    fs::write(&cached, good).unwrap();
    let refused = bench.run(words(&pull("--key-file key"))).expect_code(2);
    assert!(refused.stderr.contains("the folder of the store is not there"), "{}", refused.stderr);
    for (wrong, said) in
        [("m@07", "m@07"), ("m@+1", "m@+1"), ("m@1 --store foo://x", "no store has the scheme foo")]
    {
        let line = format!("pull {wrong} --key-file key -o out");
        let line = if wrong.contains("--store") { line } else { format!("{line} --store gone") };
        let ran = bench.run(words(&line)).expect_code(2);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
}

/// Whatever the process allows, no other user writes there.
#[test]
fn folders_of_stores_and_caches_are_writable_by_their_owner_alone() {
    let bench = bench(5000);
    let vram = env!("CARGO_BIN_EXE_vram");
    let load = "load m@1 --store store --key-file key --device host:2MiB --cache cache";
    for line in [PUSH, PULL, load] {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("umask 0; exec '{vram}' {line}")]);
        let ran = shell.current_dir(bench.path(".")).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }
    for (folder, expected) in [
        ("store", 0o755),
        ("store/v1", 0o755),
        ("store/v1/images", 0o755),
        ("out", 0o755),
        ("cache", 0o700),
        ("cache/v1/images", 0o700),
    ] {
        assert_eq!(mode(&bench.path(folder)) & 0o777, expected, "{folder}");
    }
}

/// Neither a folder in place of a bucket, nor a folder that is no store.
#[test]
fn what_is_no_store_is_refused_and_no_folder_is_made_of_a_mistyped_address() {
    let bench = bench(1000);
    for wrong in ["s3:/bucket/x", "gs:bucket", "https//u:hunter2@h", "file:rel", "~/st"] {
        let line = PUSH.replace("--store store", &format!("--store {wrong}"));
        let said = bench.run(words(&line)).expect_code(2).stderr;
        assert!(said.contains("./") && !said.contains("hunter2"), "{said}");
    }
    assert!(bench.names().iter().all(|name| !name.contains([':', '~'])), "{:?}", bench.names());
    fs::create_dir(bench.path("other")).unwrap();
    for line in ["store ls other", "store gc other --delete"] {
        bench.run(words(line)).expect_error(2, &["other is no store", "check the address"]);
    }
    bench.run(words(PUSH)).expect_code(0);
    for line in [
        "store verify store --keyless --context x",
        "pull m@1 --store store --keyless --manifest x --context x -o out",
    ] {
        let line = line.replace("--manifest x", &format!("--manifest {}", "0".repeat(64)));
        let said = bench.run(words(&line)).expect_code(2).stderr;
        assert!(said.contains("cannot be used with"), "{said}");
    }
}

/// A push says that it waits, and a collection says what it left and removed.
#[test]
fn a_left_mark_and_what_lies_behind_a_link_are_told() {
    let bench = bench(5000);
    bench.run(words(PUSH)).expect_code(0);
    fs::create_dir(bench.path("store/v1/collecting")).unwrap();
    let mark = bench.write("store/v1/collecting/0123456789abcdef", b"collecting");
    bench.write("store/v1/collecting/notes.txt", b"important");
    let mut child = bench.command(words(PUSH));
    let mut child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
    assert!(said.contains("waits for a collection") && said.contains("0123456789abcdef"), "{said}");
    fs::remove_file(&mark).unwrap();
    assert!(child.wait().unwrap().success());
    fs::write(&mark, b"collecting").unwrap();
    let told = bench.run(words("store gc store")).expect_code(0).stdout;
    assert!(told.contains("that deletes or was killed"), "{told}");
    assert!(told.contains("no mark has such a key: v1/collecting/notes.txt"), "{told}");
    let old = std::time::SystemTime::now() - core::time::Duration::from_hours(1);
    fs::File::options().append(true).open(&mark).unwrap().set_modified(old).unwrap();
    let told = bench.run(words("store gc store --delete --json")).expect_code(0);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["dead_marks"][0], "v1/collecting/0123456789abcdef", "{told}");
    assert!(!mark.exists() && bench.path("store/v1/collecting/notes.txt").exists());
}

#[test]
fn no_credential_is_shown() {
    let bench = bench(1000);
    for store in [
        "https://user:hunter2@host/x",
        "s3://bucket/x?sig=hunter2",
        "s3://bucket/x",
        "https//user:hunter2@host",
        "http:/user:hunter2@host/x?sig=hunter2",
    ] {
        for line in ["store ls", "store check", "store verify --keyless", "store gc --json"] {
            let mut command = bench.command(words(line).chain([store]));
            command.env("AWS_SECRET_ACCESS_KEY", "hunter2").env("RUST_LOG", "debug");
            let output = command.output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(!String::from_utf8_lossy(&said).contains("hunter2"), "{line} {store}");
            assert_eq!(output.status.code(), Some(2));
        }
    }
}

/// Kills a command at so many moments, spread over the time that it takes whole. Returns how often it
/// was killed before its end.
fn killed(bench: &Bench, line: &str, times: u32, mut after: impl FnMut()) -> u32 {
    let began = std::time::Instant::now();
    bench.run(words(line)).expect_code(0);
    let whole = began.elapsed();
    after();
    let mut killed = 0;
    for turn in 0..times {
        let mut child = bench.command(words(line)).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(turn) / f64::from(times)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        killed += u32::from(!status.success());
        after();
    }
    killed
}

fn times() -> u32 {
    std::env::var("VRAM_STORE_KILLS").map_or(4, |times| times.parse().unwrap())
}

/// Show 3: never a manifest without its images.
#[test]
fn a_push_that_is_killed_at_any_moment_names_nothing_that_is_not_whole() {
    let bench = bench(2_000_000);
    let mut named = 0;
    let killed = killed(&bench, PUSH, times(), || {
        if bench.path("store").is_dir() {
            let verdict = bench.run(words("store verify store --key-file key"));
            let whole = verdict.stdout.contains("1 manifest,");
            let verdict = verdict.expect_code(if whole { 0 } else { 2 });
            assert!(whole || verdict.stderr.contains("nothing was verified"), "{}", verdict.stderr);
            named += u32::from(whole);
            let left: Vec<_> = objects(&bench, "store")
                .into_iter()
                .filter(|path| path.to_str().is_some_and(|path| path.contains(".partial")))
                .collect();
            assert!(left.is_empty(), "{left:?}");
            fs::remove_dir_all(bench.path("store")).unwrap();
        }
    });
    assert!(killed > 0 && named > 0, "{killed} of {} killed, {named} named", times());
    bench.run(words(PUSH)).expect_code(0);
}

/// A killed pull leaves no image that is not whole, and the next one goes on.
#[test]
fn a_pull_that_is_killed_at_any_moment_leaves_nothing_under_the_name_of_an_image() {
    let bench = bench(2_000_000);
    bench.run(words(PUSH)).expect_code(0);
    let good: Vec<_> = {
        bench.run(words(PULL)).expect_code(0);
        let read = |name| fs::read(bench.path("out").join(name)).unwrap();
        ["00000.vseal", "00001.vseal"].map(read).to_vec()
    };
    fs::remove_dir_all(bench.path("out")).unwrap();
    let mut turn = 0;
    let killed = killed(&bench, PULL, times(), || {
        for (name, good) in ["00000.vseal", "00001.vseal"].iter().zip(&good) {
            if let Ok(there) = fs::read(bench.path("out").join(name)) {
                assert!(there == *good, "{name} is not whole");
            }
        }
        turn += 1;
        // What is there stays for two turns, so that calls go on where killed ones were.
        if turn % 2 == 0 {
            let _absent = fs::remove_dir_all(bench.path("out"));
        }
    });
    assert!(killed > 0, "none of {} was killed", times());
    bench.run(words(PULL)).expect_code(0);
    assert_eq!(fs::read(bench.path("out/00001.vseal")).unwrap(), good[1]);
}

#[test]
fn the_demonstration_tells_every_step_in_a_table() {
    let bench = Bench::new();
    let mut command = bench.command(["store", "demo", "--size", "4MiB"]);
    let output = command.env("TMPDIR", bench.path(".")).output().unwrap();
    let shown = crate::support::Ran::of(output).expect_code(0).stdout;
    for step in [
        "2 images sealed, sent and read back",
        "nothing is sent",
        "one bit flipped",
        "refused: segment ",
        "verify, without a key",
        "the store lied (segment ",
        "1 image sent: what was missing",
    ] {
        assert!(shown.contains(step), "{step}: {shown}");
    }
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}

/// Names in a store are of anybody: in JSON they mean themselves, and no terminal acts on them.
#[test]
fn a_name_in_a_store_is_no_order_to_a_terminal() {
    let bench = bench(1000);
    bench.run(words(PUSH)).expect_code(0);
    let name = "a\u{202e}b\u{9b}2J\u{7f}";
    fs::write(bench.path("store/v1/images").join(name), b"").unwrap();
    let json = bench.run(["store", "gc", "store", "--json"]).expect_code(0).stdout;
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found["strange"][0], format!("v1/images/{name}"));
    let text = bench.run(["store", "gc", "store"]).expect_code(0).stdout;
    for shown in [json, text] {
        assert!(!shown.contains(['\u{202e}', '\u{9b}', '\u{7f}']), "{shown:?}");
        assert!(shown.contains("v1/images/a\\u"), "{shown:?}");
    }
}

#[test]
fn a_link_to_a_folder_of_manifests_is_named_once() {
    let bench = bench(1000);
    bench.run(words(PUSH)).expect_code(0);
    fs::rename(bench.path("store/v1/models"), bench.path("models")).unwrap();
    std::os::unix::fs::symlink(bench.path("models"), bench.path("store/v1/models")).unwrap();
    for line in ["store ls store", "store verify store --keyless", "store gc store --delete"] {
        let ran = bench.run(words(line)).expect_code(0);
        let named = ran.stderr.matches("v1/models is a link to a folder").count();
        assert_eq!(named, 1, "{line}: {}", ran.stderr);
    }
}

#[test]
fn an_output_is_no_address() {
    let bench = bench(1000);
    bench.run(words(PUSH)).expect_code(0);
    for line in [
        "pull m@1 --store store --key-file key -o s3://bucket/x",
        "seal one --key-file key --model-id m -o https://host/x",
        "unseal one --key-file key --any-model -o file:///x",
        "keygen -o gs://bucket/key",
        "view one -o s3://bucket/page",
        "man --out s3://bucket/man",
        "demo --snapshot s3://bucket/x",
    ] {
        let refused = bench.run(words(line)).expect_code(2).stderr;
        assert!(
            refused.contains("it is an address") && refused.contains("give a path"),
            "{refused}"
        );
    }
    for made in ["s3:", "https:", "file:", "gs:"] {
        assert!(!bench.path(made).exists(), "{made}");
    }
}
