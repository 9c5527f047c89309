//! Lists of digests, as `sha256sum` and `b3sum` write them.

use std::fs;

use super::{sha256, write};
use crate::support::{Bench, blake3};

/// Two files in a folder, and a list beside them.
fn bench(list: impl Fn(&[u8], &[u8]) -> String) -> Bench {
    let bench = Bench::new();
    let (one, two) = (write(&bench, "one"), write(&bench, "two"));
    bench.write("SUMS", list(&one, &two));
    bench
}

const LOAD: [&str; 5] = ["load", "one", "two", "--digests", "SUMS"];

#[test]
fn a_list_of_every_form_is_compared_with_every_file() {
    for list in [
        |one: &[u8], two: &[u8]| format!("{}  one\n{} *two\n", sha256(one), sha256(two)),
        |one: &[u8], two: &[u8]| {
            format!("SHA256 (./one) = {}\r\nBLAKE3 (two) = {}", sha256(one), blake3(two))
        },
        |one: &[u8], two: &[u8]| {
            format!("blake3:{}  one\nsha256:{}  two", blake3(one), sha256(two))
        },
        // Both hashes of one file, and one of them twice.
        |one: &[u8], two: &[u8]| {
            let (first, second) = (sha256(one), sha256(two));
            format!("{first}  one\nblake3:{}  one\n{second}  two\n{second}  two\n", blake3(one))
        },
    ] {
        let bench = bench(list);
        bench.run(LOAD).expect_code(0);
        bench.write("two", super::tensor("two", b"owt"));
        bench.run(LOAD).expect_error(1, &["two", "fetch the file again"]);
    }
}

#[test]
fn the_hash_of_a_list_that_does_not_say_it_is_sha256_unless_it_is_given() {
    let bench = bench(|one, two| format!("{}  one\n{}  two\n", blake3(one), blake3(two)));
    bench.run([&LOAD[..], &["--list-hash", "blake3"]].concat()).expect_code(0);
    bench.run(LOAD).expect_error(2, &["one", "its BLAKE3", "--list-hash blake3"]);
    let other = self::bench(|one, two| format!("{}  one\n{}  two\n", sha256(one), sha256(two)));
    let args = [&LOAD[..], &["--list-hash", "blake3"]].concat();
    other.run(args).expect_error(2, &["one", "its SHA-256", "--list-hash sha256"]);
    bench.run(["load", "one", "--list-hash", "blake3"]).expect_code(2);
}

#[test]
fn names_are_relative_to_the_folder_of_the_list() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("hub/sub")).unwrap();
    let file = super::tensor("a", b"abc");
    bench.write("hub/sub/m", &file);
    bench.write("hub/SUMS", format!("{}  sub/m\n", sha256(&file)));
    bench.run(["load", "hub/sub/m", "--digests", "hub/SUMS"]).expect_code(0);
    let whole = bench.path("hub/sub/m");
    bench.run(["load", whole.to_str().unwrap(), "--digests", "hub/SUMS"]).expect_code(0);
    // Through a link to the folder, and a file that is a link itself, as in a cache of a hub.
    std::os::unix::fs::symlink("hub", bench.path("link")).unwrap();
    bench.run(["load", "link/sub/m", "--digests", "hub/SUMS"]).expect_code(0);
    bench.write("blob", &file);
    std::os::unix::fs::symlink("../../blob", bench.path("hub/sub/n")).unwrap();
    bench.write("hub/SUMS", format!("{}  sub/n\n", sha256(&file)));
    bench.run(["load", "hub/sub/n", "--digests", "hub/SUMS"]).expect_code(0);
    // The same name elsewhere is another file.
    bench.write("m", &file);
    bench.run(["load", "m", "--digests", "hub/SUMS"]).expect_error(2, &["does not name m"]);
}

#[test]
fn files_that_the_list_does_not_name_are_refused_and_others_are_told() {
    let bench = bench(|one, _| format!("{0}  one\n{0}  three\n{0}  four\n", sha256(one)));
    bench.run(LOAD).expect_error(2, &["SUMS", "does not name two"]);
    let ran = bench.run(["load", "one", "--digests", "SUMS"]).expect_code(0);
    assert!(ran.stderr.contains("not given: four, three"), "{}", ran.stderr);
}

#[test]
fn a_list_that_is_none_is_refused_with_the_number_of_its_line() {
    let sum = |bytes: &[u8]| sha256(bytes).to_string();
    for (list, words) in [
        ("# sums".to_owned(), &["line 1", "# sums"][..]),
        (format!("{}  one\n\nhello\n", sum(b"x")), &["line 3", "`hello`"]),
        (format!("{}  one\n{}  one\n", sum(b"x"), sum(b"y")), &["line 2", "line 1", "one"]),
        ("{\"a\": 1}".to_owned(), &["line 1"]),
        (String::new(), &["does not name one"]),
        (format!("\u{1b}[2J{}", "x".repeat(5000)), &["line 1", "\\u{1b}"]),
    ] {
        let bench = bench(|_, _| list.clone());
        let ran = bench.run(LOAD).expect_error(2, &[&["SUMS"], words].concat());
        assert!(ran.stderr.len() < 800, "{}", ran.stderr);
    }
    let bench = bench(|_, _| String::new());
    bench.write("SUMS", [0xff, 0xfe, 0]);
    bench.run(LOAD).expect_error(2, &["not a text"]);
    for name in ["missing", ".", "/dev/zero"] {
        bench.run(["load", "one", "--digests", name]).expect_error(2, &[name]);
    }
    // A sparse file of 1 TiB costs neither memory nor time.
    let huge = fs::File::create(bench.path("SUMS")).unwrap();
    huge.set_len(1 << 40).unwrap();
    bench.run(LOAD).expect_error(2, &["16 MiB"]);
    let digest = sum(b"x");
    bench.run([&LOAD[..], &["--expect-digest", &digest]].concat()).expect_code(2);
}
