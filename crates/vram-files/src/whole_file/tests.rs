//! Whole files: what appears under a name, what is replaced, and what never is.

use super::*;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_has_no_name_before_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let file = WholeFile::create(&target, 0o600, Overwrite::Refuse, Inputs::default()).unwrap();
    file.file().write_all(b"half").unwrap();
    assert!(!target.exists());
    file.publish().unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"half");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names_in(folder.path()), ["out"]);
}

#[test]
fn a_dropped_or_panicking_writer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    drop(WholeFile::create(&target, 0o600, Overwrite::Refuse, Inputs::default()).unwrap());
    let outcome = std::panic::catch_unwind(|| {
        let _file =
            WholeFile::create(&target, 0o600, Overwrite::Refuse, Inputs::default()).unwrap();
        panic!("halfway");
    });
    assert!(outcome.is_err());
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn a_taken_name_is_never_overwritten_unless_asked_even_if_taken_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let late = WholeFile::create(&target, 0o600, Overwrite::Refuse, Inputs::default()).unwrap();
    fs::write(&target, b"old").unwrap();
    assert_eq!(late.publish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let early =
        WholeFile::create(&target, 0o600, Overwrite::Refuse, Inputs::default()).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&target).unwrap(), b"old");

    let asked = WholeFile::create(&target, 0o600, Overwrite::Replace, Inputs::default()).unwrap();
    asked.file().write_all(b"new").unwrap();
    asked.publish().unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"new");
    assert_eq!(names_in(folder.path()), ["out"]);
}

#[test]
fn two_writers_of_one_name_do_not_meet_and_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let first = WholeFile::create(&target, 0o600, Overwrite::Refuse, Inputs::default()).unwrap();
    let second = WholeFile::create(&target, 0o600, Overwrite::Refuse, Inputs::default()).unwrap();
    second.publish().unwrap();
    assert_eq!(first.publish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(names_in(folder.path()), ["out"]);
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for target in [Path::new("/dev/null"), folder.path(), Path::new("/"), Path::new("")] {
        let error =
            WholeFile::create(target, 0o600, Overwrite::Replace, Inputs::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{target:?}");
    }
    let nowhere = folder.path().join("no/such/folder");
    let error =
        WholeFile::create(&nowhere, 0o600, Overwrite::Refuse, Inputs::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// Begins to replace `target`, with these inputs.
fn replace(target: &Path, inputs: Inputs) -> io::Result<WholeFile> {
    WholeFile::create(target, 0o600, Overwrite::Replace, inputs)
}

#[test]
fn an_input_is_never_replaced_under_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("input"), b"precious").unwrap();
    fs::hard_link(at("input"), at("hard")).unwrap();
    symlink("input", at("soft")).unwrap();
    let inputs = || Inputs::default().with_paths(&[at("soft")]).unwrap();
    let opened = || Inputs::default().with_file(&File::open(at("input")).unwrap()).unwrap();
    for name in ["input", "hard", "soft"] {
        for inputs in [inputs(), opened()] {
            let error = replace(&at(name), inputs).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("over itself"), "{error}");
        }
    }

    // Created while the new file was being written.
    let late = replace(&at("new"), inputs()).unwrap();
    fs::hard_link(at("input"), at("new")).unwrap();
    assert_eq!(late.publish().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(fs::read(at("input")).unwrap(), b"precious");
    assert_eq!(names_in(folder.path()), ["hard", "input", "new", "soft"]);
}

/// A key that was read from a descriptor is compared with the target, whatever its path leads to.
#[test]
fn an_input_that_cannot_be_found_is_refused_and_a_descriptor_needs_no_path() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("key"), b"key").unwrap();
    let error = Inputs::default().with_paths(&[at("key"), at("absent")]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains(at("absent").to_str().unwrap()), "{error}");

    let handed_down = File::open(at("key")).unwrap();
    let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handed_down));
    let inputs = Inputs::default().with_paths(&[PathBuf::from(path)]).unwrap();
    let error = replace(&at("key"), inputs).unwrap_err();
    assert!(error.to_string().contains("over itself"), "{error}");
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_created_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    symlink("sub/file", at("second")).unwrap();
    symlink(at("second"), at("first")).unwrap();
    for (overwrite, content) in [(Overwrite::Refuse, "new"), (Overwrite::Replace, "newer")] {
        let file = WholeFile::create(&at("first"), 0o600, overwrite, Inputs::default()).unwrap();
        file.file().write_all(content.as_bytes()).unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read(at("sub/file")).unwrap(), content.as_bytes());
    }
    assert_eq!(fs::read_link(at("first")).unwrap(), at("second"));
    assert_eq!(fs::read_link(at("second")).unwrap(), Path::new("sub/file"));
    assert_eq!(names_in(&at("sub")), ["file"]);
    assert_eq!(names_in(folder.path()), ["first", "second", "sub"]);

    symlink("circle", at("circle")).unwrap();
    assert!(replace(&at("circle"), Inputs::default()).is_err());
}

#[test]
fn nothing_is_put_behind_a_link_to_what_is_no_file_or_among_devices_and_processes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pipe = io::pipe().unwrap();
    let pipe = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe.1));
    for (name, leads_to) in [
        ("device", "/dev/null"),
        ("folder", "."),
        ("pipe", pipe.as_str()),
        ("new device", "/dev/vram-no-such-device"),
        ("process", "/proc/vram-no-such-process"),
    ] {
        symlink(leads_to, at(name)).unwrap();
        for target in [at(name), PathBuf::from(leads_to)] {
            let error = replace(&target, Inputs::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{target:?}: {error}");
        }
        assert_eq!(fs::read_link(at(name)).unwrap(), Path::new(leads_to));
    }
    // An open file that has lost its name cannot be replaced, and no file of that odd name is
    // created.
    let lost = File::create(at("lost")).unwrap();
    let by_descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&lost));
    replace(Path::new(&by_descriptor), Inputs::default()).unwrap().publish().unwrap();
    assert_ne!(fs::metadata(at("lost")).unwrap().len(), 1);
    let before = names_in(folder.path());
    assert!(replace(Path::new(&by_descriptor), Inputs::default()).is_err());
    assert_eq!(names_in(folder.path()), before);
}

/// As the root of a process with other mounts: the text of the link names another folder here.
#[test]
#[cfg(target_os = "linux")]
fn nothing_is_put_through_a_link_of_proc_whose_text_names_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("lost")).unwrap();
    let lost = File::open(at("lost")).unwrap();
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&lost));
    symlink(format!("{link}/file"), at("out")).unwrap();
    // The name leads to the folder.
    replace(&at("out"), Inputs::default()).unwrap().publish().unwrap();
    assert_eq!(names_in(&at("lost")), ["file"]);

    fs::remove_dir_all(at("lost")).unwrap();
    let other = fs::read_link(&link).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), b"somebody's").unwrap();
    for target in [PathBuf::from(link).join("file"), at("out")] {
        let error = replace(&target, Inputs::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(fs::read(other.join("file")).unwrap(), b"somebody's");
    assert_eq!(names_in(&other), ["file"]);
}

#[test]
fn a_file_like_a_key_is_replaced_only_when_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("key");
    let but_keys = || {
        WholeFile::create(&target, 0o600, Overwrite::ReplaceButKeys, Inputs::default())
            .and_then(WholeFile::publish)
    };
    let digits = |end: &str| ["0aF1".repeat(16).as_bytes(), end.as_bytes()].concat();
    for (content, mode, kept) in [
        (vec![b'.'; 32], 0o600, true),
        (vec![b'.'; 64], 0o600, true),
        (vec![b'.'; 65], 0o400, true),
        // Digits are a key in a file of any mode, also those of zeros, which is refused as a key.
        (digits(""), 0o644, true),
        (digits("\n"), 0o666, true),
        (vec![b'0'; 64], 0o644, true),
        (digits("0"), 0o644, false),
        (vec![b'.'; 64], 0o644, false),
        (vec![b'0'; 32], 0o644, false),
        (vec![b'0'; 66], 0o600, false),
        (Vec::new(), 0o600, false),
    ] {
        let len = content.len();
        let _ = fs::remove_file(&target);
        fs::write(&target, content).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        match but_keys() {
            Err(error) if kept => assert_eq!(error.kind(), io::ErrorKind::AlreadyExists),
            answer => assert!(answer.is_ok() && !kept, "{len} {mode:o} {answer:?}"),
        }
        assert_eq!(
            fs::metadata(&target).unwrap().len(),
            if kept { u64::try_from(len).unwrap() } else { 0 }
        );
    }
    fs::write(&target, [0; 32]).unwrap();
    replace(&target, Inputs::default()).unwrap().publish().unwrap();
    assert_eq!(fs::metadata(&target).unwrap().len(), 0);
}

#[test]
fn a_file_has_no_name_at_all_where_the_file_system_can_do_that() {
    let folder = tempfile::tempdir().unwrap();
    let file = replace(&folder.path().join("out"), Inputs::default()).unwrap();
    if file.temporary.is_none() {
        assert!(names_in(folder.path()).is_empty());
    }
}

#[test]
fn a_file_system_without_nameless_files_gives_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let begin = |overwrite| {
        let mut file = WholeFile::create(&target, 0o600, overwrite, Inputs::default())?;
        if file.temporary.is_none() {
            // As the code does on such a file system.
            file.temporary =
                Some(temporary::link_to_temporary(&file.file, folder.path(), &Inputs::default())?);
        }
        Ok::<_, io::Error>(file)
    };
    let late = begin(Overwrite::Refuse).unwrap();
    let early = begin(Overwrite::Refuse).unwrap();
    early.file().write_all(b"early").unwrap();
    early.publish().unwrap();
    assert_eq!(late.publish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    drop(begin(Overwrite::Replace).unwrap());
    // Looked at before another writer comes, which would sweep up.
    assert_eq!(names_in(folder.path()), ["out"]);
    assert_eq!(fs::read(&target).unwrap(), b"early");
    begin(Overwrite::Replace).unwrap().publish().unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"");
    assert_eq!(names_in(folder.path()), ["out"]);
}
