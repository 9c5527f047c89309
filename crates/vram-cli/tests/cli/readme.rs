//! The commands in the README work, in their order there.

use crate::support::Bench;

#[test]
fn every_command_of_the_readme_works() {
    let bench = Bench::new();
    bench.model("model.safetensors", 500);
    for name in ["a.safetensors", "b.safetensors"] {
        let text = format!(r#"{{"{name}":{{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}}}"#);
        let len = u64::try_from(text.len()).unwrap();
        bench.write(name, [&len.to_le_bytes()[..], text.as_bytes(), b"abc"].concat());
    }
    let commands: Vec<&str> = include_str!("../../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("$ vram "))
        .collect();
    assert_eq!(commands.len(), 17);
    for command in commands {
        bench.run(command.split(' ')).expect_code(0);
    }
    let original = std::fs::read(bench.path("model.safetensors")).unwrap();
    assert!(std::fs::read(bench.path("copy.safetensors")).unwrap() == original);
}
