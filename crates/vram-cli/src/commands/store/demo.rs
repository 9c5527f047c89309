//! `vram store demo`: push, load, flip a byte in the store, load from a mirror.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use tempfile::TempDir;
use vram_residency::{
    ByteLen, CancelToken, ImportRequest, KeyRing, SealKey, SealParams, VramManager,
};
use vram_serve::altered;
use vram_store::{
    LoadError, Pull, Push, Pushed, Sample, Store, Trusted, VerifyMeans, Wanted, created_at,
    image_key,
};

use super::{Telling, copy_of};
use crate::args::store::StoreDemoArgs;
use crate::commands::keys;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Output;
use crate::table::{self, Table};

const MODEL: &str = "llama";

/// The result, as JSON shows it. Every step passed: else it fails.
#[derive(Debug, Serialize)]
struct Shown {
    content_len: u64,
    manifest: String,
    steps: Vec<Step>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Step {
    #[serde(rename = "step")]
    name: &'static str,
    outcome: String,
    seconds: f64,
}

/// Two folders as stores, and what the steps share.
struct Demo<'a> {
    folder: TempDir,
    key: SealKey,
    keys: KeyRing,
    token: &'a CancelToken,
    files: Vec<PathBuf>,
    steps: Vec<Step>,
}

/// Runs all steps.
pub(super) fn run(args: &StoreDemoArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let started = Instant::now();
    output
        .line("Sealed images in a store: pushed once, loaded anywhere, and nobody on the way is")?;
    output.line("believed. Here the store is a folder, and so is its mirror.")?;
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::input(format!("cannot make a temporary folder: {error}"))
            .code("io")
            .hint("set TMPDIR to a folder that can be written")
    })?;
    let key = keys::random()?;
    let keys = KeyRing::new(copy_of(&key)?);
    let mut demo = Demo { folder, key, keys, token: &token, files: Vec::new(), steps: Vec::new() };
    let content_len = demo.write_model(args.size)?;
    let pushed = demo.push()?;
    let manifest = demo.find(&pushed)?;
    demo.load_whole(&manifest)?;
    demo.flip_a_byte(&manifest)?;
    demo.load_from_the_mirror(&manifest)?;
    demo.mend(&pushed)?;

    let mut rows = Table::new(2, &["step", "outcome", "seconds"]);
    for step in &demo.steps {
        rows.row([step.name.to_owned(), step.outcome.clone(), format!("{:.2}", step.seconds)]);
    }
    output.line("")?;
    output.write(&rows.render())?;
    output.line("")?;
    let seconds = started.elapsed().as_secs_f64();
    output.line(format!("All of that took {seconds:.1} s. Now yours:"))?;
    output.line(
        "  vram push MODEL.safetensors --model-id ID --revision 1 --store FOLDER --key-file KEY",
    )?;
    let manifest = pushed.id.to_string();
    output.json(&Shown { content_len, manifest, steps: demo.steps, seconds })
}

impl Demo<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self, name: &str) -> Result<Store, Failure> {
        Ok(Store::open_or_create(&self.at(name).display().to_string())?)
    }

    fn told(&mut self, step: &'static str, began: Instant, outcome: impl Into<String>) {
        let seconds = began.elapsed().as_secs_f64();
        self.steps.push(Step { name: step, outcome: outcome.into(), seconds });
    }

    /// Two files of made-up weights.
    fn write_model(&mut self, size: ByteLen) -> Result<u64, Failure> {
        let began = Instant::now();
        let each = (size.get() / 2).max(1 << 20);
        for name in ["model-00001-of-00002", "model-00002-of-00002"] {
            let path = self.at(name);
            let failed = |error| Failure::file("write", &path, &error);
            let mut file = fs::File::create(&path).map_err(failed)?;
            let mut line = 1_u64;
            let mut left = each;
            while left > 0 {
                interrupt::check(self.token)?;
                let piece: Vec<u8> = (0..(8_u64 << 10).min(left).div_ceil(8))
                    .flat_map(|_| {
                        // A generator of no quality: the bytes only must differ from place to place.
                        line = line.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        line.to_le_bytes()
                    })
                    .collect();
                file.write_all(&piece).map_err(failed)?;
                left = left.saturating_sub(ByteLen::from_usize(piece.len()).get());
            }
            self.files.push(path);
        }
        let total = each.saturating_mul(2);
        self.told("a model", began, format!("2 files, {}", table::size(ByteLen::new(total))));
        Ok(total)
    }

    fn push_to(&self, name: &str) -> Result<Pushed, Failure> {
        let push = Push {
            key: &self.key,
            model: MODEL,
            revision: 1,
            context: b"",
            files: self.files.clone(),
            format: "bytes",
            ranks: Vec::new(),
            fleet: None,
            params: SealParams::new(),
            plaintext: false,
            created: created_at(SystemTime::now()),
            mirrors: Vec::new(),
        };
        let telling = Telling::new("push");
        Ok(self.store(name)?.push(&push, &telling.options(self.token))?)
    }

    /// Pushes twice: the second time nothing is sent.
    fn push(&mut self) -> Result<Pushed, Failure> {
        let began = Instant::now();
        let pushed = self.push_to("store")?;
        let sent = table::count(pushed.sent, "image");
        self.told("push", began, format!("{sent} sealed, sent and read back; the manifest last"));
        let began = Instant::now();
        let again = self.push_to("store")?;
        expect(again.sent == 0 && again.id == pushed.id, "the second push sent something")?;
        self.told("push again", began, "nothing is sent: the same content has the same names");
        let began = Instant::now();
        copy_folder(&self.at("store"), &self.at("mirror"))?;
        self.told("a mirror", began, "a plain copy of the folder");
        Ok(pushed)
    }

    fn find(&self, pushed: &Pushed) -> Result<Trusted, Failure> {
        let wanted = Wanted { model: MODEL, revision: 1, pin: Some(&pushed.id) };
        let telling = Telling::new("find");
        Ok(self.store("store")?.manifest(&wanted, &self.keys, &telling.options(self.token))?)
    }

    /// Loads all shards into a host device, from the store alone or with the mirror after it.
    fn load(&self, manifest: &Trusted, with_mirror: bool) -> Result<Vec<super::Lied>, Failure> {
        let total = manifest.shards().iter().map(|shard| shard.plaintext_len);
        let total = total.fold(1 << 20, u64::saturating_add).next_multiple_of(256);
        let manager = VramManager::builder()
            .host_device(ByteLen::new(total))
            .key(copy_of(&self.key)?)
            .build()?;
        let telling = Telling::new("load");
        let (store, mirror) = (self.store("store")?, self.store("mirror")?);
        // The last one is asked last.
        let last = if with_mirror { &mirror } else { &store };
        let mut pull = Pull::new(manifest, &self.keys, b"", last);
        if with_mirror {
            pull = pull.mirror(&store);
        }
        let pull = pull.options(telling.options(self.token));
        for shard in manifest.shards() {
            let admit = |reader: &mut vram_store::SealedReader<'_, '_>| {
                manager.import(ImportRequest::new(MODEL, 0).revision(1), reader)
            };
            pull.load(shard.index, altered, admit).map_err(|error| match error {
                LoadError::Store(error) => Failure::from(error),
                LoadError::Admit(error) => Failure::from(error),
                _ => Failure::usage("the image could not be loaded"),
            })?;
        }
        drop(pull);
        Ok(telling.take().lies)
    }

    fn load_whole(&mut self, manifest: &Trusted) -> Result<(), Failure> {
        let began = Instant::now();
        let lies = self.load(manifest, false)?;
        expect(lies.is_empty(), "a good store was called a liar")?;
        self.told("load", began, "into device memory, every segment verified on its way");
        Ok(())
    }

    fn flip_a_byte(&mut self, manifest: &Trusted) -> Result<(), Failure> {
        let began = Instant::now();
        let Some(shard) = manifest.shards().first() else { return expect(false, "no shard") };
        let path = self.at("store").join(image_key(&shard.image));
        let failed = |error| Failure::file("alter", &path, &error);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let (at, mut byte) = (shard.image_len / 2, [0]);
        file.read_exact_at(&mut byte, at).map_err(failed)?;
        file.write_all_at(&byte.map(|byte| byte ^ 1), at).map_err(failed)?;
        self.told("one bit flipped", began, format!("in the store, at byte {at} of an image"));

        let began = Instant::now();
        let Err(refused) = self.load(manifest, false) else {
            return expect(false, "a flipped bit was loaded");
        };
        let refused = refused.to_string();
        let named = refused.split(": segment ").nth(1).and_then(|rest| rest.split(';').next());
        let Some(named) = named else { return expect(false, &refused) };
        self.told("load", began, format!("refused: segment {named}; nothing stays loaded"));

        let began = Instant::now();
        let telling = Telling::new("verify");
        let store = self.store("store")?;
        let options = telling.options(self.token);
        let verdict = store.verify(None, VerifyMeans::Keyless, Sample::All, &options)?;
        let found: Vec<_> = verdict.findings.iter().map(|finding| finding.what.clone()).collect();
        expect(found.len() == 1, "the keyless verification did not find one part")?;
        self.told("verify, without a key", began, found.join("; "));
        Ok(())
    }

    fn load_from_the_mirror(&mut self, manifest: &Trusted) -> Result<(), Failure> {
        let began = Instant::now();
        let lies = self.load(manifest, true)?;
        let [lie] = &lies[..] else { return expect(false, "the liar was not named once") };
        let what = format!("the store lied ({}), and the mirror served", lie.what);
        self.told("load, with a mirror", began, what);
        Ok(())
    }

    /// A push mends what it finds wrong, as far as it looks: first and last part. The file goes first.
    fn mend(&mut self, pushed: &Pushed) -> Result<(), Failure> {
        let began = Instant::now();
        let Some(shard) = pushed.manifest.shards.first() else { return expect(false, "no shard") };
        let path = self.at("store").join(image_key(&shard.image));
        fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, &error))?;
        let again = self.push_to("store")?;
        expect(again.sent == 1, "not exactly the missing image was sent")?;
        self.told("remove it, push again", began, "1 image sent: what was missing, and no more");
        Ok(())
    }
}

fn expect(good: bool, what: &str) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(Failure::integrity(format!("the demonstration failed: {what}"))) }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::file("copy", from, &error);
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}
