//! Whether a place can be a store: tried, not asked.

use core::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use object_store::{GetOptions, GetRange, ObjectStore, PutMode, PutPayload};
use vram_files::FileError;

use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::store::{Store, caused};

/// How many creators race for one name.
const RACERS: usize = 16;

/// One thing that was tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trial {
    /// What was tried.
    pub what: &'static str,
    /// Whether a store needs it.
    pub required: bool,
    /// Whether it was as expected; `None` for what is told for information.
    pub good: Option<bool>,
    /// What was seen.
    pub seen: String,
}

/// What a place can do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreCheck {
    /// All that was tried, in order.
    pub trials: Vec<Trial>,
}

impl StoreCheck {
    /// Returns true if all that a store needs works.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.trials.iter().all(|trial| !trial.required || trial.good == Some(true))
    }
}

impl Store {
    /// Tries what a store needs with small objects under `v1/check/`, and removes them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`] for a place that does not answer, at its first stall; [`StoreError::Deadline`] and
    /// [`StoreError::Cancelled`]; [`StoreError::File`] if the disk is full; what the place refuses is in the
    /// answer.
    pub fn check(&self, options: &StoreOptions<'_>) -> Result<StoreCheck, StoreError> {
        self.hasty().tried(options)
    }

    fn tried(&self, options: &StoreOptions<'_>) -> Result<StoreCheck, StoreError> {
        let began = Instant::now();
        // Each of the other trials would wait as long, and show nothing else.
        let go_on = || {
            if self.record().stalled_since(began) {
                return Err(self.failed("try it".to_owned(), &self.record().said(began)));
            }
            options.go_on()
        };
        let random = RandomState::new().hash_one(std::process::id());
        let key = |name: &str| format!("v1/check/{random:016x}-{name}");
        let content: Vec<u8> = (0_u16..1000).map(|at| at.to_le_bytes()[0]).collect();
        let mut trials = Vec::new();
        let told = |outcome: Result<(), StoreError>| match outcome {
            Ok(()) => (true, "done".to_owned()),
            Err(error) => (false, error.to_string()),
        };

        let one = key("object");
        // What it answers, the trials tell.
        let _answered = self.len(&one, options);
        go_on()?;
        let written = self.put(&one, content.clone(), options);
        // No word about the place, which may have room later.
        if let Err(StoreError::File(FileError::Io { source, .. })) = &written
            && matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            )
        {
            return written.map(|()| StoreCheck { trials });
        }
        let mut required = |what, good: bool, seen: String| {
            trials.push(Trial { what, required: true, good: Some(good), seen });
        };
        let (good, seen) = told(written);
        required("write an object", good, seen);
        go_on()?;
        let len = u64::try_from(content.len()).unwrap_or(0);
        let found = self.len(&one, options);
        let seen = length(&found);
        required("ask for its length", matches!(found, Ok(Some(found)) if found == len), seen);
        go_on()?;
        let read = self.object_range(&one, 100..300, len, options);
        let good = matches!(&read, Ok(Some(bytes)) if content.get(100..300) == Some(bytes));
        let seen = read.map_or_else(|error| error.to_string(), |bytes| count(bytes.as_deref()));
        required("read a range of it", good, seen);
        go_on()?;
        let listed = self.list("v1/check", options);
        let good = listed.as_ref().is_ok_and(|all| all.iter().any(|found| found.key == one));
        let seen =
            listed.map_or_else(|error| error.to_string(), |all| format!("{} listed", all.len()));
        required("list it after writing it", good, seen);
        go_on()?;
        let absent = self.len(&key("absent"), options);
        let seen = length(&absent);
        required("say that an object is not there", matches!(absent, Ok(None)), seen);
        go_on()?;
        let again: Vec<u8> = content.iter().rev().copied().collect();
        let (good, seen) = told(self.put(&one, again.clone(), options));
        let kept = self.object(&one, len, true, options);
        let replaced = good && matches!(&kept, Ok(Some(bytes)) if *bytes == again);
        required("write it again with other bytes", replaced, seen);
        go_on()?;

        trials.push(self.past_the_end(&one, len, options)?);
        // Its creators write as the library does, which would follow a link.
        if trials.iter().all(|trial| trial.good != Some(false)) {
            trials.push(self.race(&key("race"), options)?);
        }
        let cleaned = self.delete(&one, options).and(self.delete(&key("race"), options));
        let (good, seen) = told(cleaned);
        trials.push(Trial { what: "delete", required: false, good: Some(good), seen });
        let seen =
            "let the bucket abort unfinished uploads after a day: they are not listed, and billed";
        if self.is_remote() {
            let what = "a lifecycle rule";
            trials.push(Trial { what, required: false, good: None, seen: seen.to_owned() });
        }
        Ok(StoreCheck { trials })
    }

    /// A range past the end: told, since every reader of this crate compares lengths anyway.
    fn past_the_end(
        &self,
        key: &str,
        len: u64,
        options: &StoreOptions<'_>,
    ) -> Result<Trial, StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let range = GetRange::Bounded(len.saturating_sub(10)..len.saturating_add(10));
        let ask = async move {
            let found = objects.get_opts(&name, GetOptions::new().with_range(Some(range))).await?;
            found.bytes().await
        };
        let action = || "read a range past the end".to_owned();
        let seen = match self.answer_within(options.limits.stall, options, ask, action)? {
            Ok(bytes) => format!("asked for 20 bytes, got {} and a success", bytes.len()),
            Err(error) => caused(&error),
        };
        Ok(Trial { what: "read a range past the end", required: false, good: None, seen })
    }

    /// Racing creators: told, since no call of this crate depends on it.
    fn race(&self, key: &str, options: &StoreOptions<'_>) -> Result<Trial, StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let race = async move {
            let create = |_racer| {
                let (objects, name): (Arc<dyn ObjectStore>, _) =
                    (Arc::clone(&objects), name.clone());
                let payload = PutPayload::from_static(b"race");
                async move { objects.put_opts(&name, payload, PutMode::Create.into()).await.is_ok() }
            };
            let won = join_all((0..RACERS).map(create)).await;
            Ok(won.into_iter().filter(|won| *won).count())
        };
        let action = || "create an object if it is absent".to_owned();
        let seen = match self.answer_within(options.limits.stall, options, race, action)? {
            Ok(winners) => {
                format!("{winners} of {RACERS} creators of one name won; nothing here needs one")
            }
            Err(error) => caused(&error),
        };
        Ok(Trial { what: "create if absent", required: false, good: None, seen })
    }
}

fn length(found: &Result<Option<u64>, StoreError>) -> String {
    match found {
        Ok(Some(len)) => format!("{len} bytes"),
        Ok(None) => "it is not there".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn count(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "nothing".to_owned(), |bytes| format!("{} bytes", bytes.len()))
}
