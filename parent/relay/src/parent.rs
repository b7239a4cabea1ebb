//! All of a parent, put together.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::enclave::{Enclave, Parts, View};
use crate::folder::{Folder, FolderError};
use crate::http::{self, Api};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::store::Store;

/// Why a parent does not start, or does not go on. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`, which is `{field}` in the configuration: {error}")]
    Listen {
        /// Which field.
        field: &'static str,
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// There is no HTTP client to fetch files with.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    /// The system lets no signal be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// Something that is to run for ever ended.
    #[error("`{0}` ended unexpectedly")]
    Ended(&'static str),
}

/// A parent that holds its folder and its ports, and does not serve yet.
#[derive(Debug)]
pub struct Parent {
    config: Config,
    http: TcpListener,
    relay: TcpListener,
    http_address: SocketAddr,
    relay_address: SocketAddr,
    enclave: Enclave,
    store: Store,
    metrics: Arc<Metrics>,
}

/// What a parent's tasks run on: one thread. They hand on bytes; what reads or writes files, or parses
/// what is large, is given a thread of its own. So none has to wake another thread to hand something
/// on.
///
/// # Errors
/// If the system gives none.
pub fn tasks() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

impl Parent {
    /// Takes the folder and the ports.
    ///
    /// # Errors
    /// If one of them is taken, or the folder is of another cluster.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let folder = Arc::new(Folder::open(&config.folder)?);
        let genesis = folder.genesis(&config.manifest)?;
        let store = Store::open(Arc::clone(&folder))
            .map_err(|error| FolderError::System { path: config.folder.join("store"), error })?;
        let (http, http_address) = listen("http", config.http).await?;
        let (relay, relay_address) = listen("relay", config.relay).await?;
        let (view, seen) = watch::channel(View::default());
        let metrics = Arc::new(Metrics::new(seen));
        let enclave = Enclave::new(Parts {
            address: config.enclave.clone(),
            node: config.node.clone(),
            manifest: config.manifest.clone(),
            triple_stock: config.triple_stock,
            round_trip_ms: config.round_trip_ms,
            genesis,
            folder,
            store: store.clone(),
            metrics: Arc::clone(&metrics),
            most_waiting: config.limits.in_flight,
            view,
        });
        Ok(Self { config, http, relay, http_address, relay_address, enclave, store, metrics })
    }

    /// Where the API listens.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where other parents connect.
    #[must_use]
    pub const fn relay_address(&self) -> SocketAddr {
        self.relay_address
    }

    /// The enclave, as this parent sees it.
    #[must_use]
    pub const fn enclave(&self) -> &Enclave {
        &self.enclave
    }

    /// Serves until it is told to stop; then lets requests under way end, for a time.
    ///
    /// # Errors
    /// If a part of it ends by itself, which none should.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let (stopping, stopped) = watch::channel(false);
        let Self { config, http, relay, enclave, store, metrics, .. } = self;
        let (node, limits) = (config.node.clone(), config.limits.clone());
        tracing::info!(
            %node, http = %self.http_address, relay = %self.relay_address,
            enclave = %config.enclave, "serving"
        );
        let mut parts = JoinSet::new();

        let mirrors: Vec<_> = config.peers.values().filter_map(|peer| peer.http.clone()).collect();
        if !mirrors.is_empty() {
            let (store, metrics) = (store.clone(), Arc::clone(&metrics));
            let mirror = Mirror::new(store, enclave.clone(), metrics, mirrors)
                .map_err(StartError::Client)?;
            parts.spawn(async move {
                mirror.run().await;
                "mirror"
            });
        }
        let links = Arc::new(Links {
            node: node.clone(),
            enclave: config.enclave.clone(),
            limits: limits.clone(),
            metrics: Arc::clone(&metrics),
            view: enclave.view(),
        });
        for (to, peer) in config.peers {
            // of two nodes the one whose name sorts lower dials
            if node < to {
                let links = Arc::clone(&links);
                parts.spawn(async move {
                    links.dial(&to, &peer).await;
                    "link"
                });
            }
        }
        parts.spawn(async move {
            links.accept(relay).await;
            "relay"
        });
        let connected = enclave.clone();
        parts.spawn(async move {
            connected.run().await;
            "enclave"
        });
        let metrics_of_http = Arc::clone(&metrics);
        let api = Api::new(node, enclave, store, metrics, limits.clone(), stopped.clone());
        let router = http::router(Arc::new(api));
        let mut serving =
            core::pin::pin!(http::serve(http, router, limits, metrics_of_http, stopped));
        tokio::select! {
            () = stop => {
                tracing::info!("stopping");
                let _ = stopping.send(true);
                serving.await;
                Ok(())
            }
            () = serving.as_mut() => Err(StartError::Ended("http")),
            ended = parts.join_next() => {
                Err(StartError::Ended(ended.and_then(Result::ok).unwrap_or("task")))
            }
        }
    }
}

async fn listen(
    field: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let fail = |error| StartError::Listen { field, address, error };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    Ok((listener, address))
}
