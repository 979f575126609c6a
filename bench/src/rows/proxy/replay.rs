//! Replays of a topic, and what the same bytes cost without Kafka.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use kachet_tests::kafka::KafkaBroker;
use kachet_tests::kcat;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::reader::{FETCH_BYTES, Reader};
use super::{Proxied, Scope, TOPIC};
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit, count};

const PIECE_BYTES: usize = FETCH_BYTES as usize;
/// Of small data one replay is over within a time slice of whatever else the machine does.
const REPLAY_BYTES_MIN: usize = 1 << 28;

/// The rate of warm replays, and the processor's time for them.
pub(super) fn warm(
    scope: &Scope,
    runtime: &Runtime,
    direct: &Reader,
    through: &Reader,
) -> Result<[Outcome; 2]> {
    let (size_bytes, _) = runtime.block_on(direct.all())?;
    let times = REPLAY_BYTES_MIN.div_ceil(size_bytes.max(1));
    let by = |reader: &Reader| -> Result<Cost> {
        measure(size_bytes * times, || {
            for _ in 0..times {
                runtime.block_on(reader.all())?;
            }
            Ok(())
        })
    };
    // Of its own memory each, because what is in the processor's caches is copied faster.
    let bytes = Arc::new(vec![1; size_bytes]);
    let copy = |asks: bool| -> Result<Cost> {
        let mut pair = runtime.block_on(Pair::connect(&bytes, asks))?;
        measure(size_bytes * times, || {
            for _ in 0..times {
                runtime.block_on(pair.copy(size_bytes))?;
            }
            Ok(())
        })
    };
    let rates = Contest::new("replay of a topic, warm", Unit::BytesPerSecond)
        .way("kachet", Role::Ours, || Ok(by(through)?.rate))
        .way("the broker", Role::Peer, || Ok(by(direct)?.rate))
        .way("loopback copy", Role::Floor, || Ok(copy(false)?.rate))
        .way("loopback copy that is asked for", Role::Floor, || {
            Ok(copy(true)?.rate)
        })
        .target(Target::ratio("kachet", "loopback copy", Bound::AtLeast(0.8)))
        .run(scope.rounds)?;
    let processor = Contest::new("processor time for a mebibyte of it, both sides", Unit::Seconds)
        .way("kachet", Role::Ours, || Ok(by(through)?.processor_seconds))
        .way(
            "loopback copy",
            Role::Floor,
            || Ok(copy(false)?.processor_seconds),
        )
        .way("loopback copy that is asked for", Role::Floor, || {
            Ok(copy(true)?.processor_seconds)
        })
        .target(Target::ratio("kachet", "loopback copy", Bound::AtMost(1.25)))
        .run(scope.rounds)?;
    Ok([rates, processor])
}

pub(super) fn warm_by_kcat(scope: &Scope, broker: &KafkaBroker, proxy: &Proxied) -> Result<Outcome> {
    let time = |bootstrap: &str| -> Result<f64> {
        let started = Instant::now();
        let arguments = ["-C", "-b", bootstrap, "-t", TOPIC, "-p", "0"];
        let whole = ["-o", "beginning", "-e", "-q", "-f", ""];
        kcat::run(&[&arguments[..], &whole[..]].concat(), b"")?;
        Ok(started.elapsed().as_secs_f64())
    };
    let (proxy, broker) = (proxy.address().to_string(), broker.bootstrap());
    Contest::new("replay of a topic by kcat, warm", Unit::Seconds)
        .way("kachet", Role::Ours, || time(&proxy))
        .way("the broker", Role::Peer, || time(&broker))
        .run(scope.rounds)
}

/// What moving so many bytes took.
struct Cost {
    /// Bytes in a second.
    rate: f64,
    /// Of all threads of this process, for a mebibyte.
    processor_seconds: f64,
}

fn measure(size_bytes: usize, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let (started, used) = (Instant::now(), processor_seconds());
    work()?;
    Ok(Cost {
        rate: count(size_bytes) / started.elapsed().as_secs_f64(),
        processor_seconds: (processor_seconds() - used) / count(size_bytes) * 1_048_576.0,
    })
}

#[expect(clippy::cast_precision_loss, reason = "seconds and nanoseconds of a process")]
fn processor_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 * 1e-9
}

/// Two ends of a connection; one writes a mebibyte at a time, as fast as it is read or whenever it is asked.
struct Pair {
    reader: TcpStream,
    place: Vec<u8>,
    asks: bool,
}

impl Pair {
    async fn connect(bytes: &Arc<Vec<u8>>, asks: bool) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let reader = TcpStream::connect(listener.local_addr()?).await?;
        let (mut writer, _) = listener.accept().await?;
        reader.set_nodelay(true)?;
        writer.set_nodelay(true)?;
        let bytes = Arc::clone(bytes);
        // Ends with the reader.
        tokio::spawn(async move {
            let mut asked = [0];
            loop {
                for piece in bytes.chunks(PIECE_BYTES) {
                    if asks {
                        writer.read_exact(&mut asked).await?;
                    }
                    writer.write_all(piece).await?;
                }
            }
            #[expect(unreachable_code, reason = "says what may fail")]
            std::io::Result::Ok(())
        });
        Ok(Self {
            reader,
            place: vec![0; PIECE_BYTES],
            asks,
        })
    }

    async fn copy(&mut self, size_bytes: usize) -> Result<()> {
        let mut left = size_bytes;
        while left > 0 {
            let wanted = left.min(PIECE_BYTES);
            if self.asks {
                self.reader.write_all(&[1]).await?;
            }
            let mut came = 0;
            while came < wanted {
                match self.reader.read(&mut self.place[came..wanted]).await? {
                    0 => bail!("the writer has gone with {left} bytes left"),
                    more => came += more,
                }
            }
            ensure!(self.place[0] == 1, "other bytes came than were written");
            left -= wanted;
        }
        Ok(())
    }
}
