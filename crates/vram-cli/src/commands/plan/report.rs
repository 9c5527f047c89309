//! The plan, as it is printed.

use serde::Serialize;
use vram_model::shown_whole;
use vram_residency::{ByteLen, Fit, Piece, Placements};

use super::places::{self, Place};
use super::smaller::Smaller;
use crate::commands::devices::{CardFigures, Devices};
use crate::commands::load::tensors;
use crate::failure::Failure;
use crate::model::Model;
use crate::output::Output;
use crate::{steps, table};

/// Places that are listed for people unless all are asked for.
const LISTED_MAX: usize = 40;

/// The plan, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model_id: String,
    fits: bool,
    /// Why these devices were used, if the user named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<String>,
    files: Vec<FileReport>,
    tensor_count: usize,
    /// Tensors of more than 64 MiB are placed in several pieces.
    piece_count: usize,
    content_len: u64,
    /// What the pieces take, in whole granules of 256 bytes; if the model does not fit, what they
    /// would take at most.
    footprint: u64,
    gpus: Vec<GpuReport>,
    /// What is short, if the model does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    short: Option<Short>,
    /// Models that would have to go: none, since a program that starts holds none.
    evictions: Vec<String>,
    /// Formats in which the model would be smaller; estimated only if it does not fit.
    smaller: Vec<Smaller>,
    /// Those that find a place, in the order of the plan.
    places: Vec<Place>,
}

#[derive(Debug, Serialize)]
struct FileReport {
    path: String,
    format: &'static str,
    len: u64,
    tensor_count: usize,
    /// Bytes of tensors that the file ends before.
    missing_len: u64,
}

/// The figures of one GPU with the model in place.
#[derive(Debug, Serialize)]
struct GpuReport {
    gpu: u32,
    name: String,
    uuid: String,
    piece_count: usize,
    /// Bytes that may be taken of it.
    total: u64,
    headroom: u64,
    /// Bytes of those that other processes hold.
    foreign: u64,
    room_before: u64,
    /// Bytes that the model takes.
    taken: u64,
    room_after: u64,
    largest_hole_after: u64,
    hole_count_after: u64,
    /// The figures of a card, of which the program takes no more than the model needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<CardFigures>,
}

#[derive(Debug, Serialize)]
struct Short {
    /// What is needed: by the whole model, or by the first piece without a place.
    needed: u64,
    room: u64,
    /// What the devices lack together; 0 if the holes alone are too small.
    missing: u64,
    largest_hole: u64,
    /// The first piece without a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor: Option<String>,
}

impl Report {
    pub(super) fn of(
        model: &Model,
        devices: &Devices,
        placements: &Placements,
        smaller: Vec<Smaller>,
    ) -> Self {
        let pieces = model.plan.pieces();
        let footprint = match &placements.fit {
            Fit::Fits { footprint } => *footprint,
            _ => model.plan.footprint(),
        };
        let files = model.files.iter().map(|file| FileReport {
            path: file.path.display().to_string(),
            format: file.header.format(),
            len: file.header.file_len().get(),
            tensor_count: file.header.tensors().len(),
            missing_len: file.header.missing().get(),
        });
        Self {
            model_id: model.id.clone(),
            fits: placements.fit.is_yes(),
            devices: devices.why.clone(),
            tensor_count: pieces.iter().filter(|piece| piece.part == 0).count(),
            piece_count: pieces.len(),
            content_len: model.plan.total().get(),
            footprint: footprint.get(),
            files: files.collect(),
            gpus: gpus(devices, placements),
            short: short(pieces, placements),
            evictions: Vec::new(),
            smaller,
            places: places::of(pieces, &placements.pieces),
        }
    }

    pub(super) fn print(
        &self,
        model: &Model,
        all: bool,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let size = |len| table::size(ByteLen::new(len));
        for file in &self.files {
            let (path, tensors) = (shown_whole(&file.path), tensors(file.tensor_count));
            output.line(format!("{path}: {}, {}, {tensors}", file.format, size(file.len)))?;
        }
        if let Some(why) = &self.devices {
            output.line(why)?;
        }
        output.line(self.verdict(model))?;

        output.line("")?;
        let head =
            ["gpu", "pieces", "takes", "total", "headroom", "room left", "largest hole", "holes"];
        let mut gpus = table::Table::new(1, &head);
        for gpu in &self.gpus {
            gpus.row([
                format!("{} {}", gpu.gpu, gpu.name),
                gpu.piece_count.to_string(),
                size(gpu.taken),
                size(gpu.total),
                size(gpu.headroom),
                size(gpu.room_after),
                size(gpu.largest_hole_after),
                gpu.hole_count_after.to_string(),
            ]);
        }
        output.write(&gpus.render())?;
        for gpu in &self.gpus {
            if let Some(card) = &gpu.card {
                output.line(format!("gpu {}: {}", gpu.gpu, card.in_words()))?;
            }
        }
        if !self.fits {
            output.line("(with the pieces that find a place; `vram load` would place none)")?;
        }
        self.print_places(all, output)?;
        self.print_smaller(output)?;
        if !self.fits {
            // What is missing is said by the failure: no other model could go for it.
            return Ok(());
        }
        output.line("")?;
        output.line("nothing has to go: a program that starts holds no other model")
    }

    fn verdict(&self, model: &Model) -> String {
        let bytes = |len| format!("{} ({len} bytes)", table::size(ByteLen::new(len)));
        let what = format!(
            "{} in {}",
            tensors(self.tensor_count),
            table::count(ByteLen::from_usize(self.piece_count).get(), "piece")
        );
        let Some(short) = &self.short else {
            return format!("it fits: {what} take {}", bytes(self.footprint));
        };
        let needed = bytes(model.plan.footprint().get());
        let lacks = match short.missing {
            0 => String::new(),
            missing => format!(", and {} are missing", bytes(missing)),
        };
        let place = short.tensor.as_ref().map_or_else(String::new, |tensor| {
            let hole = bytes(short.largest_hole);
            format!("; {tensor} finds no place: the largest hole left is {hole}")
        });
        format!("IT DOES NOT FIT: {what} take {needed}{lacks}{place}")
    }

    fn print_places(&self, all: bool, output: &mut Output) -> Result<(), Failure> {
        if self.places.is_empty() {
            return Ok(());
        }
        output.line("")?;
        let shown = if all { self.places.len() } else { LISTED_MAX };
        let mut table =
            table::Table::new(2, &["tensor", "type", "bytes", "gpu", "offset", "pieces"]);
        for place in self.places.iter().take(shown) {
            let part = if place.whole { "" } else { " (a part)" };
            table.row([
                format!("{}{part}", shown_whole(&place.tensor)),
                place.format.unwrap_or("-").to_owned(),
                place.len.to_string(),
                place.gpu.to_string(),
                place.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
                place.piece_count.to_string(),
            ]);
        }
        output.write(&table.render())?;
        match self.places.len().saturating_sub(shown) {
            0 => Ok(()),
            rest => output.line(format!("{rest} more; --all lists them")),
        }
    }

    fn print_smaller(&self, output: &mut Output) -> Result<(), Failure> {
        if self.smaller.is_empty() {
            return Ok(());
        }
        output.line("")?;
        output
            .line("the same model in other formats, estimated from the shapes of its tensors:")?;
        let mut table = table::Table::new(1, &["format", "bytes", "takes", "fits"]);
        for one in &self.smaller {
            table.row([
                one.format.to_owned(),
                one.content_len.to_string(),
                table::size(ByteLen::new(one.footprint)),
                if one.fits { "yes" } else { "no" }.to_owned(),
            ]);
        }
        output.write(&table.render())?;
        output.line(
            "every matrix in that format, every vector in F32; mixtures such as Q4_K_M are some per \
             cent larger",
        )?;
        match self.smaller.first().map(|one| one.kept_count) {
            None | Some(0) => Ok(()),
            Some(count) => output.line(format!(
                "{} of integers counted as they are: their weights may be packed already",
                tensors(count)
            )),
        }
    }
}

fn gpus(devices: &Devices, placements: &Placements) -> Vec<GpuReport> {
    let infos = devices.infos();
    let both = placements.before.iter().zip(&placements.after);
    both.map(|(before, after)| {
        let info = usize::try_from(after.gpu).ok().and_then(|gpu| infos.get(gpu));
        GpuReport {
            gpu: after.gpu,
            name: info.map_or_else(String::new, |info| info.name.clone()),
            uuid: info.map_or_else(String::new, |info| info.uuid.to_string()),
            piece_count: placements.pieces.iter().filter(|place| place.gpu == after.gpu).count(),
            total: after.total.get(),
            headroom: after.headroom.get(),
            foreign: after.foreign.get(),
            room_before: before.room.get(),
            taken: after.used.saturating_sub(before.used).get(),
            room_after: after.room.get(),
            largest_hole_after: after.largest_hole.get(),
            hole_count_after: after.hole_count,
            card: devices.card(after.gpu, after.used.saturating_sub(before.used)),
        }
    })
    .collect()
}

fn short(pieces: &[Piece], placements: &Placements) -> Option<Short> {
    let Fit::ShortOf { needed, room, .. } = &placements.fit else { return None };
    let first = pieces.get(placements.pieces.len());
    let holes = placements.after.iter().map(|gpu| gpu.largest_hole);
    let footprint = pieces.iter().map(|piece| piece.len.get().next_multiple_of(256));
    let footprint = ByteLen::new(footprint.fold(0, u64::saturating_add));
    Some(Short {
        needed: needed.get(),
        room: room.get(),
        missing: footprint.saturating_sub(*room).get(),
        largest_hole: holes.max().unwrap_or(ByteLen::ZERO).get(),
        tensor: first.map(steps::name),
    })
}
