//! What a start needs before it opens an address or takes device memory. A start goes on with it, and a
//! check tells what is wrong with it: nothing is made, opened or taken here.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use vram_residency::{
    ByteLen, Device, DeviceKind, GpuCapacity, GpuChoice, KeySource, KeySourceError, Lru,
    MemoryMode, ModelPlan, OnEviction, Priority, SealKey, VramError, VramManager,
    VramManagerBuilder,
};
use vram_store::Cache;

use crate::config::{CacheConfig, Config, EvictionConfig};
use crate::net::{acceptor, may_bind, may_make_in};
use crate::report::ServeError;

/// Each part of a configuration, read: usable, or the reason why not.
pub(crate) struct Prepared {
    pub(crate) token: Result<TokenFile, ServeError>,
    pub(crate) tls: Result<Option<TlsAcceptor>, ServeError>,
    pub(crate) key: Result<SealKey, ServeError>,
    /// Addresses that cannot be opened.
    pub(crate) closed: Vec<ServeError>,
    /// Whether images can be kept where the configuration says.
    pub(crate) cache: Result<(), ServeError>,
    pub(crate) devices: Result<Devices, ServeError>,
}

/// All parts, usable.
pub(crate) struct Ready {
    pub(crate) token: TokenFile,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) key: SealKey,
    pub(crate) devices: Devices,
}

/// The token file as it is found.
#[derive(Debug)]
pub(crate) enum TokenFile {
    There(SealKey),
    /// There is none, and it can be made.
    ToMake,
}

/// The devices, and a manager's builder over them with their budgets.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) open: Vec<Arc<dyn Device>>,
    pub(crate) builder: VramManagerBuilder,
    /// Their figures with nothing placed.
    pub(crate) empty: Vec<GpuCapacity>,
}

impl Prepared {
    /// Reads all that a configuration names but its models.
    ///
    /// # Arguments
    ///
    /// * `devices`: open, in the order of the configuration; or why they cannot be opened, in words.
    pub(crate) fn of(config: &Config, devices: Result<Vec<Arc<dyn Device>>, String>) -> Self {
        let tls = config.tls.as_ref().map(acceptor).transpose();
        let closed = config.listen().into_iter().filter_map(|listen| match may_bind(&listen) {
            Ok(()) => None,
            Err(error) => Some(ServeError::Bind { listen, error }),
        });
        let devices = devices.map_err(|what| ServeError::Devices { what });
        Self {
            token: token(&config.token_file()),
            tls: tls.map_err(|what| ServeError::Tls { what }),
            key: config.key.source().load().map_err(ServeError::Key),
            closed: closed.collect(),
            cache: config.cache.as_ref().map_or(Ok(()), cache),
            devices: devices.and_then(|devices| Devices::of(config, devices)),
        }
    }

    /// All that is wrong, in the order in which a start finds it.
    pub(crate) fn problems(&self) -> Vec<&ServeError> {
        let first = [self.token.as_ref().err(), self.tls.as_ref().err(), self.key.as_ref().err()];
        let first = first.into_iter().flatten();
        let last = [self.cache.as_ref().err(), self.devices.as_ref().err()];
        first.chain(&self.closed).chain(last.into_iter().flatten()).collect()
    }

    /// All parts.
    ///
    /// # Errors
    ///
    /// The first part that is wrong.
    pub(crate) fn ready(self) -> Result<Ready, ServeError> {
        let Self { token, tls, key, closed, cache, devices } = self;
        let (token, tls, key) = (token?, tls?, key?);
        if let Some(error) = closed.into_iter().next() {
            return Err(error);
        }
        cache?;
        Ok(Ready { token, tls, key, devices: devices? })
    }
}

impl Devices {
    /// A builder with the budgets of the configuration. Asks the devices for their figures.
    fn of(config: &Config, open: Vec<Arc<dyn Device>>) -> Result<Self, ServeError> {
        let mut builder = VramManager::builder().devices(open.iter().cloned());
        for (gpu, device) in (0..).zip(&config.devices) {
            if config.shares(gpu) {
                builder = builder.memory(gpu, MemoryMode::SharedBlocks);
            }
            if let Some(budget) = device.budget {
                builder = builder.budget(gpu, budget.budget());
            }
            if let Some(headroom) = device.headroom {
                builder = builder.headroom(gpu, headroom);
            }
        }
        builder = match config.eviction {
            EvictionConfig::Never => builder,
            EvictionConfig::Priority => builder.eviction(Priority).on_eviction(OnEviction::Park),
            EvictionConfig::Lru => builder.eviction(Lru).on_eviction(OnEviction::Park),
        };
        // What `build` would refuse is refused here, before anything is taken.
        let empty = builder.placements(&ModelPlan::default(), GpuChoice::MostRoomFirst)?.before;
        if let Some(GpuCapacity { gpu, headroom, total, .. }) =
            empty.iter().find(|one| !one.headroom.is_zero() && one.headroom >= one.total)
        {
            return Err(ServeError::Manager(VramError::Config {
                what: format!(
                    "a headroom of {headroom} leaves nothing of gpu {gpu}, of which {total} may be used"
                ),
            }));
        }
        for one in &empty {
            let device = usize::try_from(one.gpu).ok().and_then(|gpu| open.get(gpu));
            may_map(device, one.total)?;
        }
        Ok(Self { open, builder, empty })
    }

    /// Bytes that models may take of one device, or of all, while no other program holds any.
    pub(crate) fn usable(&self, only: Option<u32>) -> ByteLen {
        let here = |one: &&GpuCapacity| only.is_none_or(|gpu| gpu == one.gpu);
        let usable = |one: &GpuCapacity| one.total.saturating_sub(one.headroom);
        self.empty
            .iter()
            .filter(here)
            .fold(ByteLen::ZERO, |sum, one| sum.saturating_add(usable(one)))
    }
}

/// Whether so much of a host device has an address: a mapping takes no memory, and ends here.
fn may_map(device: Option<&Arc<dyn Device>>, len: ByteLen) -> Result<(), ServeError> {
    /// Less is had everywhere.
    const LARGE: ByteLen = ByteLen::new(1 << 40);

    let host = device.filter(|device| device.info().kind == DeviceKind::Host && len >= LARGE);
    match host.map(|device| device.allocate(len)) {
        Some(Err(_no_address)) => Err(ServeError::Manager(VramError::HostMemory { wanted: len })),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Whether images can be kept in a folder, which is made if it is not there.
fn cache(cache: &CacheConfig) -> Result<(), ServeError> {
    let usable = || {
        may_make_in(&cache.folder)?;
        // As each load opens it.
        Cache::look(&cache.folder, cache.limit).map(drop).map_err(io::Error::other)
    };
    usable()
        .map_err(|error| ServeError::Cache { folder: cache.folder.display().to_string(), error })
}

/// Reads the token, which has the form of a key file; or finds that it can be made.
fn token(file: &Path) -> Result<TokenFile, ServeError> {
    match KeySource::File(file.to_path_buf()).load() {
        Ok(secret) => Ok(TokenFile::There(secret)),
        Err(KeySourceError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            may_make_in(file.parent().unwrap_or(Path::new(""))).map(|()| TokenFile::ToMake).map_err(
                |error| {
                    ServeError::Token(KeySourceError::Io {
                        path: file.display().to_string(),
                        error: error.into(),
                    })
                },
            )
        }
        Err(error) => Err(ServeError::Token(error)),
    }
}
