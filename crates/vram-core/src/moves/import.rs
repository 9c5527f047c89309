//! Imports a sealed image: the shard becomes resident after every segment was verified, or not at
//! all.
//!
//! ```text
//!   1 the record: key, model, context, length      nothing is allocated from it before
//!   2 padding and table
//!   3 a slot in the count of shards, a placement
//!   4 each window, in order: read, opened in scratch memory, hashed, written unchanged
//!   5 the end of the image; the content as a whole against the record
//!   6 every segment is opened at its placement
//!   7 into the registry
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::{FileState, Watch, WatchOptions, regular_file};
use vram_seal::parallel::{Threads, for_each_segment};
use vram_seal::{
    Hashes, ImageLayout, OpenLimits, Protection, SealRecord, SegmentTags, open_record_in,
};
use vram_space::{Gpu, Space};

use crate::error::VramError;
use crate::moves::arrival::{cut_short, read_part, read_some};
use crate::moves::{Arrival, ImportRequest, Proven};
use crate::parts::{Core, keys};
use crate::sealing::entry::Ready;
use crate::sealing::{SealRequest, entry, place};
use crate::shard::seal::prints::{Arming, Prints};
use crate::shard::{
    Check, Counted, Description, Exported, Metadata, Moment, Seal, SealedAs, SealedShard, View,
};
use crate::sync::Mutex;
use crate::transfer::read::scratch;
use crate::transfer::{ReadBack, Windows};

/// The image, and its state before its first byte was read.
fn open_image(path: &Path) -> Result<(File, FileState), VramError> {
    let open = || {
        let file = regular_file::open_regular(path)?;
        let state = FileState::of(&file)?;
        Ok((file, state))
    };
    open().map_err(|error| VramError::Io {
        action: "open the sealed image",
        path: Some(path.to_path_buf()),
        source: Arc::new(error),
    })
}

/// Adds the path of the file to the error of an image.
fn in_file(path: &Path, error: VramError) -> VramError {
    match error {
        VramError::Seal(source) => {
            VramError::Image { path: path.to_path_buf(), source: Box::new(source) }
        }
        other => other.in_file(path),
    }
}

/// A place for one shard, and its slot in the count of shards.
pub(crate) type Place = (Space, Counted);

/// An image that lies in device memory, verified there. Dropping it returns everything.
pub(crate) struct Landed {
    pub(crate) seal: Arc<Seal>,
    pub(crate) space: Space,
    /// When reading back began, if all of the shard was read back.
    pub(crate) verified: Option<Check>,
}

/// Imports the image that a reader yields.
pub fn import(
    core: &Core,
    request: ImportRequest<'_>,
    image: &mut (dyn Read + Send),
) -> Result<SealedShard, VramError> {
    import_whole(core, request, image, &|| Ok(()))
}

/// Imports an image. `unchanged` is called after the last byte was read, unless the content has the
/// digest that the caller expects.
fn import_whole(
    core: &Core,
    mut request: ImportRequest<'_>,
    image: &mut (dyn Read + Send),
    unchanged: &dyn Fn() -> Result<(), VramError>,
) -> Result<SealedShard, VramError> {
    core.check_open()?;
    let gpu = Arc::clone(core.gpu(request.request.gpu)?);
    gpu.ready()?;
    request.request.check()?;
    if let Some(metadata) = &request.metadata {
        metadata.check()?;
    }
    let proven = prove(core, &request, image)?;
    let len = proven.opener.fields().plaintext_len();
    let watch = core::mem::take(&mut request.watch).begin(len)?;

    let wanted = as_in_image(request.request, &proven);
    let (space, counted) = place::place(core, &wanted, len)?;
    let landed = land(core, &wanted, proven, image, space, &watch)?;
    if request.expected_digest != Some(landed.seal.digest) {
        unchanged()?;
    }
    if let Some(expected) = request.expected_digest
        && expected != landed.seal.digest
    {
        let (model_id, found) = (&wanted.sealed_as.model_id, landed.seal.digest);
        return Err(VramError::another_content(model_id, expected, found));
    }
    let ready = ready(core, &wanted, landed, counted, request.convert_to)?;
    // Called before the shard is resident: a callback that panics must not leave a shard behind.
    watch.finish();
    entry::publish(core, ready)
}

/// Verifies the image of one piece of a model, in the placement that `place` gives. The shard is not
/// resident yet.
pub(crate) fn import_piece(
    core: &Core,
    request: ImportRequest<'_>,
    image: &mut (dyn Read + Send),
    len: ByteLen,
    place: impl FnOnce() -> Result<Place, VramError>,
    watch: &Watch<'_>,
) -> Result<Ready, VramError> {
    let proven = prove(core, &request, image)?;
    let found = proven.opener.fields().plaintext_len();
    if found != len {
        let model_id = &request.request.sealed_as.model_id;
        return Err(VramError::config(format!(
            "an image of model {model_id} has {found} bytes of content, and its plan says {len}"
        )));
    }
    let (space, counted) = place()?;
    let wanted = as_in_image(request.request, &proven);
    let landed = land(core, &wanted, proven, image, space, watch)?;
    ready(core, &wanted, landed, counted, request.convert_to)
}

/// The request with the values of the image where it does not require others.
fn as_in_image(mut wanted: SealRequest, proven: &Proven) -> SealRequest {
    let fields = proven.opener.fields();
    wanted.sealed_as.metadata = Description::Given(proven.metadata.clone());
    wanted.sealed_as.shard_index = fields.shard_index();
    wanted.sealed_as.revision = fields.revision();
    wanted
}

/// The shard of an image that was verified in device memory; not resident yet.
fn ready(
    core: &Core,
    wanted: &SealRequest,
    landed: Landed,
    counted: Counted,
    convert_to: Option<Protection>,
) -> Result<Ready, VramError> {
    let Landed { seal, space, verified } = landed;
    let id = wanted.id(core);
    let ready = entry::entry(core, id, wanted, seal, space, counted, verified);
    match convert_to {
        Some(to) => ready.in_protection(core, to),
        None => Ok(ready),
    }
}

/// Writes an image to the space that was taken for it, and verifies it there.
fn land(
    core: &Core,
    wanted: &SealRequest,
    proven: Proven,
    image: &mut (dyn Read + Send),
    mut space: Space,
    watch: &Watch<'_>,
) -> Result<Landed, VramError> {
    let fields = proven.opener.fields();
    let params = core
        .defaults
        .with_protection(fields.protection())
        .with_segment(fields.segment())
        .with_suite(fields.suite().unwrap_or(core.defaults.suite()))
        .with_scope(fields.scope().unwrap_or(core.defaults.scope()));
    space.written()?;
    let read_back = wanted.read_back.unwrap_or(ReadBack::Fingerprint);
    let layout = *proven.opener.layout();
    let arming = read_back.arming(space.gpu(), &layout, proven.opener.protection())?;
    let hashes = write_image(&proven, image, &space, arming.as_ref(), watch)?;
    let digest = proven.opener.check_digest(&hashes)?;
    let Proven { opener, key_use, .. } = proven;
    let prints = Prints::default();
    if let Some(arming) = arming {
        prints.keep_all(arming);
    }
    let seal = Arc::new(Seal { opener, params, digest, prints, key_use });
    let view = View::of(&mut space, seal)?;
    let began = Moment::now(&*core.clock);
    let verified = view.read_back(read_back)?.map(|by| Check { began, by });
    Ok(Landed { seal: view.seal, space, verified })
}

/// Writes the content of a lost shard to a GPU, from the image that the shard was exported to.
/// `lost` is the seal of the lost shard; the image may have another protection.
///
/// # Errors
///
/// Those of an import. Returns `None` if the file holds another image now.
pub(crate) fn bring_back(
    core: &Core,
    sealed_as: &SealedAs,
    exported: &Exported,
    lost: &Seal,
    target: &Arc<Gpu>,
    place: impl FnOnce() -> Result<Space, VramError>,
) -> Result<Option<Landed>, VramError> {
    target.ready()?;
    let path = &exported.path;
    // Its state does not matter: the content is compared with that of the lost shard.
    let (mut file, _state) = open_image(path)?;
    let request = ImportRequest::again(sealed_as, target.index);
    let back = || {
        let proven = prove(core, &request, &mut file)?;
        if proven.record != exported.record {
            return Ok(None);
        }
        let watch = WatchOptions::default().begin(proven.opener.fields().plaintext_len())?;
        let landed = land(core, &request.request, proven, &mut file, place()?, &watch)?;
        // The content of an Authenticated shard was sealed anew for the image.
        let same = landed.seal.digest == lost.digest;
        Ok(same.then_some(landed))
    };
    back().map_err(|error| in_file(path, error))
}

/// Reads and verifies everything that precedes the data.
fn prove(
    core: &Core,
    request: &ImportRequest<'_>,
    image: &mut (dyn Read + Send),
) -> Result<Proven, VramError> {
    let expected = request.expected()?;
    let mut head = [0_u8; SealRecord::LEN];
    let found = read_some(image, &mut head)?;
    let record = SealRecord::from_bytes(head);
    if found < SealRecord::LEN {
        return Err(cut_short("the record of a sealed image", 256, found));
    }
    let limits = OpenLimits { max_len: core.limits.shard_len_max };
    let keys = keys::ring(core)?;
    let opened = open_record_in(&keys, &record, &expected, limits)?;
    let metadata = request.metadata.clone().unwrap_or_else(|| {
        // The code of no metadata is known under every key.
        match open_record_in(&keys, &record, &expected.metadata(&[]), limits) {
            Ok(_) => Metadata::default(),
            Err(_) => Metadata::Coded(Box::new(opened.fields().metadata_code())),
        }
    });
    let key_use = core.key_uses.take(opened.fields().key_id());
    drop(keys);

    // The record is genuine: memory may be allocated from its fields.
    let layout = ImageLayout::for_fields(opened.fields());
    let table = read_part(image, layout.table_len(), layout.padding_offset())?;
    let padding = read_part(image, layout.padding_len(), layout.data_offset())?;
    layout.check_padding(&padding)?;
    let tags = SegmentTags::from_bytes(opened.fields(), table)?;
    let image_len = layout.total_len();
    Ok(Proven { record, opener: opened.with_table(tags)?, key_use, image_len, metadata })
}

/// Writes the data to `space`, each segment opened before, and waits until the device has all
/// bytes.
fn write_image(
    proven: &Proven,
    image: &mut (dyn Read + Send),
    space: &Space,
    arming: Option<&Arming>,
    watch: &Watch<'_>,
) -> Result<Vec<vram_seal::SegmentHash>, VramError> {
    let opener = &proven.opener;
    let layout = *opener.layout();
    let windows = Windows::on(space.gpu(), layout)?;
    let hashes = Hashes::new(&layout)?;
    let arrival = Arrival { windows: &windows, next: Mutex::new((0, image)), proven, arming };
    let lanes = windows.lanes(space.gpu(), [1, windows.buffers()], windows.count())?;
    let longest = layout.segment_size().bytes().min(layout.plaintext_len());
    for_each_segment(
        Threads::exactly(lanes.workers()),
        windows.count(),
        || Ok((lanes.worker(), scratch(longest)?)),
        |(worker, scratch), _turn| {
            watch.go_on()?;
            let done = arrival.write_window(worker, scratch, space, &hashes)?;
            watch.advance(done);
            Ok::<_, VramError>(())
        },
    )?;
    lanes.finish()?;
    arrival.expect_end()?;
    Ok(hashes.into_vec())
}

/// Imports the image in a file.
pub fn import_from(
    core: &Core,
    request: ImportRequest<'_>,
    path: &Path,
) -> Result<SealedShard, VramError> {
    core.check_open()?;
    let (file, state) = open_image(path)?;
    let unchanged = || Ok(state.check(&file, &path.display().to_string())?);
    import_whole(core, request, &mut &file, &unchanged).map_err(|error| in_file(path, error))
}
