//! Logs that are sound, cut, joined, or no logs at all.

use super::*;

/// A log as the script writes it, with rows on the line of the name and on lines of their own.
pub(in crate::gpu) const SOUND: &str = "
# group begins: devices, at most 20 s
running 1 test
test devices::there_is ... | run | unix time | 951782400 |
| run | commit | abc |
| run | driver | CUDA driver libcuda.so.1, loaded from /usr/lib/libcuda.so.1 |
| device | cuda:0 | name | NVIDIA H200 |
ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s

# group ended: devices, status 0, 1 s
running 4 tests
test contract::fill ... ok
test residency::first ... | residency | cuda:0 | 1 bytes | device memory |
| shared | cuda:0 | the other process took | 10ms |
ok
test faults::full ... 16 cases in real MiB
| fault | cuda:0 | an allocation \\| of all | out of memory |
ok
test guide::g01 ... ok

test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
running 5 tests
test kernels::speed ... | kernel | cuda:0 | 1 MiB | hash | 1.0 | 0.9 to 1.1 | 0.500 | 2 GB/s: missed |
| function | cuda:0 | blake3_items | 56 | 0 | 16384 | 4 |
ok
test facts::host ... | machine | processor | a fast one |
ok
test ending::reset ... | fact | cuda:0 | reset | code 0 |
ok
test transfers::quick ... | transfer | cuda:0 | 1 MiB | write | 1.00 | 0.9 to 1.1 | 0.500 |
ok
test seals::quick ... | seal | cuda:0 | 1 MiB | seal | 1.00 | 0.9 to 1.1 | 0.500 |
ok

test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
";

#[test]
fn a_sound_log_becomes_a_report_with_every_row_and_check() {
    let log = Log::read(SOUND).unwrap();
    assert_eq!(log.failures(), Vec::<String>::new());
    assert!(!log.is_simulated());
    let report = log.markdown("cargo xtask gpu");
    for part in [
        "## 2000-02-29 00:00 UTC: NVIDIA H200",
        "Commit abc. Command: `cargo xtask gpu`",
        "10 of 10 checks passed.",
        "| cuda:0 | an allocation \\| of all | out of memory |",
        "| cuda:0 | 1 MiB | write | 1.00 | 0.9 to 1.1 | 0.500 |",
        "| `faults::full` | passed |",
        "| devices | 0 | 1 |",
    ] {
        assert!(report.contains(part), "{part} is not in\n{report}");
    }
    assert!(!report.contains("simulated"));
}

#[test]
fn a_check_that_failed_or_never_ended_is_never_passed() {
    let failed = SOUND.replacen("fill ... ok", "fill ... FAILED", 1);
    assert_eq!(Log::read(&failed).unwrap().failures(), ["contract::fill failed"]);
    let ignored = SOUND.replacen("fill ... ok", "fill ... ignored, why not", 1);
    assert_eq!(Log::read(&ignored).unwrap().failures(), ["contract::fill did not run"]);

    let cut = SOUND.split("| seal").next().unwrap();
    let failures = Log::read(cut).unwrap().failures();
    assert_eq!(failures[0], "seals::quick did not end");
    assert!(failures[1].ends_with("cut short"), "{failures:?}");
    assert!(failures[2].contains("Sealing"), "{failures:?}");
    let report = Log::read(cut).unwrap().markdown("x");
    assert!(report.contains("9 of 10 checks passed") && report.contains("**did not end**"));
}

/// Wherever a log ends, it can be read, and is no success.
#[test]
fn a_log_that_is_cut_anywhere_is_read_and_never_complete() {
    let first = SOUND.find("test devices").unwrap() + "test devices::there_is ... ".len();
    let end = SOUND.rfind("test result").unwrap();
    for cut in first..end {
        let log = Log::read(&SOUND[..cut]).unwrap_or_else(|why| panic!("{cut}: {why}"));
        assert!(!log.failures().is_empty(), "{:?}", &SOUND[..cut]);
    }
    let log = Log::read(&SOUND[..SOUND.find("| fault | cuda:0 | an").unwrap() + 20]).unwrap();
    let failures = log.failures();
    assert!(failures.contains(&"faults::full did not end".to_owned()), "{failures:?}");
    assert!(failures.contains(&"rows that were cut off: 1".to_owned()), "{failures:?}");
    let never = "a run of the binary was cut short: 1 of its checks never began".to_owned();
    assert!(failures.contains(&never), "{failures:?}");
    assert!(failures.contains(&"no check of the group seals".to_owned()), "{failures:?}");
}

/// A second try of what was cut: both are read, and the first stays no success.
#[test]
fn logs_in_one_file_are_read_one_after_another() {
    let cut = &SOUND[..SOUND.find("| fault | cuda:0 | an").unwrap() + 20];
    let joined = Log::read(&format!("{cut}{SOUND}")).unwrap();
    assert_eq!(joined.checks.len(), 4 + 10);
    let failures = joined.failures();
    assert!(failures.iter().any(|failure| failure == "faults::full did not end"), "{failures:?}");
    assert!(!failures.iter().any(|failure| failure.contains("no check")), "{failures:?}");
    let twice = Log::read(&format!("{SOUND}{SOUND}")).unwrap();
    assert_eq!((twice.checks.len(), twice.failures().len()), (20, 0));
    // Without its beginning, for which there is no number of checks.
    let rest = &SOUND[SOUND.find("test contract").unwrap()..];
    let failures = Log::read(rest).unwrap().failures();
    assert!(failures.contains(&"no check of the group devices".to_owned()), "{failures:?}");
}

#[test]
fn a_group_that_was_ended_or_failed_or_stopped_is_named() {
    for (ended, why) in [
        ("status 124, 20 s", "the group devices was ended after 20 s"),
        ("status 137, 25 s", "the group devices was ended after 25 s"),
        ("status 139, 2 s", "the group devices has status 139"),
    ] {
        let log = Log::read(&SOUND.replace("status 0, 1 s", ended)).unwrap();
        assert_eq!(log.failures(), [why]);
        assert!(log.markdown("x").contains(&format!("- **{why}**")));
    }
    let log = Log::read(&SOUND.replace("# group ended: devices", "# nothing")).unwrap();
    assert_eq!(log.failures(), ["the group devices did not end"]);
}

#[test]
fn a_simulated_driver_is_told_from_a_real_one_by_either_name() {
    for (real, simulated) in
        [("/usr/lib/libcuda.so.1", "/target/libcuda_sim_so.so"), ("NVIDIA H200", "Simulated GPU")]
    {
        let log = Log::read(&SOUND.replace(real, simulated)).unwrap();
        assert!(log.is_simulated(), "{simulated}");
        assert!(log.markdown("x").contains("**A simulated driver.**"));
    }
}

#[test]
fn what_is_no_log_of_the_checks_is_refused_with_its_line() {
    assert!(Log::read("").is_err());
    assert!(Log::read("hello\n").is_err());
    for (row, why) in [
        ("| made | up |", "no known table"),
        ("| fault | cuda:0 | two | three | four |", "4 cells where 3 belong"),
    ] {
        let error = Log::read(&format!("test a ... {row}\n")).unwrap_err();
        assert!(error.contains("line 1") && error.contains(why), "{error}");
    }
    let mixed = "test a ... test b ... ok\nok\n";
    assert!(Log::read(mixed).is_ok(), "a check may print what it likes");
    let threads = "test a ... \ntest b ... ok\nok\n";
    assert!(Log::read(threads).unwrap_err().contains("b begins before a has ended"));
}

/// Each of these was read as a success once.
#[test]
fn a_log_that_lacks_a_check_or_tells_of_two_runs_is_no_success() {
    let failures = |text: &str| Log::read(text).unwrap().failures();
    let lost = SOUND.replace("test guide::g01 ... ok\n", "");
    assert!(failures(&lost).contains(&"lines of checks that are missing: 1".to_owned()));
    let failed = SOUND.replacen("test result: ok. 4", "test result: FAILED. 3", 1);
    assert_eq!(failures(&failed), ["runs of the binary that failed: 1"]);
    let other = SOUND.replace("commit | abc", "commit | def");
    let joined = failures(&format!("{SOUND}{other}"));
    assert_eq!(joined, ["logs of several runs, each with its own commit: {\"abc\", \"def\"}"]);
    assert_eq!(failures(&format!("{SOUND}{SOUND}")), Vec::<String>::new());
}
