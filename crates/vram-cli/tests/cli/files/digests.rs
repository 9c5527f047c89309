//! Digests that files must have, of either kind.

use super::{sha256, tensor, write};
use crate::support::{Bench, blake3};

#[test]
fn a_digest_of_either_kind_is_compared_with_what_lies_in_device_memory() {
    let bench = Bench::new();
    let (one, two) = (write(&bench, "one"), write(&bench, "two"));
    let load = |first: &str, second: &str| {
        let args = ["load", "one", "two", "--expect-digest", first, "--expect-digest", second];
        bench.run(args)
    };
    let blake3 = |bytes: &[u8]| blake3(bytes).to_string();
    let tagged = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
    load(&blake3(&one), &blake3(&two)).expect_code(0);
    load(&format!("blake3:{}", blake3(&one)), &tagged(&two)).expect_code(0);
    load(&tagged(&one), &tagged(&two)).expect_code(0);
    for wrong in [blake3(b"x"), format!("blake3:{}", blake3(b"x"))] {
        load(&tagged(&one), &wrong).expect_error(1, &["two", "blake3", "fetch the file again"]);
    }
    load(&tagged(b"x"), &tagged(&two)).expect_error(1, &["one", "sha256"]);
    for refused in ["", "sha256:", "md5:00", "sha512:00"] {
        let ran = load(refused, &tagged(&two)).expect_code(2);
        assert!(ran.stderr.contains("--expect-digest"), "{}", ran.stderr);
    }
}

#[test]
fn a_digest_that_is_right_and_of_the_other_kind_says_how_to_write_it() {
    let bench = Bench::new();
    let file = write(&bench, "m");
    let load = |digest: &str| bench.run(["load", "m", "--expect-digest", digest]);
    let published = sha256(&file).to_string();
    load(&published).expect_error(2, &["its SHA-256", &format!("write sha256:{published}")]);
    // A kind that was given is taken at its word.
    load(&format!("blake3:{published}")).expect_error(1, &["fetch the file again"]);
    let other = blake3(&file).to_string();
    load(&format!("sha256:{other}"))
        .expect_error(2, &["its BLAKE3", &format!("write blake3:{other}")]);
}

#[test]
fn the_report_shows_the_sha256_that_was_compared() {
    let bench = Bench::new();
    let file = tensor("a", &vec![7; 100_000]);
    bench.write("m", &file);
    let digest = format!("sha256:{}", sha256(&file));
    let report = |args: &[&str]| -> serde_json::Value {
        let ran = bench.run([&["load", "m", "--json"], args].concat()).expect_code(0);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let found = report(&["--expect-digest", &digest]);
    assert_eq!(found["files"][0]["sha256"], sha256(&file).to_string());
    assert_eq!(found["files"][0]["blake3"], blake3(&file).to_string());
    assert_eq!(report(&[])["files"][0]["sha256"], serde_json::Value::Null);
}
