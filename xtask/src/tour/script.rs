//! What the tour says and does, in order.

use super::mask::Volatile;

/// A heading, words, and the commands under them.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) heading: &'static str,
    pub(super) words: &'static str,
    /// As a shell takes them. One that ends in `&` is a server: it runs until it is told to end.
    pub(super) commands: &'static [&'static str],
    pub(super) volatile: Volatile,
}

const fn step(
    heading: &'static str,
    words: &'static str,
    commands: &'static [&'static str],
) -> Step {
    Step { heading, words, commands, volatile: Volatile::Usual }
}

/// What is shown of this command differs from what is run: the example is built already.
pub(super) const MADE_BY: (&str, &str) = ("cargo run -q -p vram-model --example synth --", "synth");

/// After this the server ends by itself.
pub(super) const LAST_WORD: &str = "vram ctl drain";

pub(super) const STEPS: &[Step] = &[
    step(
        "The purpose, in one command",
        "A made-up model is loaded into two devices of host memory. Then one bit is flipped behind the program's back.",
        &["vram demo --size 8MiB --snapshot snapshot.json"],
    ),
    step(
        "A model of your own",
        "Any safetensors or GGUF file will do. This one has the shape of a Llama and 4 MiB.",
        &[
            "cargo run -q -p vram-model --example synth -- 4MiB model.safetensors",
            "vram inspect model.safetensors",
        ],
    ),
    step(
        "Does it fit?",
        "`plan` reads headers alone and takes no memory, so it can be asked about any device. What it says is what `load` does.",
        &[
            "vram plan model.safetensors --device host:4MiB --device host:4MiB",
            "vram plan model.safetensors --device host:2MiB",
        ],
    ),
    step(
        "Load it",
        "Sealed into device memory, verified there, read back, compared with the file, freed. On a machine with GPUs, leave `--device` out.\n\
         The last line is the digest of the file as it was opened from device memory; `b3sum` prints the same.",
        &["vram load model.safetensors --device host:16MiB"],
    ),
    step(
        "A key, and an image",
        "An image is the sealed model as a file. Only the key opens it, on any machine.",
        &[
            "vram keygen -o node.key",
            "vram seal model.safetensors --key-file node.key --model-id llama -o model.vseal",
            "vram verify model.vseal --key-file node.key --model-id llama",
        ],
    ),
    step(
        "An altered image",
        "A few bytes are overwritten. The segment is named, and nothing is loaded.",
        &[
            "printf altered-on-purpose | dd of=model.vseal bs=1 seek=1000000 conv=notrunc status=none",
            "vram verify model.vseal --key-file node.key --model-id llama",
            "vram load model.vseal --key-file node.key --model-id llama --device host:16MiB",
        ],
    ),
    step(
        "A store",
        "Pushed once, loaded anywhere. A folder here; a bucket with the feature `cloud`. Nothing on the way is believed.",
        &[
            "vram push model.safetensors --model-id llama --revision 1 --store store --key-file node.key",
            "vram store ls store",
            "vram load llama@1 --store store --key-file node.key --device host:16MiB",
            "vram pull llama@1 --store store --key-file node.key -o images",
        ],
    ),
    step(
        "Look at it",
        "The snapshot is from the first step, taken while the altered shard was there. A browser shows the page.",
        &["vram view snapshot.json -o view.html"],
    ),
    step(
        "Keep it resident",
        "All of the above ended with its process. A server stays. (Until it listens, `vram ps` says that there is none.)",
        &[
            "cat >vram.toml <<'END'
[[device]]
device = \"host:16MiB\"

[[model]]
name = \"llama\"
path = \"model.safetensors\"
END",
            "vram serve --check --config vram.toml",
            "vram serve --config vram.toml >serve.log 2>&1 &",
            "vram ps",
            "vram ctl verify llama --level full",
            "vram ctl park llama",
            "vram ps",
            "vram ctl wake llama",
            "vram stop llama",
            LAST_WORD,
            "cat serve.log",
        ],
    ),
    Step {
        heading: "Before a card carries models",
        words: "`soak` burns it in for a set time, here two seconds, with bits flipped on purpose to test the test.",
        commands: &["vram soak --device host:4MiB --for 2s --flip"],
        volatile: Volatile::Numbers,
    },
];
