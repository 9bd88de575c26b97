//! The bootstrap user of a service: makes its buckets, once, and compares what the server made of them with what was asked.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::StorageType;
use contract::{Service, bucket};

use super::NatsTransport;

/// Old servers ignore message lifetimes silently; asking for one shows that this server does not.
const REMOVED_MARKS: Duration = Duration::from_secs(3600);
/// A row holds a message, or an operation with its journal.
const ROW_BYTES_MAX: i32 = 512 * 1024;

/// A bucket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The server says no.
    #[error("making the bucket {bucket}: {reason}")]
    Refused {
        /// Which.
        bucket: &'static str,
        /// What it said.
        reason: String,
    },
    /// The server made something else of it.
    #[error("the bucket {bucket} was made, but without {what}")]
    SettingNotApplied {
        /// Which.
        bucket: &'static str,
        /// What is missing.
        what: &'static str,
    },
}

/// Makes every bucket of a service that is not there yet, on so many servers of a cluster.
///
/// # Errors
/// When the server refuses a bucket or creates it otherwise than asked.
pub async fn bootstrap(
    transport: &NatsTransport,
    service: Service,
    replicas: usize,
) -> Result<(), BootstrapError> {
    let context = jetstream::new(transport.client.clone());
    for table in bucket::of_service(service) {
        let config = kv::Config {
            bucket: table.name.into(),
            history: i64::from(table.history),
            storage: StorageType::File,
            num_replicas: replicas,
            max_value_size: ROW_BYTES_MAX,
            limit_markers: Some(REMOVED_MARKS),
            ..Default::default()
        };
        let refused = |reason: String| BootstrapError::Refused { bucket: table.name, reason };
        let store = match context.create_key_value(config.clone()).await {
            Ok(store) => store,
            // It is there with other settings, from an earlier version: bring it up to date.
            Err(_) => context
                .create_or_update_key_value(config)
                .await
                .map_err(|error| refused(error.to_string()))?,
        };
        let made = &store.stream.cached_info().config;
        for (holds, what) in [
            (made.allow_direct, "direct get"),
            (made.allow_rollup, "rollup"),
            (made.allow_message_ttl, "message lifetimes"),
            (made.num_replicas == replicas, "its replicas"),
        ] {
            if !holds {
                return Err(BootstrapError::SettingNotApplied { bucket: table.name, what });
            }
        }
    }
    Ok(())
}
