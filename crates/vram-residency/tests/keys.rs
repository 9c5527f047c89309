//! Keys are read only from places that no other user can read or change, and errors never show
//! them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use vram_residency::{KeySource, KeySourceError, SealKey, create_key_file};

const DIGITS: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDEF";

fn key_file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seal.key");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

fn refusal(source: KeySource) -> KeySourceError {
    let error = source.load().map(|key| key.id()).unwrap_err();
    // Neither form of an error shows a part of the key.
    for shown in [error.to_string(), format!("{error:?}")] {
        let shown = shown.to_lowercase();
        assert!(!shown.contains("00112233") && !shown.contains("89abcdef"), "{shown}");
    }
    error
}

#[test]
fn every_form_of_a_key_file_gives_the_same_key() {
    let id = SealKey::from_hex(DIGITS).unwrap().id();
    let raw: Vec<u8> = (0..DIGITS.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&DIGITS[at..at + 2], 16).unwrap())
        .collect();
    for content in [DIGITS.as_bytes(), format!("{DIGITS}\n").as_bytes(), &raw] {
        for mode in [0o600, 0o400, 0o200] {
            let (_folder, path) = key_file(content, mode);
            match KeySource::File(path).load() {
                Ok(key) => assert_eq!(key.id(), id),
                // Only root can read a file without read permission.
                Err(KeySourceError::Io { .. }) if mode == 0o200 => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
    let bytes: [u8; 32] = raw.try_into().unwrap();
    assert_eq!(KeySource::bytes(&bytes).load().unwrap().id(), id);
}

#[test]
fn a_key_file_that_others_can_read_or_write_is_refused_with_the_command_that_helps() {
    for mode in [0o644, 0o640, 0o604, 0o620, 0o601, 0o700, 0o660, 0o4600, 0o777] {
        let (_folder, path) = key_file(DIGITS.as_bytes(), mode);
        match refusal(KeySource::File(path.clone())) {
            error @ KeySourceError::Mode { found, wanted: 0o600, .. } => {
                assert_eq!(found, mode);
                let text = error.to_string();
                assert!(text.contains(&format!("{mode:04o}")), "{text}");
                assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
            }
            other => panic!("{mode:o}: {other}"),
        }
    }
}

#[test]
fn a_link_to_a_private_key_is_followed_and_one_to_an_open_key_is_not_believed() {
    let (folder, path) = key_file(DIGITS.as_bytes(), 0o600);
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(KeySource::File(link.clone()).load().is_ok());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(refusal(KeySource::File(link)), KeySourceError::Mode { .. }));
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for path in [folder.path().to_path_buf(), fifo, PathBuf::from("/dev/zero")] {
        let error = refusal(KeySource::File(path));
        assert!(matches!(error, KeySourceError::NotAFile { .. }), "{error}");
    }
    let missing = refusal(KeySource::File(folder.path().join("none")));
    assert!(matches!(missing, KeySourceError::Io { .. }), "{missing}");
}

#[test]
fn content_that_is_no_key_is_refused_and_a_huge_file_is_not_read() {
    let digits = DIGITS.as_bytes();
    let huge = vec![b'0'; 1 << 20];
    let contents: [&[u8]; 8] = [
        b"",
        &digits[..32],
        &digits[..63],
        b"\n",
        &[0xff; 33],
        &[digits, b"\n\n"].concat(),
        &[digits, b"0"].concat(),
        &huge,
    ];
    for content in contents {
        let (_folder, path) = key_file(content, 0o600);
        let error = refusal(KeySource::File(path));
        assert!(matches!(error, KeySourceError::Content { .. }), "{error}");
    }
}

#[test]
fn an_inherited_descriptor_may_be_a_pipe() {
    let id = SealKey::from_hex(DIGITS).unwrap().id();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // In two pieces: a pipe returns the bytes that have arrived.
    let feeder = std::thread::spawn(move || {
        writer.write_all(&DIGITS.as_bytes()[..10]).unwrap();
        writer.write_all(&DIGITS.as_bytes()[10..]).unwrap();
    });
    let key = KeySource::Descriptor(OwnedFd::from(reader)).load().unwrap();
    feeder.join().unwrap();
    assert_eq!(key.id(), id);
}

#[test]
fn names_of_credentials_cannot_leave_their_folder() {
    for name in ["", ".", "..", "../key", "a/b", "/etc/passwd", "a\0b"] {
        let error = refusal(KeySource::SystemdCredential(name.to_owned()));
        assert!(matches!(error, KeySourceError::CredentialName { .. }), "{name:?}: {error}");
    }
}

/// Set in the processes that [`in_child`] starts.
const CHILD: &str = "VRAM_TEST_CHILD";

/// Runs one of the tests below in a process of its own, with variables set: changing the
/// environment of a process with several threads is not safe.
fn in_child(test: &str, variables: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
}

#[test]
fn a_key_from_the_environment_is_64_digits() {
    in_child(
        "child_reads_environment",
        &[
            ("VRAM_TEST_KEY", DIGITS),
            ("VRAM_TEST_SHORT", &DIGITS[..62]),
            ("VRAM_TEST_RAW", "0123456789abcdef0123456789abcdeg"),
        ],
    );
}

#[test]
#[ignore = "runs in a child of a_key_from_the_environment_is_64_digits"]
fn child_reads_environment() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let id = SealKey::from_hex(DIGITS).unwrap().id();
    assert_eq!(KeySource::Env("VRAM_TEST_KEY".to_owned()).load().unwrap().id(), id);
    for (name, set) in
        [("VRAM_TEST_SHORT", true), ("VRAM_TEST_RAW", true), ("VRAM_TEST_NONE", false)]
    {
        let error = refusal(KeySource::Env(name.to_owned()));
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(set, matches!(error, KeySourceError::Content { .. }), "{error}");
    }
}

#[test]
fn a_credential_is_found_where_systemd_put_it() {
    let (folder, path) = key_file(DIGITS.as_bytes(), 0o440);
    fs::rename(path, folder.path().join("seal")).unwrap();
    let directory = folder.path().to_str().unwrap();
    in_child("child_reads_credential", &[("CREDENTIALS_DIRECTORY", directory)]);
    in_child("child_has_no_credentials", &[("CREDENTIALS_DIRECTORY", "")]);
}

#[test]
#[ignore = "runs in a child of a_credential_is_found_where_systemd_put_it"]
fn child_reads_credential() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let seal = || KeySource::SystemdCredential("seal".to_owned());
    match seal().load() {
        Ok(key) => assert_eq!(key.id(), SealKey::from_hex(DIGITS).unwrap().id()),
        // Group access is accepted only for files that root owns.
        Err(KeySourceError::Mode { .. }) if !rustix::process::geteuid().is_root() => {}
        Err(other) => panic!("{other}"),
    }
    let missing = refusal(KeySource::SystemdCredential("other".to_owned()));
    assert!(matches!(missing, KeySourceError::Io { .. }), "{missing}");
}

#[test]
#[ignore = "runs in a child of a_credential_is_found_where_systemd_put_it"]
fn child_has_no_credentials() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let error = refusal(KeySource::SystemdCredential("seal".to_owned()));
    assert!(error.to_string().contains("CREDENTIALS_DIRECTORY"), "{error}");
}

#[test]
fn a_new_key_file_is_private_whole_and_never_replaces_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.key");
    let key = SealKey::random().unwrap();
    create_key_file(&path, &key).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&path).unwrap().len(), 65);

    let other = SealKey::random().unwrap();
    match create_key_file(&path, &other) {
        Err(KeySourceError::Io { error, .. }) => {
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(KeySource::File(path).load().unwrap().id(), key.id());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn debug_of_a_source_shows_no_key() {
    let shown = format!("{:?}", KeySource::bytes(&[0xa7; 32]));
    assert_eq!(shown, "Bytes(..)");
}
