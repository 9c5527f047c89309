//! `vram plan`: whether a model fits, where each tensor would go, and what would be left.
//!
//! The answer comes from the manager that `vram load` builds, before it is built: no byte of a
//! device is taken, and no tensor is read.

mod places;
mod report;
mod smaller;

use vram_model::ModelSet;
use vram_residency::{Fit, Placements};

use self::report::Report;
use crate::args::PlanArgs;
use crate::commands::devices::Devices;
use crate::commands::load::{check_room, choose, no_room};
use crate::failure::{Failure, Kind};
use crate::model::Model;
use crate::output::{Output, note};
use crate::{streams, table};

/// Plans, and reports.
pub(crate) fn run(args: &PlanArgs, output: &mut Output) -> Result<(), Failure> {
    let options = args.place.limits.options().partial(args.place.partial).headers_only(true);
    let set = ModelSet::find(&args.files, &options)?;
    let inputs = args.files.iter().chain(set.files()).map(std::path::PathBuf::as_path);
    streams::output_is_none_of(&inputs.collect::<Vec<_>>())?;
    let model = Model::open(&set, &options)?;
    model.tell_if_empty();
    tell_missing(&model);
    let needed = model.plan.footprint();
    let mut devices = Devices::open(&args.place.devices, needed)?;
    output.set_cards(devices.infos());
    let builder = devices.planner(needed)?;
    let count = u32::try_from(devices.infos().len()).unwrap_or(u32::MAX);
    let choice = choose(args.place.gpu, count)?;
    let placements = builder.placements(&model.plan, choice)?;
    let failure = refusal(&model, &placements, &devices).err();
    let smaller = match failure {
        Some(_) => smaller::estimates(&model, &builder, choice)?,
        None => Vec::new(),
    };
    let report = Report::of(&model, &devices, &placements, smaller);
    report.print(&model, args.all, output)?;
    let Some(failure) = failure else { return output.json(&report) };
    output.json_failed(&report, &failure)?;
    Err(failure)
}

/// Says which files end before their tensors do.
fn tell_missing(model: &Model) {
    for file in &model.files {
        let missing = file.header.missing();
        if !missing.is_zero() {
            note(format!(
                "{} ends {} before its tensors do: it can be planned, and not loaded",
                file.path.display(),
                table::size(missing)
            ));
        }
    }
}

/// The failure with which `vram load` would refuse the model for want of room.
fn refusal(model: &Model, placements: &Placements, devices: &Devices) -> Result<(), Failure> {
    let Fit::ShortOf { needed, room, largest_hole, piece, .. } = &placements.fit else {
        return Ok(());
    };
    check_room(model, &placements.before, devices)?;
    let what = piece.and_then(|piece| model.plan.pieces().get(piece));
    let figures = devices.figures();
    let failure = Failure::new(
        Kind::NoRoom,
        format!(
            "no room: {needed} are needed in one piece, the largest hole left is {largest_hole}{figures}"
        ),
    );
    let failure = failure.detail(|details| {
        details.needed = Some(needed.get());
        details.room = Some(room.get());
        details.largest_hole = Some(largest_hole.get());
        details.foreign = devices.foreign();
    });
    let failure = match what {
        Some(piece) => failure.at_tensor(&crate::steps::name(piece)),
        None => failure,
    };
    Err(no_room(failure, model))
}
