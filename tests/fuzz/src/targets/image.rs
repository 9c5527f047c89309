//! Sealed images: only what was sealed is accepted, by every way in, whoever signs what was changed;
//! after a refusal nothing is resident, and no byte is taken.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use tempfile::TempDir;
use vram_residency::{
    ByteLen, Expected, ImageOptions, ImportRequest, Threads, VramManager, inspect_image,
    unseal_image, unseal_image_to, verify_image,
};
use vram_seal::{ImageLayout, OpenLimits, image, open_record};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;
use crate::specimens::{self as made, tells_nothing};

/// The target.
pub const TARGET: Target = Target {
    name: "image",
    promise: "only an image that was made is accepted, by every way in, and a refusal leaves nothing",
    run,
    seeds,
    len_max: 600,
    cases: 4_000,
};

/// A node with little memory, and a folder for files.
struct World {
    manager: VramManager,
    folder: TempDir,
}

impl World {
    fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(|| {
            let builder = VramManager::builder().host_device(ByteLen::MIB).key(made::key());
            let manager = builder.threads(Threads::exactly(1)).build().unwrap();
            // In memory where there is such a folder: each input is a file.
            let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
            Self { manager, folder: folder.unwrap() }
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-{:?}", std::thread::current().id()))
    }
}

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let specimens = made::all();
    let specimen = choices.of(specimens);
    let how = choices.byte();
    let mut bytes = specimen.image.clone();
    if how & 4 == 0 {
        let others: Vec<&[u8]> = specimens.iter().map(|one| &one.image[..]).collect();
        edit(&mut choices, &mut bytes, &others, 6);
    } else {
        bytes = choices.rest().to_vec();
    }
    match how & 3 {
        1 => made::sign_record(&mut bytes),
        2 => sign_all(&mut bytes),
        _ => {}
    }
    let genuine = specimens.iter().find(|one| one.image == bytes);
    let content = genuine.map(|one| one.plaintext.as_slice());
    let world = World::get();
    in_memory(&bytes, content);
    import(&world.manager, &bytes, content);
    files(world, &bytes, content, how & 8 != 0);
}

/// Signs the table that the record states, and the record.
fn sign_all(bytes: &mut [u8]) {
    let Ok(fields) = image::record(bytes).and_then(|record| record.parse_unauthenticated()) else {
        return made::sign_record(bytes);
    };
    let end = 256_u64.saturating_add(ImageLayout::for_fields(&fields).table_len());
    let end = usize::try_from(end).unwrap().min(bytes.len());
    let (record, table) = bytes.split_at_mut(256);
    made::sign_table(record, &table[..end - 256]);
}

/// Opens it step by step, with slices alone.
fn in_memory(bytes: &[u8], content: Option<&[u8]>) {
    let opened = image::record(bytes).and_then(|record| {
        let proven = open_record(&made::key(), &record, &made::expected(), OpenLimits::default())?;
        let (tags, data) = image::split(proven.fields(), bytes)?;
        let opener = proven.with_table(tags)?;
        let mut out = vec![0xee; data.len()];
        let answer = vram_seal::unseal(&opener, Threads::exactly(1), data, &mut out);
        assert!(answer.is_ok() || out.iter().all(|byte| *byte == 0), "what is refused is wiped");
        answer.map(|()| out)
    });
    assert_eq!(opened.as_deref().ok(), content, "{:?}", opened.as_ref().err());
}

/// Makes it resident.
fn import(manager: &VramManager, bytes: &[u8], content: Option<&[u8]>) {
    let before = manager.capacity(0).unwrap();
    let request = || ImportRequest::new(made::MODEL, 0).context(made::CONTEXT);
    let answer = manager.import(request().any_protection(), bytes);
    match (answer, content) {
        (Ok(shard), Some(content)) => {
            assert_eq!(manager.unseal_model(&shard).unwrap(), content);
            manager.free_shard(&shard).unwrap();
        }
        (Err(error), None) => {
            tells_nothing(&format!("{error} {error:?}"));
        }
        (Ok(_), None) => panic!("an image that nobody made is resident"),
        (Err(error), Some(_)) => panic!("a genuine image is refused: {error}"),
    }
    assert!(manager.shards().is_empty());
    assert_eq!(manager.capacity(0).unwrap(), before);
    // Plaintext is accepted by its name alone.
    let sealed = made::all().iter().any(|one| one.image == bytes && one.is_encrypted());
    match manager.import(request(), bytes) {
        Ok(shard) => {
            assert!(sealed, "plaintext is taken for ciphertext");
            manager.free_shard(&shard).unwrap();
        }
        Err(_) => assert!(!sealed),
    }
    // Under another name it never gets in.
    let other = ImportRequest::new("another", 0).context(made::CONTEXT).any_protection();
    assert!(manager.import(other, bytes).is_err());
}

/// Reads it as a file.
fn files(world: &World, bytes: &[u8], content: Option<&[u8]>, to_file: bool) {
    let (keys, expected) = (made::keys(), made::expected());
    let (path, target) = (world.path("image"), world.path("out"));
    let options = || ImageOptions::new().threads(Threads::exactly(1));
    fs::write(&path, bytes).unwrap();
    let verdict = verify_image(&keys, &expected, &path, options());
    let sound = verdict.as_ref().is_ok_and(vram_residency::ImageVerdict::is_sound);
    assert_eq!(sound, content.is_some(), "{verdict:?}");
    let mut sink = Vec::new();
    let opened = unseal_image_to(&keys, &expected, &path, &mut sink, options());
    assert_eq!(opened.is_ok(), content.is_some(), "{opened:?}");
    assert_eq!(sink, content.unwrap_or_default(), "all of it or nothing");
    if to_file {
        let opened = unseal_image(&keys, &Expected::anything(), &path, &target, options());
        assert_eq!(opened.is_ok(), content.is_some(), "{opened:?}");
        assert_eq!(fs::read(&target).ok().as_deref(), content);
        drop(fs::remove_file(&target));
    }
    if let Ok(info) = inspect_image(&path) {
        assert_eq!(info.file_len, ByteLen::from_usize(bytes.len()));
        assert_eq!(&info.record[..], &bytes[..256]);
    } else {
        assert!(content.is_none());
    }
    fs::remove_file(&path).unwrap();
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("genuine", vec![16, 8]),
        ("empty", vec![3, 0]),
        ("record-bit", vec![16, 0, 0, 40, 0, 1]),
        ("signed-length", vec![16, 1, 6, 16, 0, 3, 14, 6, 24, 0, 3, 9]),
        ("signed-huge", vec![12, 2, 6, 16, 0, 3, 20, 6, 24, 0, 3, 16, 1, 14, 0, 24]),
        ("signed-table", vec![17, 2, 0, 10, 1, 3]),
        ("padding", vec![15, 0, 0, 0, 0x0f, 1]),
        ("data", vec![19, 8, 0, 0, 0x20, 1]),
        ("cut", vec![18, 0, 7, 0, 0x20]),
        ("longer", vec![18, 0, 2, 0, 0x30, 3, 0, 0, 0]),
        ("two-images", vec![16, 2, 8, 17, 0, 0, 16, 0, 16, 0, 16]),
        ("raw", [vec![0, 4], b"VRSEAL1\0\x01\0".to_vec()].concat()),
    ]
}
