//! `vram demo`, small: each step prints what happened, and no file is left behind.

use crate::support::Bench;

#[test]
fn the_demonstration_shows_every_step_and_cleans_up() {
    let bench = Bench::new();
    let output =
        bench.command(["demo", "--size", "8MiB"]).env("TMPDIR", bench.path(".")).output().unwrap();
    let ran = crate::support::Ran::of(output).expect_code(0);
    let shown = &ran.stdout;
    for step in
        ["1. A model", "2. Load", "3. Read", "4. Move", "5. Tamper", "6. Too much", "7. Free"]
    {
        assert!(shown.contains(step), "{step}: {shown}");
    }
    // The flipped bit: found, named, refused, repaired.
    let found = shown.lines().find(|line| line.contains("verify:")).unwrap();
    assert!(found.contains("tensor ") && found.contains("segment "), "{found}");
    assert!(shown.contains("read:   refused: "), "{shown}");
    assert!(shown.contains("sealed again from the file: sound"), "{shown}");
    // The error states with figures what would fit.
    assert!(shown.contains("would fit on gpu 0: "), "{shown}");
    // The capacity is as before, on both devices.
    let after = shown.split("7. Free").nth(1).unwrap();
    assert_eq!(after.matches("used 0 B").count(), 2, "{after}");
    assert_eq!(ran.stderr, "");
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}

#[test]
fn a_temporary_folder_that_cannot_be_written_is_told() {
    let bench = Bench::new();
    let output = bench.command(["demo"]).env("TMPDIR", bench.path("missing")).output().unwrap();
    let ran = crate::support::Ran::of(output).expect_code(2);
    ran.expect_error_line(&["temporary file", "TMPDIR"]);
}
