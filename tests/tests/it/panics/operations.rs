//! The operations in which a manager calls the caller's code.

use std::io::{self};

use vram_residency::{
    Access, AdmitRequest, ExportOptions, GpuChoice, ImportRequest, Progress, Protection,
    RepairOptions, SealOptions, SealRequest, SivScope, VramError,
};

use super::{Bomb, Operation, Setup, Ticking};

/// A callback that ticks.
fn told(bomb: &Bomb) -> impl FnMut(Progress) + Send + '_ {
    |_progress| bomb.tick()
}

fn seal_from(
    setup: &Setup,
    bomb: &Bomb,
    access: Access,
    scope: SivScope,
    protection: Protection,
) -> Result<(), VramError> {
    let source = Ticking { access, ..Ticking::new(bomb, setup.content.as_slice()) };
    let request = SealRequest::new("new", 1).scope(scope).protection(protection);
    setup.manager.seal_from(request, source, SealOptions::new().progress(told(bomb))).map(drop)
}

/// Every operation in which a manager calls the caller's code.
pub(super) const OPERATIONS: &[Operation] = &[
    ("seal from a file, by segment", |setup, bomb| {
        seal_from(setup, bomb, Access::Positional, SivScope::Segment, Protection::Encrypted)
    }),
    ("seal from a file, as a whole", |setup, bomb| {
        seal_from(setup, bomb, Access::Positional, SivScope::Shard, Protection::Encrypted)
    }),
    ("seal from a pipe, in place", |setup, bomb| {
        seal_from(setup, bomb, Access::Sequential, SivScope::Segment, Protection::Authenticated)
    }),
    ("admit", |setup, bomb| {
        let request = AdmitRequest::new("new", GpuChoice::MostRoomFirst).progress(told(bomb));
        let source = Ticking::new(bomb, setup.content.as_slice());
        setup.manager.admit(request, &setup.model, &source).map(drop)
    }),
    ("admit into what was reserved", |setup, bomb| {
        let mut held = setup.manager.reserve_plan(&setup.model, GpuChoice::One(1))?;
        let request = AdmitRequest::new("new", GpuChoice::One(1)).progress(told(bomb));
        let source = Ticking::new(bomb, setup.content.as_slice());
        setup.manager.admit_reserved(&mut held, request, &source).map(drop)
    }),
    ("unseal to a sink", |setup, bomb| {
        setup.manager.unseal_to(&setup.encrypted, Ticking::new(bomb, io::sink()))
    }),
    ("export", |setup, bomb| {
        let options = ExportOptions::new().progress(told(bomb));
        let sink = Ticking::new(bomb, io::sink());
        setup.manager.export_with(&setup.encrypted, sink, options).map(drop)
    }),
    ("export what lies there in plain", |setup, bomb| {
        let options = ExportOptions::new().progress(told(bomb));
        let sink = Ticking::new(bomb, io::sink());
        setup.manager.export_with(&setup.plain, sink, options).map(drop)
    }),
    ("repair", |setup, bomb| {
        let options = RepairOptions::new().progress(told(bomb));
        let source = Ticking::new(bomb, setup.content.as_slice());
        setup.manager.repair_from(&setup.altered, source, options).map(drop)
    }),
    ("import", |setup, bomb| {
        let request = ImportRequest::new("encrypted", 1).progress(told(bomb));
        setup.manager.import(request, Ticking::new(bomb, setup.image.as_slice())).map(drop)
    }),
];
