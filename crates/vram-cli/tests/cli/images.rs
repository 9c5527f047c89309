//! `vram keygen`, `seal`, `unseal`, `verify` and `inspect`, used as a user uses them.

use std::fs;

use crate::support::{Bench, blake3, flip, mode, set_mode};

/// Bytes without two equal segments.
fn content(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(len).collect()
}

/// Offset of the data in an image.
fn data_offset(bench: &Bench, image: &str) -> usize {
    let info = inspect(bench, image);
    let number = |name: &str| usize::try_from(info[name].as_u64().unwrap()).unwrap();
    number("image_len") - number("content_len")
}

pub(crate) fn inspect(bench: &Bench, image: &str) -> serde_json::Value {
    let ran = bench.run(["inspect", image, "--json"]).expect_code(0);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn what_is_sealed_is_unsealed_in_every_mode_scope_suite_and_size() {
    let bench = Bench::new();
    let choices: [&[&str]; 7] = [
        &[],
        &["--mode", "encrypted", "--scope", "shard", "--suite", "aes-256-gcm"],
        &["--scope", "shard", "--suite", "chacha20-poly1305"],
        &["--scope", "segment", "--suite", "aes-256-gcm", "--segment", "4096"],
        &["--scope", "segment", "--suite", "chacha20-poly1305", "--segment", "1MiB"],
        &["--mode", "authenticated"],
        &["--mode", "authenticated", "--segment", "4KiB"],
    ];
    for len in [0, 1, 4095, 4096, 4097, 262_144, 600_001] {
        let plain = content(len);
        for choice in choices {
            bench.sealed(&plain, "image", choice);
            let opened = ["image", "--key-file", "key", "--model-id", "m"];
            let mode = choice.contains(&"authenticated");
            let mode = if mode { &["--mode", "authenticated"][..] } else { &[] };
            let unseal = [&["unseal", "-o", "back"], &opened[..], mode].concat();
            let ran = bench.run(unseal).expect_code(0);
            assert_eq!(ran.stdout, format!("{}  back\n", blake3(&plain)));
            assert_eq!(fs::read(bench.path("back")).unwrap(), plain, "{len} {choice:?}");
            let ran = bench.run([&["verify"], &opened[..], mode].concat()).expect_code(0);
            assert!(ran.stdout.contains("sound"), "{}", ran.stdout);
            assert!(ran.stdout.contains(&blake3(&plain).to_string()), "{}", ran.stdout);
        }
    }
    assert_eq!(bench.names(), ["back", "content", "image", "key"]);
}

#[test]
fn the_digest_printed_is_the_one_that_b3sum_prints() {
    let bench = Bench::new();
    bench.key("key");
    bench.write("abc", "abc");
    let seal = ["seal", "abc", "--key-file", "key", "--model-id", "m", "-o", "image"];
    // From the BLAKE3 reference: the digest of `abc`.
    let line = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85  abc\n";
    assert_eq!(bench.run(seal).expect_code(0).stdout, line);
}

#[test]
fn the_same_input_gives_the_same_image() {
    let bench = Bench::new();
    let plain = content(300_000);
    for choice in [&["--scope", "shard"][..], &["--scope", "segment"], &["--mode", "authenticated"]]
    {
        let first = fs::read(bench.sealed(&plain, "one", choice)).unwrap();
        let second = fs::read(bench.sealed(&plain, "two", choice)).unwrap();
        assert!(first == second, "{choice:?}");
    }
}

#[test]
fn scope_and_suite_are_said_not_to_apply_to_mode_authenticated() {
    let bench = Bench::new();
    bench.key("key");
    bench.write("content", "x");
    let ran = bench
        .run(
            "seal content --key-file key --model-id m --mode authenticated --scope shard -o i"
                .split(' '),
        )
        .expect_code(0);
    assert!(ran.stderr.contains("do not apply"), "{}", ran.stderr);
    assert_eq!(inspect(&bench, "i")["scope"], serde_json::Value::Null);
}

#[test]
fn inspect_shows_the_record_without_a_key_and_says_that_it_proves_nothing() {
    let bench = Bench::new();
    let more = ["--shard-index", "7", "--revision", "9", "--segment", "64KiB", "--scope", "shard"];
    bench.sealed(&content(100_000), "image", &more);
    fs::remove_file(bench.path("key")).unwrap();

    let info = inspect(&bench, "image");
    assert_eq!(info["authenticated"], false);
    assert_eq!(info["version"], 1);
    assert_eq!(info["mode"], "encrypted");
    assert_eq!(info["scope"], "shard");
    assert_eq!(info["suite"], "aes-256-gcm");
    assert_eq!(info["content_len"], 100_000);
    assert_eq!(info["segment_len"], 65_536);
    assert_eq!(info["segment_count"], 2);
    assert_eq!(info["shard_index"], 7);
    assert_eq!(info["revision"], 9);
    assert_eq!(info["file_len"], info["image_len"]);

    let shown = bench.run(["inspect", "image"]).expect_code(0).stdout;
    assert!(shown.contains("shard index     7"), "{shown}");
    assert!(shown.contains("Nothing of this is proven"), "{shown}");
}

#[test]
fn keygen_writes_a_private_key_file_and_never_overwrites() {
    let bench = Bench::new();
    let ran = bench.run(["keygen", "-o", "key"]).expect_code(0);
    let text = fs::read_to_string(bench.path("key")).unwrap();
    assert_eq!(text.len(), 65);
    assert!(text.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(mode(&bench.path("key")), 0o600);
    let (id, path) = ran.stdout.trim_end().split_once("  ").unwrap();
    assert_eq!((id.len(), path), (32, "key"));
    assert!(!text.contains(id));
    assert!(!ran.stdout.contains(text.trim_end()) && !ran.stderr.contains(text.trim_end()));

    bench
        .run(["keygen", "-o", "key"])
        .expect_error(2, &["key", "exists already", "never overwritten"]);
    assert_eq!(fs::read_to_string(bench.path("key")).unwrap(), text);
    bench.run(["keygen", "-o", "no/such/folder"]).expect_error(2, &["no/such/folder"]);
    assert_eq!(bench.names(), ["key"]);

    let other = bench.run(["keygen", "-o", "other"]).expect_code(0);
    assert_ne!(other.stdout[..32], ran.stdout[..32]);
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_the_command_that_helps() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    for open in [0o644, 0o640, 0o602] {
        set_mode(&bench.path("key"), open);
        let refused = ["verify", "image", "--key-file", "key", "--model-id", "m"];
        bench.run(refused).expect_error(2, &["key", &format!("{open:04o}"), "chmod 600"]);
        let seal = ["seal", "content", "--key-file", "key", "--model-id", "m", "-o", "two"];
        bench.run(seal).expect_error(2, &["chmod"]);
    }
    assert!(!bench.path("two").exists());
}

#[test]
fn a_file_that_is_no_key_is_refused() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    let hex = "0123456789abcdef".repeat(4);
    let cases = [
        ("empty", String::new()),
        ("short", hex[..62].to_owned()),
        ("long", format!("{hex}00")),
        ("half", hex[..32].to_owned()),
        ("lines", format!("{hex}\n\n")),
        ("words", "this is not a key at all, is it?!".to_owned()),
    ];
    for (name, text) in cases {
        let path = bench.write(name, text);
        set_mode(&path, 0o600);
        bench
            .run(["verify", "image", "--key-file", name, "--model-id", "m"])
            .expect_error(2, &[name]);
    }
    bench
        .run(["verify", "image", "--key-file", "missing", "--model-id", "m"])
        .expect_error(2, &["missing"]);
    bench
        .run(["verify", "image", "--key-file", ".", "--model-id", "m"])
        .expect_error(2, &["key file"]);
}

#[test]
fn a_key_of_another_id_is_input_and_one_that_opens_nothing_is_integrity() {
    let bench = Bench::new();
    bench.sealed(&content(5000), "image", &[]);
    bench.key("other");
    for command in [&["verify"][..], &["unseal", "-o", "back"]] {
        let args = [command, &["image", "--key-file", "other", "--any-model"]].concat();
        bench.run(args).expect_error(2, &["key"]);
    }

    // The id of the other key, written over the right one: now the id matches, and opens nothing.
    let mut forged = fs::read(bench.path("image")).unwrap();
    let other = bench.sealed_under("other", "with-other");
    forged[48..64].copy_from_slice(&other[48..64]);
    bench.write("forged", forged);
    let refused = ["verify", "forged", "--key-file", "other", "--model-id", "m"];
    bench.run(refused).expect_error(1, &["forged"]);
    let refused = ["unseal", "forged", "--key-file", "other", "--model-id", "m", "-o", "back"];
    bench.run(refused).expect_error(1, &["forged"]);
    assert!(!bench.path("back").exists());
}

impl Bench {
    /// The image of a small content under another key.
    fn sealed_under(&self, key: &str, name: &str) -> Vec<u8> {
        let seal = ["seal", "content", "--key-file", key, "--model-id", "m", "-o", name];
        self.run(seal).expect_code(0);
        fs::read(self.path(name)).unwrap()
    }
}

#[test]
fn one_flipped_bit_in_the_data_is_named_and_nothing_is_written() {
    let bench = Bench::new();
    for choice in [&["--segment", "4KiB"][..], &["--mode", "authenticated", "--segment", "4KiB"]] {
        bench.sealed(&content(40_000), "image", choice);
        let data = data_offset(&bench, "image");
        flip(&bench.path("image"), data + 3 * 4096 + 17);
        flip(&bench.path("image"), data + 39_999);
        let verify = "verify image --key-file key --model-id m --mode any";
        let ran = bench.run(verify.split(' ')).expect_code(1);
        assert_eq!(
            ran.stdout,
            "image: altered: segment 3, bytes 12288..16384 of the content\n\
             image: altered: segment 9, bytes 36864..40000 of the content\n"
        );
        ran.expect_error_line(&["image was altered", "2 of 10 segments"]);
        bench
            .run("unseal image --key-file key --model-id m --mode any -o back".split(' '))
            .expect_error(1, &["image", "segment"]);
        assert!(!bench.path("back").exists());
    }
    assert_eq!(bench.names(), ["content", "image", "key"]);
}

#[test]
fn one_flipped_bit_anywhere_before_the_data_is_refused() {
    let bench = Bench::new();
    bench.sealed(&content(9000), "image", &["--segment", "4KiB"]);
    let sound = fs::read(bench.path("image")).unwrap();
    for at in (0..256).step_by(5).chain([256, 300, 399, 400, 1000, 4095]) {
        let mut altered = sound.clone();
        altered[at] ^= 1;
        bench.write("image", altered);
        let ran = bench.run(["verify", "image", "--key-file", "key", "--model-id", "m"]);
        // The program reads magic, version, profile and key id before it authenticates anything: a
        // change in those is reported as another file, another version, another key. Every other
        // change is tampering.
        let unproven = (0..10).contains(&at) || at == 13 || (48..64).contains(&at);
        ran.expect_error(if unproven { 2 } else { 1 }, &["image"]);
    }
}

#[test]
fn an_image_of_another_version_is_refused_and_says_which() {
    let bench = Bench::new();
    let image = bench.sealed(b"x", "image", &[]);
    let mut bytes = fs::read(&image).unwrap();
    bytes[8] = 2;
    bench.write("image", bytes);
    for command in [
        "verify image --key-file key --model-id m",
        "unseal image --key-file key --model-id m -o b",
        "inspect image",
    ] {
        bench.run(command.split(' ')).expect_error(2, &["image", "version 2"]);
    }
}

#[test]
fn an_image_that_was_cut_or_grew_is_refused() {
    let bench = Bench::new();
    let image = bench.sealed(&content(9000), "image", &["--segment", "4KiB"]);
    let sound = fs::read(&image).unwrap();
    for len in [0, 1, 7, 8, 255, 256, 300, 4095, 4096, 5000, sound.len() - 1] {
        bench.write("image", &sound[..len]);
        bench
            .run(["verify", "image", "--key-file", "key", "--model-id", "m"])
            .expect_error(1, &["image", "cut short", "fetch it again"]);
        let unseal = ["unseal", "image", "--key-file", "key", "--model-id", "m", "-o", "back"];
        bench.run(unseal).expect_error(1, &["image", "cut short"]);
    }
    bench.write("image", [&sound[..], b"\0"].concat());
    bench
        .run(["verify", "image", "--key-file", "key", "--model-id", "m"])
        .expect_error(1, &["image"]);
    assert_eq!(bench.names(), ["content", "image", "key"]);

    bench.write("image", &sound[..5000]);
    let shown = bench.run(["inspect", "image"]).expect_code(0).stdout;
    assert!(shown.contains("CUT SHORT"), "{shown}");
}

#[test]
fn what_is_no_image_is_refused() {
    let bench = Bench::new();
    bench.key("key");
    bench.write("empty", "");
    bench.write("text", "hello");
    bench.write("zeros", [0; 5000]);
    bench.write("ones", [0xff; 5000]);
    for name in ["empty", "text", "zeros", "ones", "missing", "."] {
        // Too short for a record: nothing says what it was.
        let code = if ["empty", "text"].contains(&name) { 1 } else { 2 };
        for command in [
            &["verify", name, "--key-file", "key", "--model-id", "m"][..],
            &["unseal", name, "--key-file", "key", "--model-id", "m", "-o", "b"],
        ] {
            bench.run(command).expect_error(code, &[name, "; "]);
        }
        // It reads model files too, and says what else a file is.
        bench.run(["inspect", name]).expect_error(2, &[name, "; "]);
    }
    assert!(!bench.path("b").exists());
}

#[test]
fn a_record_that_claims_the_world_costs_neither_memory_nor_time() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    let mut bytes = fs::read(bench.path("image")).unwrap();
    bytes[16..24].copy_from_slice(&(1_u64 << 48).to_le_bytes());
    bytes[24..32].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    bench.write("image", bytes);
    bench
        .run(["verify", "image", "--key-file", "key", "--model-id", "m"])
        .expect_error(1, &["image"]);
}

#[test]
fn a_target_that_cannot_be_written_is_refused_and_nothing_is_left() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    fs::create_dir(bench.path("folder")).unwrap();
    let before = bench.names();
    for target in ["no/such/place", "folder", "/dev/null", "folder/"] {
        let seal = ["seal", "content", "--key-file", "key", "--model-id", "m", "-o", target];
        bench.run(seal).expect_error(2, &[]);
        bench
            .run(["unseal", "image", "--key-file", "key", "--model-id", "m", "-o", target])
            .expect_error(2, &[]);
    }
    assert_eq!(bench.names(), before);
}

#[test]
fn a_file_is_never_written_over_itself() {
    let bench = Bench::new();
    let image = bench.sealed(b"plain", "image", &[]);
    let sound = fs::read(&image).unwrap();
    let seal = ["seal", "content", "--key-file", "key", "--model-id", "m", "-o", "./content"];
    bench.run(seal).expect_error(2, &["over itself"]);
    bench
        .run(["unseal", "image", "--key-file", "key", "--model-id", "m", "-o", "./image"])
        .expect_error(2, &["over itself"]);
    assert_eq!(fs::read(bench.path("content")).unwrap(), b"plain");
    assert_eq!(fs::read(&image).unwrap(), sound);
}

#[test]
fn a_target_that_is_there_is_replaced_only_by_a_whole_file() {
    let bench = Bench::new();
    bench.sealed(b"new content", "image", &[]);
    bench.write("back", "old");
    flip(&bench.path("image"), data_offset(&bench, "image"));
    let unseal = ["unseal", "image", "--key-file", "key", "--model-id", "m", "-o", "back"];
    bench.run(unseal).expect_error(1, &[]);
    assert_eq!(fs::read(bench.path("back")).unwrap(), b"old");
    flip(&bench.path("image"), data_offset(&bench, "image"));
    bench.run(unseal).expect_code(0);
    assert_eq!(fs::read(bench.path("back")).unwrap(), b"new content");
    assert_eq!(mode(&bench.path("back")), 0o600);
}

#[test]
fn a_source_that_cannot_be_read_is_refused() {
    let bench = Bench::new();
    bench.key("key");
    for source in ["missing", ".", "/dev/zero"] {
        let seal = ["seal", source, "--key-file", "key", "--model-id", "m", "-o", "image"];
        bench.run(seal).expect_error(2, &[source]);
    }
    assert_eq!(bench.names(), ["key"]);
}

#[test]
fn a_model_id_has_1_to_1024_bytes() {
    let bench = Bench::new();
    bench.key("key");
    bench.write("content", "x");
    let long = "x".repeat(1025);
    for id in ["", long.as_str()] {
        let seal = ["seal", "content", "--key-file", "key", "--model-id", id, "-o", "image"];
        bench.run(seal).expect_error(2, &["--model-id", "1 to 1024"]);
    }
    let longest = "x".repeat(1024);
    let seal = ["seal", "content", "--key-file", "key", "--model-id", &longest, "-o", "image"];
    bench.run(seal).expect_code(0);
}
