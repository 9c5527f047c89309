//! Running the built program as a user would, in a folder of its own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use vram_model::synth::{LlamaShape, SynthModel};
use vram_residency::{ByteLen, ContentDigest, ContentHasher, HashKind};

/// A folder that is removed when the test ends, in which the program runs.
pub(crate) struct Bench {
    folder: TempDir,
}

/// The output and exit code of one run.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything in the folder, hidden files included, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A key file, made by the program itself.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.run(["keygen", "-o", name]).expect_code(0);
        self.path(name)
    }

    /// A sound model of about `kib` KiB.
    pub(crate) fn model(&self, name: &str, kib: u64) -> PathBuf {
        let path = self.path(name);
        let shape = LlamaShape::about(ByteLen::new(kib << 10));
        SynthModel::llama(&shape, kib).unwrap().write_file(&path).unwrap();
        path
    }

    /// The program with these arguments, run in the folder.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vram"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            // Hides the GPUs of this machine: a test that needs one sets the driver itself.
            .env("VRAM_CUDA_DRIVER", "/nowhere/libcuda.so.1")
            .env("VRAM_NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Seals `content` as `name` with the key `key`.
    pub(crate) fn sealed(&self, content: &[u8], name: &str, more: &[&str]) -> PathBuf {
        if !self.path("key").exists() {
            self.key("key");
        }
        self.write("content", content);
        let base = ["seal", "content", "--key-file", "key", "--model-id", "m", "-o", name];
        self.run(base.iter().chain(more)).expect_code(0);
        self.path(name)
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// A failure with this code: nothing on standard output, one line on standard error that says
    /// `error: …` and holds all of `words`.
    #[track_caller]
    pub(crate) fn expect_error(self, code: i32, words: &[&str]) -> Self {
        let ran = self.expect_code(code);
        assert_eq!(ran.stdout, "", "stderr: {}", ran.stderr);
        ran.expect_error_line(words)
    }

    /// One line `error: …` on standard error, with all of `words`; notes may stand before it.
    #[track_caller]
    pub(crate) fn expect_error_line(self, words: &[&str]) -> Self {
        let errors: Vec<&str> =
            self.stderr.lines().filter(|line| !line.starts_with("vram: ")).collect();
        let [line] = errors[..] else { panic!("{}", self.stderr) };
        assert!(line.starts_with("error: "), "{line}");
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
        assert!(!line.contains("panicked"), "{line}");
        self
    }
}

/// The digest that `b3sum` would print.
pub(crate) fn blake3(bytes: &[u8]) -> ContentDigest {
    ContentHasher::digest(HashKind::Blake3, bytes)
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
