//! Imports and mentions every public name of the facade: if one is removed, this file does not
//! compile.

use core::any::{type_name, type_name_of_val};
use std::collections::BTreeSet;
use std::path::Path;

// Names that the lists below mention: what is gone does not compile.
use vram_residency::*;

macro_rules! there {
    ($($name:ty),* $(,)?) => {
        [$(type_name::<$name>()),*]
    };
}

#[expect(clippy::too_many_lines, reason = "it is a list")]
#[test]
fn every_public_name_is_there() {
    let types = there![
        AdmitRequest<'_>,
        ModelImport<'_>,
        PieceSource<'_>,
        AlteredSegments,
        Checked,
        Compute,
        Evidence,
        KernelFigures,
        Site,
        GpuChoice,
        BackupReport,
        MemoryMode,
        ShareHandle,
        SharedShard,
        DriverMemory,
        Budget,
        VramManagerBuilder,
        Call,
        CallOptions<'_>,
        CancelToken,
        dyn Clock,
        SystemClock,
        Timestamp,
        CloseReport,
        HeldLeases,
        OldestLease,
        UnreturnedMemory,
        CompactBudget,
        CompactEnd,
        CompactReport,
        Class,
        VramError,
        EventLog,
        Event,
        EventKind,
        EventLevel,
        PieceName,
        Whose,
        Eviction,
        EvictionPlan,
        EvictionReport,
        Placements,
        PlannedPlace,
        RoomAfter,
        ExportOptions<'_>,
        FreedReceipt,
        WipePolicy,
        ParseShardIdError,
        ShardId,
        ImageInfo,
        ImageOptions<'_>,
        ImageReport,
        ImageVerdict,
        ImportRequest<'_>,
        KeySource,
        KeySourceError,
        Lease,
        Limits,
        LinkReport,
        LinkState,
        VramManager,
        CallMetrics,
        FailureCount,
        GpuMetrics,
        Metrics,
        ModelHandle,
        ModelPiece,
        dyn ModelSource,
        ModelVerdict,
        ParkedModel,
        ParkedPiece,
        WakeModelError,
        WakeModelRequest<'_>,
        AfterAll,
        EvictedFor,
        EvictionUnit,
        WakeError,
        ParkCapacity,
        ParkedShard,
        Candidate,
        CostPerByte,
        dyn EvictionPolicy,
        Lru,
        Priority,
        Progress,
        ReservationId,
        Account,
        Difference,
        Reconciliation,
        RepairOptions<'_>,
        RepairReport,
        GpuCapacity,
        GpuReport,
        Report,
        ShardReport,
        ShardState,
        LifeState,
        SealRequest,
        Reservation,
        ReservationReport,
        ReserveRequest,
        PlanReservation,
        ReservePlanRequest,
        LostShard,
        NotRestored,
        ResetOptions,
        ResetReport,
        Restore,
        GpuScrub,
        ScrubCursor,
        ScrubMetrics,
        ScrubOptions,
        ScrubRate,
        ScrubStatus,
        ScrubStep,
        Scrubber,
        SealedShard,
        Holder,
        Shortfall,
        BusyShards,
        dyn EventSink,
        SinkCounts,
        GpuSnapshot,
        KeySnapshot,
        LeaseReport,
        ModelCounts,
        ModelFigures,
        ModelMetrics,
        ModelReport,
        ModelSnapshot,
        ModelState,
        ParkedSnapshot,
        ReservationSnapshot,
        Snapshot,
        SnapshotCounters,
        SnapshotState,
        Access,
        FileSource,
        ExpectedDigest,
        FileDifference,
        FilePool,
        FileState,
        ParseDigestError,
        ReaderSource<&[u8]>,
        SliceSource<'_>,
        dyn Source,
        SourceError,
        OnEviction,
        SealOptions<'_>,
        ShardTicket,
        ModelTicket,
        ModelTicketExpectation,
        TicketError,
        TicketExpectation,
        TicketOptions,
        TicketState,
        TicketVerifier,
        SegmentSpan,
        Verdict,
        Verify,
        Overwrite,
        ReadBack,
        Alignment,
        ByteLen,
        ByteOffset,
        ByteRange,
        DeviceOffset,
        Fit,
        GpuIndex,
        ModelPlan,
        Piece,
        PlanError,
        dyn Device,
        DeviceInfo,
        DeviceKind,
        DeviceUuid,
        GpuError,
        HostDevice,
        Threads,
        ContentDigest,
        ContentHasher,
        ContextField,
        Expected<'_>,
        HashKind,
        KeyError,
        KeyId,
        KeyRing,
        MetadataCode,
        Protection,
        RecordFields,
        SealContext<'_>,
        SealError,
        SealKey,
        SealParams,
        SealRecord,
        SegmentSize,
        SivScope,
        Suite,
        TicketKey
    ];
    assert_eq!(BTreeSet::from(types).len(), types.len(), "each is a type of its own");
    #[cfg(feature = "models")]
    assert_eq!(there![ModelFiles, ModelFilesError, model::Limits].len(), 3);
    #[cfg(feature = "audit")]
    assert_eq!(
        there![
            AuditError,
            AuditFileId,
            AuditHandle,
            AuditHead,
            AuditSummary,
            AuditWriter,
            ParseAuditFileIdError,
            ParseAuditHeadError
        ]
        .len(),
        8
    );

    let calls = [
        type_name_of_val(&checked_shard_size),
        type_name_of_val(&core_dumps_denied),
        type_name_of_val(&create_key_file),
        type_name_of_val(&deny_core_dumps),
        type_name_of_val(&inspect_image),
        type_name_of_val(&seal_image),
        type_name_of_val(&unseal_image),
        type_name_of_val(&verify_image),
    ];
    assert_eq!(BTreeSet::from(calls).len(), calls.len());
    let _sinks = (
        type_name_of_val(&|key: &SealKey, context: &SealContext<'_>, source: &dyn Source| {
            let params = SealParams::new();
            seal_image_to(key, context, params, source, Vec::new(), ImageOptions::new())
        }),
        type_name_of_val(&|keys: &KeyRing, expected: &Expected<'_>, image: &Path| {
            unseal_image_to(keys, expected, image, Vec::new(), ImageOptions::new())
        }),
    );
    #[cfg(feature = "audit")]
    let _calls = (
        type_name_of_val(&|text: &[u8], key: &TicketKey| verify_audit(text, key)),
        type_name_of_val(&|text: &[u8], key: &TicketKey, head: &AuditHead| {
            verify_audit_against(text, key, head)
        }),
        type_name_of_val(&|text: &[u8], key: &TicketKey| AuditCheck::new(key).files([text])),
    );
    assert!(regular_file::open_regular(Path::new(".")).is_err());
    assert_eq!((TICKET_NAME_LEN_MAX, TICKET_GPUS_MAX), (1024, 256));
    assert_ne!(model_root([].into_iter()), [0; 32]);
    assert_eq!(CONTEXT_LEN_MAX, 65_536);
    assert!(type_name::<device::fault::Op>().ends_with("Op"));
    assert!(type_name::<nvml::Monitor>().ends_with("Monitor"));
}

/// The list above is complete: it mentions every public name of `lib.rs`.
#[test]
fn no_public_name_is_missing_from_the_list() {
    let here = words(include_str!("public_names.rs"));
    let mut found = 0;
    for statement in include_str!("../../src/lib.rs").split("\npub use ").skip(1) {
        let (path, _rest) = statement.split_once(';').unwrap();
        let names = path.rsplit(" as ").next().unwrap();
        let names = if names.contains('{') {
            names.split_once('{').unwrap().1
        } else {
            names.rsplit("::").next().unwrap()
        };
        for name in words(names) {
            assert!(here.contains(name), "{name} is public and not in the list");
            found += 1;
        }
    }
    assert!(found > 100, "only {found} names were found");
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn the_five_lines_of_the_readme_are_those_of_an_example_that_runs() {
    let readme = include_str!("../../README.md");
    let (_, after) = readme.split_once("```rust,ignore\n").unwrap();
    let (lines, _) = after.split_once("```").unwrap();
    let example = include_str!("../../examples/weights.rs");
    assert!(lines.lines().count() <= 5);
    for line in lines.lines() {
        assert!(example.contains(line.trim()), "{line}");
    }
}
