//! Values survive a round trip, and a text cannot make a value that a constructor refuses.

#![cfg(feature = "serde")]

#[macro_use]
extern crate vram_testkit;

use vram_alloc::{
    Alignment, Arena, ArenaReport, BlockFormat, ByteLen, Capacity, DeviceUuid, GpuIndex, Ledger,
    ModelPlan, Piece, TensorFormat,
};

#[test]
fn units_reports_and_plans_survive_a_round_trip() {
    let ledger = Ledger::new(ByteLen::new(1000)).unwrap();
    let _held = ledger.reserve(ByteLen::new(10)).unwrap();
    let text = serde_json::to_string(&ledger.capacity()).unwrap();
    assert_eq!(serde_json::from_str::<Capacity>(&text).unwrap(), ledger.capacity());

    let report = Arena::new(ByteLen::new(1000)).unwrap().report();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<ArenaReport>(&text).unwrap(), report);

    let piece = Piece::new("a", 0, 8, ByteLen::new(144))
        .stored_as(TensorFormat::Block(BlockFormat::Q4K), [256]);
    let plan = ModelPlan::new([piece]).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<ModelPlan>(&text).unwrap(), plan);

    assert_eq!(serde_json::to_string(&ByteLen::new(7)).unwrap(), "7");
    assert_eq!(serde_json::to_string(&GpuIndex::new(7)).unwrap(), "7");
    assert_eq!(serde_json::to_string(&Alignment::GRANULE).unwrap(), "256");
}

#[test]
fn a_device_has_one_spelling() {
    let uuid = DeviceUuid::new([0xab; 16]);
    let text = serde_json::to_string(&uuid).unwrap();
    assert_eq!(text, "\"GPU-abababab-abab-abab-abab-abababababab\"");
    assert_eq!(serde_json::from_str::<DeviceUuid>(&text).unwrap(), uuid);
    let others = [
        text.replace("GPU-", ""),
        text.replace("GPU-", "GPU-0"),
        text.to_uppercase(),
        text.replacen("ab-ab", "abab", 1),
        text.replace("GPU-ab", "GPU-+a"),
    ];
    for other in others {
        let error = serde_json::from_str::<DeviceUuid>(&other).unwrap_err();
        assert!(error.to_string().contains("a device is GPU-"), "{other}: {error}");
    }
}

#[test]
fn a_text_cannot_forge_what_a_constructor_refuses() {
    assert!(serde_json::from_str::<Alignment>("3").is_err());
    let twice = Piece::new("a", 0, 0, ByteLen::new(1));
    let text = serde_json::to_string(&[&twice, &twice]).unwrap();
    let error = serde_json::from_str::<ModelPlan>(&text).unwrap_err();
    assert!(error.to_string().contains("is there twice"), "{error}");
}
