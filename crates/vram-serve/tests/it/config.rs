//! P118: a configuration that is wrong is refused with its line, and nothing is opened or made.

use core::time::Duration;
use std::path::Path;

use vram_serve::{Check, Config, ConfigError};

use crate::support::folder;

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
        ("[limits]\nconnections = \"many\"", 2, "many"),
        ("[scrub]\nwithin = \"1d\"", 2, "1d"),
        ("a = [", 1, ""),
        ("eviction = \"always\"", 1, "always"),
    ] {
        match parse(text) {
            Err(ConfigError::Line { line: found, what, .. }) => {
                assert!(found == line && what.contains(words), "{text:?}: {found}: {what}");
                assert!(!what.contains('\n'), "{what:?}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    for (text, words) in [
        ("", "[[device]]"),
        (&format!("{device}[[model]]\nname = \"x\"\n"), "path or files"),
        (&format!("{device}[[model]]\nname = \"\"\npath = \"x\"\n"), "1024 bytes"),
        (&format!("{device}[[model]]\nname = \"x\"\npath = \"x\"\ngpu = 1\n"), "counts from 0"),
        (&format!("{device}{0}{0}", "[[model]]\nname = \"x\"\npath = \"x\"\n"), "two [[model]]"),
        (&format!("{device}[scrub]\n"), "within"),
        (&format!("{device}[scrub]\nwithin = \"0s\"\n"), "never finish"),
        (&format!("{device}[key]\nfile = \"a\"\nenv = \"B\"\n"), "more than one"),
        (&format!("{device}[key]\nenv = \"B\"\ngroup_readable = true\n"), "group_readable"),
        (&format!("{device}[limits]\nconnections = 0\n"), "1 to 1000000"),
        (&format!("{device}[limits]\nreceive = \"0s\"\n"), "no time"),
        (&format!("listen = \"0.0.0.0:1\"\n{device}"), "[tls]"),
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
    let text = "token_file = \"state/token\"\n[[device]]\ndevice = \"host:16MiB\"\nbudget = \"50%\"\n\
                [[model]]\nname = \"a\"\npath = \"a.safetensors\"\n\
                [[model]]\nname = \"none\"\npath = \"none.safetensors\"\n\
                [key]\nfile = \"no.key\"\n";
    let config = Config::parse(text, "vram.toml", folder.path()).unwrap();
    let check = Check::of(&config);
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
