//! Rows of the table: images that are imported, and shards that are exported.

use vram_residency::VramError;
use vram_residency::device::fault::Op;
use vram_test_rigs::{Faults, Outcome, Rig, Row, SEGMENT, content};

use crate::moves::sealed_images::{exported, import, requests};

/// P15: every call of the device fails once while an image is imported, or a shard exported.
#[test]
pub(super) fn a_failing_device_leaves_nothing_of_an_import_and_a_shard_as_it_was() {
    for request in requests() {
        let bytes = content(5 * SEGMENT + 9, 7);
        let image = exported(request.clone(), &bytes);
        Row {
            operation: "import",
            faults: Faults::every(0),
            set_up: &|| (Rig::new(&[1 << 16]), ()),
            act: &|rig, ()| rig.manager.import(import(), image.as_slice()),
            after: &|rig, (), outcome, what| {
                match outcome {
                    Outcome::Done(shard) => {
                        assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes, "{what}");
                    }
                    _ => assert_eq!(rig.manager.shards(), [], "{what}"),
                }
                rig.settle(what.op != Op::Fill);
            },
            at_least: 6,
        }
        .sweep();
        Row {
            operation: "export",
            faults: Faults::every(0),
            set_up: &|| {
                let rig = Rig::new(&[1 << 16]);
                let shard = rig.manager.seal(request.clone(), &bytes).unwrap();
                (rig, shard)
            },
            act: &|rig, shard| {
                let mut image = Vec::new();
                rig.manager.export(shard, &mut image).map(|_report| image)
            },
            after: &|rig, shard, outcome, what| {
                match outcome {
                    Outcome::Done(written) => assert!(written == image, "{what}"),
                    Outcome::Refused(VramError::ShardAltered { .. }) => {}
                    _ => assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes, "{what}"),
                }
                rig.settle(true);
            },
            at_least: 6,
        }
        .sweep();
    }
}
