//! Whether a place can be a store: tried, not asked.

use core::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io::ErrorKind;
use std::sync::Arc;

use futures_util::future::join_all;
use object_store::{GetOptions, GetRange, ObjectStore, PutMode, PutPayload};
use vram_files::FileError;

use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::store::{Store, redact};

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
    /// [`StoreError::Deadline`] and [`StoreError::Cancelled`]; [`StoreError::File`] if the disk is full; what the place refuses is in the answer.
    pub fn check(&self, options: &StoreOptions<'_>) -> Result<StoreCheck, StoreError> {
        let random = RandomState::new().hash_one(std::process::id());
        let key = |name: &str| format!("v1/check/{random:016x}-{name}");
        let content: Vec<u8> = (0_u16..1000).map(|at| at.to_le_bytes()[0]).collect();
        let mut trials = Vec::new();
        let told = |outcome: Result<(), StoreError>| match outcome {
            Ok(()) => (true, "done".to_owned()),
            Err(error) => (false, error.to_string()),
        };

        let one = key("object");
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
        options.go_on()?;
        let len = u64::try_from(content.len()).unwrap_or(0);
        let found = self.len(&one, options);
        let seen = length(&found);
        required("ask for its length", matches!(found, Ok(Some(found)) if found == len), seen);
        let read = self.object_range(&one, 100..300, len, options);
        let good = matches!(&read, Ok(Some(bytes)) if content.get(100..300) == Some(bytes));
        let seen = read.map_or_else(|error| error.to_string(), |bytes| count(bytes.as_deref()));
        required("read a range of it", good, seen);
        let listed = self.list("v1/check", options);
        let good = listed.as_ref().is_ok_and(|all| all.iter().any(|found| found.key == one));
        let seen =
            listed.map_or_else(|error| error.to_string(), |all| format!("{} listed", all.len()));
        required("list it after writing it", good, seen);
        let absent = self.len(&key("absent"), options);
        let seen = length(&absent);
        required("say that an object is not there", matches!(absent, Ok(None)), seen);
        let again: Vec<u8> = content.iter().rev().copied().collect();
        let (good, seen) = told(self.put(&one, again.clone(), options));
        let kept = self.object(&one, len, true, options);
        let replaced = good && matches!(&kept, Ok(Some(bytes)) if *bytes == again);
        required("write it again with other bytes", replaced, seen);

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
        let seen = match options.wait(ask)? {
            Ok(bytes) => format!("asked for 20 bytes, got {} and a success", bytes.len()),
            Err(error) => redact(&error),
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
            won.into_iter().filter(|won| *won).count()
        };
        let winners = options.wait(race)?;
        let seen =
            format!("{winners} of {RACERS} creators of one name won; nothing here needs one");
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
