//! Stores behind a network.

use core::time::Duration;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::{caused, check, refused, scheme, unknown};
use crate::error::StoreError;
use crate::store::Store;
use crate::store::bounded::Bounded;

pub(in crate::store) fn remote(kind: &str, address: &str) -> Result<Store, StoreError> {
    check(address)?;
    // The one provider of cryptography. A second call finds it installed, which is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let usual = build(kind, address, false)?;
    let past_caches = build(kind, address, true)?;
    let rest = scheme(address).map_or("", |(_, rest)| rest);
    // HTTP takes the whole address as its root; the others take the name of the bucket.
    let root = match kind {
        "http" | "https" => "",
        _ => rest.split_once('/').map_or("", |(_, root)| root),
    };
    Ok(Store::new(address, usual, Some(past_caches), root, None))
}

fn build(kind: &str, address: &str, past_caches: bool) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let failed = |error: object_store::Error| refused(address, caused(&error));
    // Retries are this crate's: a range is tried again at another source, within one deadline.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    // Longer than a stall: a host that takes no connection is one that stalls.
    let mut client =
        ClientOptions::new().with_timeout_disabled().with_connect_timeout(Duration::from_secs(15));
    let connector = Bounded { follows: matches!(kind, "http" | "https"), past_caches };
    let bucket = scheme(address).and_then(|(_, rest)| rest.split('/').next()).unwrap_or("");
    Ok(match kind {
        "s3" | "s3a" => {
            // The client panics at what is none.
            let is_wrong = |name: &&str| std::env::var(name).is_ok_and(|value| !is_server(&value));
            if let Some(name) = ENDPOINTS.into_iter().find(is_wrong) {
                let why = format!(
                    "the variable {name} is no address of a server: one begins with http:// or https://"
                );
                return Err(refused(address, why));
            }
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            if std::env::var_os("AWS_ALLOW_HTTP").is_some_and(|value| value == "true") {
                client = client.with_allow_http(true);
            }
            builder = builder.with_client_options(client).with_retry(retry);
            builder = builder.with_http_connector(connector);
            Arc::new(builder.build().map_err(failed)?)
        }
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_http_connector(connector)
                .with_client_options(client)
                .with_retry(retry)
                .build()
                .map_err(failed)?,
        ),
        "az" | "azure" => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_http_connector(connector)
                .with_client_options(client)
                .with_retry(retry)
                .build()
                .map_err(failed)?,
        ),
        "http" | "https" => Arc::new(
            HttpBuilder::new()
                .with_url(address)
                .with_http_connector(connector)
                .with_client_options(client.with_allow_http(true))
                .with_retry(retry)
                .build()
                .map_err(failed)?,
        ),
        other => {
            return Err(refused(address, unknown(other)));
        }
    })
}

/// Variables that say where the servers of S3 are.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];

/// Whether a text is the address of a server.
fn is_server(text: &str) -> bool {
    let url = reqwest::Url::parse(text);
    url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_endpoint_is_the_address_of_a_server() {
        for good in ["http://127.0.0.1:9000", "https://minio.local/x"] {
            assert!(super::is_server(good), "{good}");
        }
        for wrong in ["localhost:9000", "127.0.0.1:9000", "minio.local/x", "http://my host:1", ""] {
            assert!(!super::is_server(wrong), "{wrong}");
        }
    }
}
