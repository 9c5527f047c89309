//! P118: a configuration that is wrong is refused with its line, and nothing is opened or made.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use vram_residency::device::DeviceSpec;
use vram_residency::{Device, GpuIndex, HostDevice};
use vram_serve::config::DeviceConfig;
use vram_serve::{Check, Config, ConfigError, Server};

use crate::support::folder;

/// The check of a configuration whose devices are host memory.
pub(crate) fn checked(config: &Config) -> Check {
    Check::of(config, Ok(devices(config)))
}

fn devices(config: &Config) -> Vec<Arc<dyn Device>> {
    let host = |(index, device): (u32, &DeviceConfig)| -> Arc<dyn Device> {
        let DeviceSpec::Host(total) = device.device else { panic!("not a host device") };
        Arc::new(HostDevice::new(GpuIndex::new(index), total).unwrap())
    };
    (0..).zip(&config.devices).map(host).collect()
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "vram.toml", Path::new("/srv"))
}

#[test]
fn a_whole_configuration_is_read_and_paths_are_relative_to_its_folder() {
    let config = parse(include_str!("../../examples/vram.toml")).unwrap();
    assert_eq!(config.devices.len(), 2);
    assert_eq!(config.models[0].path.as_deref(), Some(Path::new("/srv/llama.safetensors")));
    assert_eq!(config.scrub.as_ref().unwrap().within, Some(Duration::from_mins(10)));
    assert_eq!(config.drain, Duration::from_secs(30));
    let least = parse("[[device]]\ndevice = \"host:1MiB\"").unwrap();
    assert!(least.models.is_empty() && least.listen()[0].is_local());
}

#[test]
fn each_mistake_is_named_with_its_line() {
    let device = "[[device]]\ndevice = \"host:1MiB\"\n";
    for (text, line, words) in [
        ("lisen = \"x\"", 1, "lisen"),
        ("\n\nlisten = \"example.org:80\"", 3, "example.org:80"),
        ("drain = \"soon\"", 1, "30s"),
        ("drain = 30", 1, "string"),
        ("[[device]]\ndevice = \"gpu:0\"", 2, "gpu:0"),
        ("[[device]]\ndevice = \"host:1MiB\"\nbudget = \"120%\"", 3, "120%"),
        ("[[device]]\ndevice = \"host:1MiB\"\nbudget = \"8G\"", 3, "ambiguous"),
        ("[[device]]\nname = \"x\"", 2, "name"),
        ("[[model]]\nname = \"x\"\nprotection = \"none\"", 3, "none"),
        ("[[model]]\nname = \"x\"\npriority = -1", 3, "-1"),
        ("[[model]]\npath = \"x\"", 1, "name"),
        ("[[model]]\nname = \"x\"\nmanifest = \"12\"", 3, "64 hexadecimal digits"),
        ("[[model]]\nname = \"x\"\nimage = \"llama\"", 3, "llama-3-70b@7"),
        ("[cache]\nfolder = \"x\"", 1, "limit"),
        ("[limits]\nconnections = \"many\"", 2, "many"),
        ("[scrub]\nwithin = \"1d\"", 2, "1d"),
        ("a = [", 1, ""),
        ("eviction = \"always\"", 1, "always"),
        ("listen = []", 1, "leave it out"),
        ("[limits]\nheader = \"8G\"", 2, "ambiguous"),
    ] {
        match parse(text) {
            Err(ConfigError::Line { line: found, what, .. }) => {
                assert!(found == line && what.contains(words), "{text:?}: {found}: {what}");
                assert!(!what.contains('\n'), "{what:?}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    let stored = "[[model]]\nname = \"x\"\nstore = \"s\"\n";
    let shared = "share = true\nprotection = \"authenticated\"\n";
    for (text, words) in [
        ("", "[[device]]"),
        (&format!("{device}[[model]]\nname = \"x\"\n"), "path or files"),
        (&format!("{device}[[model]]\nname = \"\"\npath = \"x\"\n"), "1024 bytes"),
        (&format!("{device}[[model]]\nname = \"x\"\npath = \"x\"\ngpu = 1\n"), "counts from 0"),
        (&format!("{device}{0}{0}", "[[model]]\nname = \"x\"\npath = \"x\"\n"), "two [[model]]"),
        (&format!("{device}{stored}"), "image"),
        (&format!("{device}{stored}image = \"m@1\"\n"), "[key]"),
        (&format!("{device}{stored}image = \"m@1\"\npath = \"x\"\n"), "path or files"),
        (&format!("{device}{stored}image = \"m@1\"\n{shared}"), "no tensor"),
        (&format!("{device}[[model]]\nname = \"x\"\npath = \"x\"\nmirrors = [\"y\"]\n"), "store"),
        (&format!("{device}[cache]\nfolder = \"x\"\nlimit = \"1GiB\"\n"), "[cache]"),
        (&format!("{device}[scrub]\n"), "within"),
        (&format!("{device}[scrub]\nwithin = \"0s\"\n"), "never finish"),
        (&format!("{device}[key]\nfile = \"a\"\nenv = \"B\"\n"), "more than one"),
        (&format!("{device}[key]\nenv = \"B\"\ngroup_readable = true\n"), "group_readable"),
        (&format!("{device}[limits]\nconnections = 0\n"), "1 to 1000000"),
        (&format!("{device}[limits]\nreceive = \"0s\"\n"), "no time"),
        (&format!("{device}[limits]\ncalls = 99999\n"), "calls is from 1 to 256, not 99999"),
        (&format!("{device}[limits]\nheader = \"99TiB\"\n"), "header is from 1 byte to 16.0 GiB"),
        (&format!("{device}[limits]\nrank = 4097\n"), "rank is from 1 to 4096"),
        (&format!("{device}{stored}image = \"m@1\"\ndeadline = \"0s\"\n"), "no time"),
        (
            &format!("listen = \"127.0.0.1:1\"\n{device}[tls]\ncertificate = \"c\"\nkey = \"k\"\n"),
            "[tls] is for addresses beyond loopback",
        ),
        (&format!("listen = \"0.0.0.0:1\"\n{device}"), "[tls]"),
        (&format!("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n{device}"), "127.0.0.1:1 twice"),
        (&format!("listen = [\"unix:/a\", \"[::1]:1\", \"unix:/a\"]\n{device}"), "unix:/a twice"),
        (
            &format!(
                "listen = [\"127.0.0.1:1\", \"0.0.0.0:1\"]\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n{device}"
            ),
            "the other's port",
        ),
    ] {
        match parse(text) {
            Err(ConfigError::Whole { what, .. }) => {
                assert!(what.contains(words), "{text:?}: {what}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn a_check_says_what_the_server_would_do_and_makes_nothing() {
    let folder = folder();
    let text = "listen = \"127.0.0.1:0\"\ntoken_file = \"state/token\"\n[[device]]\ndevice = \"host:16MiB\"\nbudget = \"50%\"\n\
                [[model]]\nname = \"a\"\npath = \"a.safetensors\"\n\
                [[model]]\nname = \"none\"\npath = \"none.safetensors\"\n\
                [key]\nfile = \"no.key\"\n";
    let config = Config::parse(text, "vram.toml", folder.path()).unwrap();
    let check = checked(&config);
    assert!(!check.usable && !check.token_is_there);
    assert!(check.models[0].bytes > 1 << 20 && check.models[0].problem.is_none());
    assert_eq!(check.models[1].problem.as_ref().unwrap().code, "model-file");
    assert_eq!(check.problems.len(), 1);
    let shown = check.to_string();
    for words in
        ["host:", "50% of what is free", "is made at the start", "no.key", "none.safetensors"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!folder.path().join("state").exists());
}

/// What a start refuses a check refuses too, in the same words, and neither makes anything.
#[test]
fn a_check_refuses_what_a_start_refuses_in_the_same_words() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("regular"), "x").unwrap();
    for (name, content, mode) in
        [("open.token", "00".repeat(32), 0o644), ("odd.token", "x".into(), 0o600)]
    {
        fs::write(path(name), content).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let device = "[[device]]\ndevice = \"host:16MiB\"\n";
    let key = vram_residency::SealKey::random().unwrap();
    vram_residency::create_key_file(&folder.path().join("key"), &key).unwrap();
    let stored = "[[model]]\nname = \"x\"\nstore = \"no-store\"\nimage = \"m@1\"\n";
    let long = path(&"x".repeat(100));
    let tcp = "listen = \"127.0.0.1:0\"\n";
    for (text, words) in [
        (format!("{tcp}token_file = \"open.token\"\n{device}"), "0644"),
        (format!("{tcp}token_file = \"odd.token\"\n{device}"), "odd.token"),
        (format!("{tcp}token_file = \"regular/token\"\n{device}"), "regular/token"),
        (format!("{tcp}token_file = \"regular/a/b/token\"\n{device}"), "regular/a/b/token"),
        (format!("{tcp}{device}[key]\nfile = \"no.key\"\n"), "no.key"),
        (
            format!(
                "listen = \"0.0.0.0:0\"\n{device}[tls]\ncertificate = \"regular\"\nkey = \"regular\"\n"
            ),
            "certificate",
        ),
        (
            format!(
                "{tcp}{device}[key]\nfile = \"key\"\n{stored}[cache]\nfolder = \"regular/c\"\nlimit = \"1GiB\"\n"
            ),
            "[cache]",
        ),
        (format!("{tcp}[[device]]\ndevice = \"host:200TiB\"\n"), "no memory for 200.0 TiB"),
        (format!("{tcp}{device}budget = \"17MiB\"\n"), "gpu 0"),
        (format!("{tcp}{device}headroom = \"16MiB\"\n"), "headroom"),
        (format!("{tcp}{device}budget = \"1MiB\"\nheadroom = \"2MiB\"\n"), "headroom"),
        (format!("listen = \"unix:{}\"\n{device}", path("regular")), "no socket"),
        (format!("listen = \"unix:{}\"\n{device}", path("regular/s")), "regular/s"),
        (format!("listen = \"unix:{long}\"\n{device}"), "at most 107 bytes"),
    ] {
        // The token of those that say nothing of it.
        let text = if text.contains("token_file") {
            text
        } else {
            format!("token_file = \"new/token\"\n{text}")
        };
        let config = Config::parse(&text, "vram.toml", folder.path()).unwrap();
        let check = checked(&config);
        let refused = Server::start(config.clone(), devices(&config)).unwrap_err().to_string();
        assert!(!check.usable && refused.contains(words), "{text}: {refused}");
        assert_eq!(check.problems, [refused], "{text}");
        assert!(!folder.path().join("new").exists(), "{text}");
    }
    // Devices that cannot be opened; and nothing else hides behind them.
    let config =
        Config::parse(&format!("{tcp}token_file = \"open.token\"\n{device}"), "v", folder.path());
    let check = Check::of(&config.unwrap(), Err("gpu 0: no driver".to_owned()));
    assert_eq!(check.problems.len(), 2, "{check}");
    assert_eq!(check.problems[1], "gpu 0: no driver");
}

/// What may be no mistake is told, and is no reason to refuse.
#[test]
fn a_check_notes_an_address_in_use_and_shows_what_is_kept_free() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let text = format!(
        "listen = [\"{}\", \"unix:{}\"]\ntoken_file = \"token\"\n[limits]\nname = 3\n[[device]]\n\
         device = \"host:16MiB\"\nheadroom = \"1MiB\"\n[[model]]\nname = \"a\"\npath = \"a.safetensors\"\n",
        taken.local_addr().unwrap(),
        folder.path().join("socket").display()
    );
    let check = checked(&Config::parse(&text, "vram.toml", folder.path()).unwrap());
    assert_eq!((check.notes.len(), check.problems.len()), (2, 0), "{check}");
    assert!(check.notes.iter().all(|note| note.contains("listens on")), "{check}");
    assert!(
        check.devices[0].contains("1.0 MiB") && check.devices[0].contains("kept free"),
        "{check}"
    );
    // The bounds on headers are those of the configuration, and the way to raise them is named.
    let problem = check.models[0].problem.as_ref().unwrap();
    assert!(
        problem.message.contains("3 bytes") && problem.next.contains("[limits]"),
        "{problem:?}"
    );
}

#[test]
fn a_check_names_models_that_never_fit_alone_or_beside_each_other() {
    let folder = folder();
    let model = |name: &str, more: &str| {
        format!("[[model]]\nname = \"{name}\"\npath = \"{name}.safetensors\"\n{more}\n")
    };
    let check = |top: &str, device: &str, models: &[String]| {
        let text = format!(
            "listen = \"127.0.0.1:0\"\ntoken_file = \"token\"\n{top}\n{device}\n{}",
            models.concat()
        );
        checked(&Config::parse(&text, "vram.toml", folder.path()).unwrap())
    };
    let device = |len: &str| format!("[[device]]\ndevice = \"host:{len}\"\n");
    // Each of the files is of about 2 MiB.
    let two = [device("1MiB"), device("16MiB")].concat();
    let alone = check("", &two, &[model("a", "gpu = 0"), model("b", "")]);
    let problem = alone.models[0].problem.as_ref().unwrap();
    assert_eq!((problem.code.as_str(), alone.usable), ("insufficient-vram", false));
    assert!(
        problem.message.contains("never fits") && problem.message.contains("gpu 0"),
        "{problem:?}"
    );
    assert!(alone.models[1].problem.is_none());

    let pair = [model("a", "pin = true"), model("b", "pin = true")];
    let beside = check("", &device("3MiB"), &pair);
    assert!(!beside.usable && beside.problems[0].contains("together"), "{beside}");
    // Where one makes room for the other, only what is pinned has to fit.
    assert!(!check("eviction = \"lru\"", &device("3MiB"), &pair).usable);
    let unpinned = [model("a", ""), model("b", "pin = true")];
    assert!(check("eviction = \"lru\"", &device("3MiB"), &unpinned).usable);
    assert!(check("", &device("8MiB"), &pair).usable);
}
