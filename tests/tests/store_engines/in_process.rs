//! S3 in this process: the server of the crate `s3s-fs` on a folder, behind a door that can refuse. It speaks
//! the protocol; it is no judge of atomic writes or of speed.

use core::convert::Infallible;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use vram_store::object_store::aws::AmazonS3Builder;
use vram_store::object_store::{ClientOptions, RetryConfig};
use vram_store::{
    Part, Pull, Sample, Store, StoreEvent, StoreOptions, VerifyMeans, image_key, manifest_key,
};
use vram_tests::repair::an_alteration_is_found_and_repaired_from;

use crate::model::{MODEL, World, load, manager};

const BUCKET: &str = "bucket";
const ACCESS: &str = "tests";
const SECRET: &str = "of-no-worth";

/// Which requests are refused, with 403.
struct Door {
    /// Parts of uploads that may still come in.
    parts: AtomicU64,
    refuses_aborts: AtomicBool,
    aborts: AtomicU64,
}

impl Door {
    fn refuses<B>(&self, request: &Request<B>) -> bool {
        let query = request.uri().query().unwrap_or_default();
        match *request.method() {
            Method::PUT if query.contains("partNumber=") => {
                let take = |left: u64| left.checked_sub(1);
                self.parts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err()
            }
            Method::DELETE if query.contains("uploadId=") => {
                self.aborts.fetch_add(1, Ordering::Relaxed);
                self.refuses_aborts.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }
}

/// A server with one bucket. It ends with this value.
struct Server {
    root: TempDir,
    door: Arc<Door>,
    store: Store,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS, SECRET));
        let service = builder.build();
        let door = Arc::new(Door {
            parts: AtomicU64::new(u64::MAX),
            refuses_aborts: AtomicBool::new(false),
            aborts: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(serve(listener, service, Arc::clone(&door)));
        // The crate chooses ring for TLS when it opens a store behind a network.
        drop(Store::open(&address).unwrap());
        let objects = AmazonS3Builder::new()
            .with_endpoint(address)
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS)
            .with_secret_access_key(SECRET)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .unwrap();
        let store = Store::over("s3 in this process", Arc::new(objects));
        Self { root, door, store, _runtime: runtime }
    }

    /// The file of an object.
    fn path(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }

    /// Files of parts of uploads that were neither completed nor aborted.
    fn parts_left(&self) -> usize {
        let entries = std::fs::read_dir(self.root.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("upload_id-") && name.contains("part")).count()
    }
}

async fn serve(listener: TcpListener, service: S3Service, door: Arc<Door>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (service, door) = (service.clone(), Arc::clone(&door));
        let answer = move |request: Request<hyper::body::Incoming>| {
            let refused = door.refuses(&request);
            let service = service.clone();
            async move {
                let refusal = |status| {
                    let mut response = Response::new(s3s::Body::empty());
                    *response.status_mut() = status;
                    response
                };
                if refused {
                    return Ok::<_, Infallible>(refusal(StatusCode::FORBIDDEN));
                }
                let answer = service.call(request.map(s3s::Body::from)).await;
                Ok(answer.unwrap_or_else(|_| refusal(StatusCode::INTERNAL_SERVER_ERROR)))
            }
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), service_fn(answer));
        // A client that goes away in the middle is no fault.
        tokio::spawn(async move { drop(connection.await) });
    }
}

/// P75, P77, P81 over the protocol of S3: pushed in parts, found present, loaded, pulled, believed nothing,
/// verified with and without the key, collected.
#[test]
fn a_model_goes_through_a_bucket_and_the_bucket_is_not_believed() {
    let server = Server::start();
    let store = &server.store;
    let check = store.check(&StoreOptions::new()).unwrap();
    assert!(check.is_good(), "{check:?}");
    // Three parts.
    let world = World::new(20 << 20);
    let pushed = world.push(store);
    assert_eq!((pushed.sent, pushed.present), (1, 0));
    let again = world.push(store);
    assert_eq!((again.sent, again.present, again.id), (0, 1, pushed.id));
    let manifest = world.manifest(store, &pushed);
    let content = std::fs::read(&world.file).unwrap();
    let device = manager(content.len() as u64);
    let shard = load(&Pull::new(&manifest, &world.keys, b"", store), &device).unwrap();
    assert!(device.unseal_model(&shard).unwrap() == content);
    for (number, pull) in
        [Pull::new(&manifest, &world.keys, b"", store), Pull::without_key(&manifest, store)]
            .into_iter()
            .enumerate()
    {
        let images = pull.to_folder(&world.folder.path().join(format!("{number}"))).unwrap();
        let id = manifest.shards()[0].image;
        assert_eq!(vram_store::ImageId::of(&std::fs::read(images[0].path()).unwrap()), id);
    }
    let verify = |means| store.verify(None, means, Sample::All, &StoreOptions::new()).unwrap();
    assert_eq!(verify(VerifyMeans::Keyless).findings.len(), 0);
    let with_key = || VerifyMeans::Keys(&world.keys, None);
    assert_eq!(verify(with_key()).findings.len(), 0);

    let id = manifest.shards()[0].image;
    let path = server.path(&image_key(&id));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let found = verify(VerifyMeans::Keyless).findings;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].part, Some(Part::FilePart(2)));
    assert_eq!(verify(with_key()).findings.len(), 1);
    let refused =
        load(&Pull::new(&manifest, &world.keys, b"", store), &manager(content.len() as u64));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("segment 79") && text.contains("s3 in this process"), "{text}");

    // What no manifest names any more is collected, and nothing else.
    let other = World::new(100_000);
    let kept = other.push_revision(store, 2);
    std::fs::remove_file(server.path(&manifest_key(MODEL, 1, &pushed.id))).unwrap();
    let young = store.collect(Duration::from_hours(1), true, &StoreOptions::new()).unwrap();
    assert!(young.unnamed.is_empty() && young.too_young > 0, "{young:?}");
    let found = store.collect(Duration::ZERO, true, &StoreOptions::new()).unwrap();
    assert!(found.deleted && found.unnamed.len() == 2, "{found:?}");
    assert!(!path.exists());
    let manifest = other.manifest(store, &kept);
    let device = manager(100_000);
    load(&Pull::new(&manifest, &other.keys, b"", store), &device).unwrap();
}

/// P77: an upload that fails is aborted, so that no part of it stays that is invisible and billed; one that
/// cannot be aborted is named.
#[test]
fn an_upload_that_fails_is_aborted_or_named() {
    for aborts_work in [true, false] {
        let server = Server::start();
        let world = World::new(60 << 20);
        server.door.parts.store(5, Ordering::Relaxed);
        server.door.refuses_aborts.store(!aborts_work, Ordering::Relaxed);
        let mut events = Vec::new();
        let options = StoreOptions::new().on_event(|event| events.push(event.clone()));
        let refused = world.push_with(&server.store, 1, &options).unwrap_err();
        drop(options);
        assert!(refused.to_string().contains("upload"), "{refused}");
        assert!(server.door.aborts.load(Ordering::Relaxed) > 0, "it was tried");
        let told = events.iter().find_map(|event| match event {
            StoreEvent::NotAborted { key } => Some(key.clone()),
            _ => None,
        });
        if aborts_work {
            assert_eq!((server.parts_left(), told), (0, None));
        } else {
            assert!(server.parts_left() > 0, "five parts came in");
            assert!(told.is_some_and(|key| key.contains(".vseal")), "{events:?}");
        }
        let listed = server.store.list_manifests(None, &StoreOptions::new()).unwrap();
        assert!(listed.is_empty(), "nothing is named: {listed:?}");

        // The next push sends it all.
        server.door.parts.store(u64::MAX, Ordering::Relaxed);
        let pushed = world.push(&server.store);
        assert_eq!(pushed.sent, 1);
        let manifest = world.manifest(&server.store, &pushed);
        Pull::new(&manifest, &world.keys, b"", &server.store).verify(0).unwrap();
    }
}

#[test]
fn an_altered_shard_is_repaired_from_the_bucket_that_it_was_loaded_from() {
    an_alteration_is_found_and_repaired_from(&Server::start().store);
}
