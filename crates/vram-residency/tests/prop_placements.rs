//! Property: what `placements` says is what `admit` does: on the same devices with the same plan,
//! every piece lies on the GPU and at the offset that was said, the GPUs have left what was said, to
//! the byte, and a plan that does not fit is refused. Said by a builder, before any device is
//! touched, and by a manager that holds other models already.
//!
//! Method: random devices, some no multiple of a granule, both memory modes, headroom, and random
//! pieces around the size of the room. The reference is the manager itself: offsets are differences
//! of device pointers, from that of a shard that takes the whole region.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use vram_residency::{
    AdmitRequest, ByteLen, Fit, GpuCapacity, GpuChoice, MemoryMode, ModelPlan, ModelSource, Piece,
    Placements, Protection, SourceError, VramManager, VramManagerBuilder,
};

/// A source of zeros of any length.
struct Zeros;

impl ModelSource for Zeros {
    fn read_at(&self, _file: u32, _offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        target.fill(0);
        Ok(())
    }
}

/// One device: its length, what is kept free of it, and how its memory is used.
#[derive(Clone, Copy, Debug)]
struct Host {
    len: u64,
    headroom: u64,
    blocks: bool,
}

fn host() -> impl Strategy<Value = Host> {
    let len = prop_oneof![1_u64..40_000, (1_u64..150).prop_map(|granules| granules * 256)];
    let headroom = prop_oneof![4 => Just(0), 1 => 0_u64..5000];
    (len, headroom, prop::bool::weighted(0.2)).prop_map(|(len, headroom, blocks)| Host {
        len,
        headroom,
        blocks,
    })
}

fn lens() -> impl Strategy<Value = Vec<u64>> {
    let len = prop_oneof![1 => Just(0), 4 => 1_u64..600, 4 => 1_u64..12_000];
    vec(len, 0..12)
}

fn plan(lens: &[u64]) -> ModelPlan {
    let piece =
        |(number, len): (usize, &u64)| Piece::new(format!("t{number}"), 0, 0, ByteLen::new(*len));
    ModelPlan::new(lens.iter().enumerate().map(piece)).unwrap()
}

fn builder(hosts: &[Host]) -> VramManagerBuilder {
    let mut builder = VramManager::builder();
    for (gpu, host) in (0..).zip(hosts) {
        builder =
            builder.host_device(ByteLen::new(host.len)).headroom(gpu, ByteLen::new(host.headroom));
        if host.blocks {
            builder = builder.memory(gpu, MemoryMode::Blocks);
        }
    }
    builder
}

/// Where the region of each GPU begins: the pointer of a piece that takes all of it.
fn bases(manager: &VramManager, hosts: &[Host]) -> HashMap<u32, u64> {
    let mut bases = HashMap::new();
    for (gpu, host) in (0..).zip(hosts).filter(|(_, host)| !host.blocks) {
        let headroom = manager.capacity(gpu).unwrap().headroom;
        manager.set_headroom(gpu, ByteLen::ZERO).unwrap();
        let request = AdmitRequest::new("all", GpuChoice::One(gpu));
        let request = request.protection(Protection::Authenticated);
        let (model, leases) = manager.admit_leased(request, &plan(&[host.len]), &Zeros).unwrap();
        bases.insert(gpu, leases[0].device_pointer().unwrap().get());
        drop(leases);
        manager.free_model(&model).unwrap();
        manager.set_headroom(gpu, headroom).unwrap();
    }
    bases
}

fn figures(manager: &VramManager, placements: &Placements) -> Vec<GpuCapacity> {
    placements.after.iter().map(|gpu| manager.capacity(gpu.gpu).unwrap()).collect()
}

/// Admits the plan, and compares everything with what was said.
fn same(
    manager: &VramManager,
    bases: &HashMap<u32, u64>,
    plan: &ModelPlan,
    choice: GpuChoice,
    said: &Placements,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(&figures(manager, said), &said.before);
    let request = AdmitRequest::new("m", choice).protection(Protection::Authenticated);
    let admitted = manager.admit_leased(request, plan, &Zeros);
    let Ok((model, leases)) = admitted else {
        prop_assert!(admitted.unwrap_err().is_capacity());
        prop_assert!(!said.fit.is_yes(), "{:?}", said.fit);
        prop_assert!(said.pieces.len() < plan.pieces().len());
        prop_assert_eq!(figures(manager, said), said.before.clone());
        return Ok(());
    };
    let Fit::Fits { footprint } = said.fit else { panic!("admitted though {:?}", said.fit) };
    prop_assert_eq!(said.pieces.len(), plan.pieces().len());
    let mut sum = 0;
    for ((place, piece), lease) in said.pieces.iter().zip(&model.pieces).zip(&leases) {
        prop_assert_eq!(place.gpu, piece.shard.gpu_index);
        sum += place.footprint.get();
        let empty = piece.piece.len.is_zero();
        prop_assert_eq!(place.offset.is_some(), !empty && bases.contains_key(&place.gpu));
        if let Some(offset) = place.offset {
            let pointer = lease.device_pointer().unwrap().get();
            prop_assert_eq!(pointer - bases[&place.gpu], offset.get());
        }
    }
    prop_assert_eq!(footprint.get(), sum);
    prop_assert_eq!(figures(manager, said), said.after.clone());
    Ok(())
}

fn choice(of: u32, count: usize) -> GpuChoice {
    match of.checked_rem(u32::try_from(count).unwrap() + 1) {
        Some(gpu) if usize::try_from(gpu).unwrap() < count => GpuChoice::One(gpu),
        _ => GpuChoice::MostRoomFirst,
    }
}

proptest! {
    #[test]
    fn a_manager_that_is_built_places_as_its_builder_said(
        hosts in vec(host(), 1..4), lens in lens(), of in any::<u32>(),
    ) {
        let (plan, choice) = (plan(&lens), choice(of, hosts.len()));
        let said = builder(&hosts).placements(&plan, choice).unwrap();
        let manager = builder(&hosts).build().unwrap();
        let bases = bases(&manager, &hosts);
        same(&manager, &bases, &plan, choice, &said)?;
    }

    #[test]
    fn a_manager_that_holds_others_places_as_it_said(
        hosts in vec(host(), 1..4),
        before in vec((lens(), any::<u32>(), any::<bool>()), 0..4),
        lens in lens(),
        of in any::<u32>(),
    ) {
        let manager = builder(&hosts).build().unwrap();
        let bases = bases(&manager, &hosts);
        // Some stay, some go again and leave holes.
        let mut gone = Vec::new();
        for (lens, of, stays) in before {
            let request = AdmitRequest::new("other", choice(of, hosts.len()));
            if let Ok(model) = manager.admit(request, &plan(&lens), &Zeros) && !stays {
                gone.push(model);
            }
        }
        for model in &gone {
            manager.free_model(model).unwrap();
        }
        let (plan, choice) = (plan(&lens), choice(of, hosts.len()));
        let said = manager.placements(&plan, choice).unwrap();
        same(&manager, &bases, &plan, choice, &said)?;
    }
}

#[test]
fn a_builder_plans_with_devices_that_no_host_could_have_and_takes_nothing() {
    let builder = VramManager::builder().host_device(ByteLen::new(200 << 40));
    let plan = plan(&[100 << 40, 99 << 40]);
    let said = builder.placements(&plan, GpuChoice::MostRoomFirst).unwrap();
    assert!(said.fit.is_yes());
    assert_eq!(said.after[0].room.get(), 1 << 40);
    assert!(builder.placements(&plan, GpuChoice::One(1)).is_err(), "there is no such GPU");
    assert!(VramManager::builder().placements(&plan, GpuChoice::One(0)).is_err());
}
