//! A proxy on loopback that does to the answers of a real broker what networks and broken middle boxes do.

use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpTransport, Transport, TransportError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// What is done to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toxin {
    /// Nothing.
    None,
    /// Half of it, and then a reset.
    ResetInside,
    /// One byte at a time.
    Trickle,
    /// Half of it, and then silence.
    Stall,
    /// Nothing at all, on a connection that stays open.
    Silence,
    /// This length in place of the right one.
    Length(i32),
    /// The number of another request.
    WrongCorrelationId,
    /// A length that is one too short, so that the next answer begins with the last byte of this one.
    OneByteShort,
}

/// A proxy in front of one broker; ends with its runtime.
pub(crate) struct ToxicProxy {
    address: BrokerAddress,
    state: Arc<State>,
}

struct State {
    toxin: Mutex<Toxin>,
    /// Every so many answers one is treated.
    every: AtomicUsize,
    answers: AtomicUsize,
    treated: AtomicUsize,
    open: AtomicUsize,
}

impl ToxicProxy {
    pub(crate) async fn start(broker: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string().parse()?;
        let state = Arc::new(State {
            toxin: Mutex::new(Toxin::None),
            every: AtomicUsize::new(1),
            answers: AtomicUsize::new(0),
            treated: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let (shared, broker) = (Arc::clone(&state), broker.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, broker) = (Arc::clone(&shared), broker.clone());
                tokio::spawn(async move {
                    state.open.fetch_add(1, Ordering::SeqCst);
                    // However it ends, that is what the client has to cope with.
                    let _end = between(client, &broker, &state).await;
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, state })
    }

    /// From now on one answer in `every` is treated like this.
    pub(crate) fn poison(&self, toxin: Toxin, every: usize) {
        *self.state.toxin.lock().unwrap_or_else(PoisonError::into_inner) = toxin;
        self.state.every.store(every, Ordering::SeqCst);
        self.state.treated.store(0, Ordering::SeqCst);
    }

    /// How many answers were treated since.
    pub(crate) fn treated(&self) -> usize {
        self.state.treated.load(Ordering::SeqCst)
    }

    /// How many connections of clients are open.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Reaches the broker by the proxy, whichever address is asked for.
    pub(crate) fn transport(&self, tcp: TcpTransport) -> Detour {
        Detour {
            tcp,
            proxy: self.address.clone(),
        }
    }
}

async fn between(client: TcpStream, broker: &str, state: &State) -> Result<()> {
    let broker = TcpStream::connect(broker).await?;
    client.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_broker, mut to_broker) = broker.into_split();
    tokio::select! {
        asked = copy(&mut from_client, &mut to_broker) => asked.map(drop).context("the client's side"),
        answered = answers(from_broker, to_client, state) => answered,
    }
}

async fn answers(mut broker: OwnedReadHalf, mut client: OwnedWriteHalf, state: &State) -> Result<()> {
    loop {
        let length = broker.read_i32().await?;
        let mut body = vec![0; usize::try_from(length)?];
        broker.read_exact(&mut body).await?;
        let number = state.answers.fetch_add(1, Ordering::SeqCst);
        let toxin = *state.toxin.lock().unwrap_or_else(PoisonError::into_inner);
        let is_treated = number.is_multiple_of(state.every.load(Ordering::SeqCst));
        let toxin = if is_treated { toxin } else { Toxin::None };
        if toxin != Toxin::None {
            state.treated.fetch_add(1, Ordering::SeqCst);
        }
        give(&mut client, length, body, toxin).await?;
    }
}

async fn give(client: &mut OwnedWriteHalf, length: i32, mut body: Vec<u8>, toxin: Toxin) -> Result<()> {
    let half = body.len() / 2;
    match toxin {
        Toxin::None => {
            client.write_i32(length).await?;
            client.write_all(&body).await?;
        }
        Toxin::ResetInside => {
            client.write_i32(length).await?;
            client.write_all(&body[..half]).await?;
            anyhow::bail!("reset");
        }
        Toxin::Trickle => {
            client.write_i32(length).await?;
            // Each in a segment of its own, and a pause now and then, so that the reader sees many pieces.
            for (at, byte) in body.iter().enumerate() {
                client.write_u8(*byte).await?;
                if at % 64 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        Toxin::Stall => {
            client.write_i32(length).await?;
            client.write_all(&body[..half]).await?;
            core::future::pending::<()>().await;
        }
        Toxin::Silence => core::future::pending().await,
        Toxin::Length(other) => {
            client.write_i32(other).await?;
            client.write_all(&body).await?;
        }
        Toxin::WrongCorrelationId => {
            client.write_i32(length).await?;
            body[0] ^= 0x40;
            client.write_all(&body).await?;
        }
        Toxin::OneByteShort => {
            client.write_i32(length - 1).await?;
            client.write_all(&body).await?;
        }
    }
    Ok(())
}

/// Sends everything to one address.
#[derive(Clone)]
pub(crate) struct Detour {
    tcp: TcpTransport,
    proxy: BrokerAddress,
}

impl Transport for Detour {
    async fn round_trip(
        &self,
        _broker: &BrokerAddress,
        request: Request,
    ) -> Result<Response, TransportError> {
        self.tcp.round_trip(&self.proxy, request).await
    }

    async fn api_versions(&self, _broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.tcp.api_versions(&self.proxy).await
    }

    fn answer_timeout(&self) -> Duration {
        self.tcp.answer_timeout()
    }
}
