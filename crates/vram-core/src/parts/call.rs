//! The calls of a manager, with their names in metrics and events.

use core::fmt;

macro_rules! calls {
    ($($(#[$doc:meta])* $call:ident = $name:literal,)*) => {
        /// A public call of a manager that does work, as metrics count it. Several methods that do
        /// the same in different forms count as one call. Methods that only return lists and
        /// figures are not counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum Call {
            $($(#[$doc])* $call,)*
        }

        impl Call {
            /// All calls, in the order in which metrics list them.
            pub const ALL: &'static [Self] = &[$(Self::$call),*];

            /// A stable name, for logs and machine-readable output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$call => $name,)*
                }
            }
        }
    };
}

calls! {
    /// `seal_model`, `seal`, `seal_from`, `seal_reserved`.
    Seal = "seal",
    /// `unseal_model`, `unseal_into`, `unseal_to`.
    Unseal = "unseal",
    /// `unseal_and_free`.
    UnsealAndFree = "unseal_and_free",
    /// `read_shard_at_offset`, `read_into`.
    Read = "read",
    /// `verify`, `verify_shard_integrity`, `ensure_intact`.
    Verify = "verify",
    /// `verify_model`.
    VerifyModel = "verify_model",
    /// `free_shard`, `free_shard_within`.
    Free = "free",
    /// `free_model`.
    FreeModel = "free_model",
    /// `migrate_shard`, `migrate_shard_within`.
    Migrate = "migrate",
    /// `migrate_model`.
    MigrateModel = "migrate_model",
    /// `park`.
    Park = "park",
    /// `park_model`.
    ParkModel = "park_model",
    /// `wake`.
    Wake = "wake",
    /// `wake_model`.
    WakeModel = "wake_model",
    /// `open_resident`.
    Open = "open",
    /// `close_resident`.
    CloseResident = "close_resident",
    /// `reseal_shard`.
    Reseal = "reseal",
    /// `export`, `export_with`, `export_to`.
    Export = "export",
    /// `import`, `import_from`.
    Import = "import",
    /// `admit`, `admit_reserved`.
    Admit = "admit",
    /// `compact`.
    Compact = "compact",
    /// `evict`; evictions that another call makes are not counted here.
    Evict = "evict",
    /// `reserve`, `reserve_with`, `reserve_plan`, `reserve_plan_with`.
    Reserve = "reserve",
    /// `lease`, `lease_as`, `lease_within`.
    Lease = "lease",
    /// `lease_model`, `lease_model_as`.
    LeaseModel = "lease_model",
    /// `pin`, `unpin`.
    Pin = "pin",
    /// `set_budget`, `set_headroom`.
    SetBudget = "set_budget",
    /// `refresh`.
    Refresh = "refresh",
    /// `probe_links`.
    ProbeLinks = "probe_links",
    /// `add_key`.
    AddKey = "add_key",
    /// `set_active_key`.
    ActivateKey = "activate_key",
    /// `retire_key`.
    RetireKey = "retire_key",
    /// `back_up`, `drop_backup`.
    BackUp = "back_up",
    /// `repair_from`, `repair_from_image`.
    Repair = "repair",
    /// `scrub_step`, also when the scrubber's thread calls it.
    Scrub = "scrub",
    /// `reset_gpu`.
    Reset = "reset",
    /// `reconcile`, `reconcile_all`.
    Reconcile = "reconcile",
    /// `ticket`, `ticket_with`, `ticket_model`.
    Ticket = "ticket",
    /// `close`.
    Close = "close",
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
