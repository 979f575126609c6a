//! Which brokers there are, and the listener of each: one port for every node id, so that an address that a client was
//! told stays good, also across restarts and between several proxies.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::splice::{Advertise, Advertised, RewriteError};
use crate::transport::BrokerAddress;

/// More brokers than any cluster has; beyond it no port is opened for one.
pub(super) const NODES_LIMIT: usize = 1024;

/// Why there is no port for a broker.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokersError {
    /// The port cannot be opened.
    #[error(
        "cannot listen on {address} for broker {node_id}: {source}; a broker's port is that of --listen + 1 + its node id"
    )]
    Listen {
        /// The node id.
        node_id: i32,
        /// Where it was to be.
        address: SocketAddr,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// There is no such port.
    #[error(
        "broker {node_id} would be on port {port}, which is none; a broker's port is that of --listen + 1 + its node id, less --lowest-node-id"
    )]
    NoSuchPort {
        /// The node id.
        node_id: i32,
        /// What was computed.
        port: i64,
    },
    /// The cluster tells of an address that is none.
    #[error("the cluster tells of broker {node_id} at {host}:{port}, which is no address")]
    Address {
        /// The node id.
        node_id: i32,
        /// The host.
        host: String,
        /// The port.
        port: i32,
    },
    /// There are too many.
    #[error("the cluster tells of more than {NODES_LIMIT} brokers")]
    TooMany,
}

/// Where a connection of a client leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// To any broker.
    Any,
    /// To this one.
    Node(i32),
}

/// A port that has been opened, on which nobody accepts yet.
pub(super) struct Opened {
    pub(super) home: Home,
    pub(super) listener: TcpListener,
}

/// The brokers that have shown so far.
pub(super) struct Brokers {
    /// The listener that leads to any broker.
    base: SocketAddr,
    /// Every port is whichever is free.
    any_port: bool,
    lowest_node_id: i32,
    bootstrap: Vec<BrokerAddress>,
    nodes: Mutex<BTreeMap<i32, Node>>,
    /// Has room for all of them.
    opened: mpsc::Sender<Opened>,
}

struct Node {
    upstream: BrokerAddress,
    port: u16,
}

impl Brokers {
    /// `base` is where the first listener listens, `asked` where it was to.
    pub(super) fn new(
        base: SocketAddr,
        asked: SocketAddr,
        lowest_node_id: i32,
        bootstrap: Vec<BrokerAddress>,
    ) -> (Self, mpsc::Receiver<Opened>) {
        let (opened, openings) = mpsc::channel(NODES_LIMIT + 1);
        let brokers = Self {
            base,
            any_port: asked.port() == 0,
            lowest_node_id,
            bootstrap,
            nodes: Mutex::default(),
            opened,
        };
        (brokers, openings)
    }

    /// The ports by node id.
    pub(super) fn ports(&self) -> BTreeMap<i32, u16> {
        let nodes = super::lock(&self.nodes);
        nodes.iter().map(|(id, node)| (*id, node.port)).collect()
    }

    /// Where a connection can lead, in the order in which to try.
    pub(super) fn upstream(&self, home: Home) -> Vec<BrokerAddress> {
        let nodes = super::lock(&self.nodes);
        match home {
            Home::Node(node_id) => nodes
                .get(&node_id)
                .map(|node| node.upstream.clone())
                .into_iter()
                .collect(),
            Home::Any => {
                let mut addresses = self.bootstrap.clone();
                for node in nodes.values() {
                    if !addresses.contains(&node.upstream) {
                        addresses.push(node.upstream.clone());
                    }
                }
                addresses
            }
        }
    }

    /// The port of a broker, opened if this is the first that is heard of it.
    pub(super) fn port_of(&self, node_id: i32, upstream: BrokerAddress) -> Result<u16, BrokersError> {
        let mut nodes = super::lock(&self.nodes);
        let known = nodes.len();
        match nodes.entry(node_id) {
            Entry::Occupied(mut node) => {
                if node.get().upstream != upstream {
                    tracing::info!(node_id, %upstream, "a broker has another address");
                    node.get_mut().upstream = upstream;
                }
                Ok(node.get().port)
            }
            Entry::Vacant(_) if known >= NODES_LIMIT => Err(BrokersError::TooMany),
            Entry::Vacant(vacant) => {
                let listener = self.listen(node_id)?;
                let port = listener.local_addr().map_or(0, |address| address.port());
                tracing::info!(node_id, %upstream, port, "listening for a broker");
                vacant.insert(Node { upstream, port });
                self.open(Opened {
                    home: Home::Node(node_id),
                    listener,
                });
                Ok(port)
            }
        }
    }

    /// Has clients accepted on a port.
    pub(super) fn open(&self, opened: Opened) {
        // There is room for all, and nobody accepts any more only where the proxy ends.
        let _ends = self.opened.try_send(opened);
    }

    fn listen(&self, node_id: i32) -> Result<TcpListener, BrokersError> {
        let port = if self.any_port {
            0
        } else {
            i64::from(self.base.port()) + 1 + i64::from(node_id) - i64::from(self.lowest_node_id)
        };
        let valid = u16::try_from(port)
            .ok()
            .filter(|port| self.any_port || *port > self.base.port());
        let port = valid.ok_or(BrokersError::NoSuchPort { node_id, port })?;
        let address = SocketAddr::new(self.base.ip(), port);
        listen(address).map_err(|source| BrokersError::Listen {
            node_id,
            address,
            source: Arc::new(source),
        })
    }
}

/// Opens a port for tokio.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What the client of one connection is told.
pub(super) struct ToClient<'b> {
    pub(super) brokers: &'b Brokers,
    pub(super) host: &'b str,
}

impl Advertise for ToClient<'_> {
    fn advertise(&self, node_id: i32, host: &str, port: i32) -> Result<Advertised, RewriteError> {
        let valid = u16::try_from(port).ok().filter(|port| *port != 0);
        let port = valid.ok_or_else(|| BrokersError::Address {
            node_id,
            host: host.to_owned(),
            port,
        })?;
        let host = host.to_owned();
        let port = self.brokers.port_of(node_id, BrokerAddress { host, port })?;
        Ok(Advertised {
            host: self.host.to_owned(),
            port,
        })
    }
}

/// What a client is told that reached the proxy at this address of it.
pub(super) fn host_for(advertise: Option<&str>, local: IpAddr) -> String {
    match (advertise, local) {
        (Some(host), _) => host.to_owned(),
        // A client of IPv4 on a socket of both kinds.
        (None, IpAddr::V6(address)) => address
            .to_ipv4_mapped()
            .map_or_else(|| address.to_string(), |address| address.to_string()),
        (None, address) => address.to_string(),
    }
}
