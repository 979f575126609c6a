//! A proxy among clients that mean it ill: it goes on serving the others, takes no memory for them, and says so in a
//! line for each kind.

use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};

use super::proxy::{Running, fetch};

/// Connections of each kind that stay open; with both ends counted they fit into what one process may open.
const AT_A_TIME: usize = 60;
/// Connections that are made and closed as quickly as possible.
const CONNECTS: usize = 10_000;
/// Memory beyond what the proxy took before, in KiB. A connection takes about 20.
const MORE_KIB: u64 = 64 << 10;
const DEADLINE: Duration = Duration::from_mins(3);

/// What a connection sends, and nothing after it.
fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let mut garbage = vec![0_u8; 4096];
    fastrand::Rng::with_seed(1).fill(&mut garbage);
    // A size that might be right, so that it is not the size at which it is noticed.
    garbage[..4].copy_from_slice(&4000_i32.to_be_bytes());
    let mut client_hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    client_hello.resize(517, 7);
    let mut whole_limit = (100_i32 << 20).to_be_bytes().to_vec();
    whole_limit.extend([0, 1, 0, 4, 0, 0, 0, 1, 0, 0]);
    vec![
        ("says nothing", vec![]),
        ("begins a size", vec![0, 0]),
        ("begins a request", [&100_i32.to_be_bytes()[..], &[0, 3]].concat()),
        ("announces all that a request may take", whole_limit),
        (
            "announces more than there can be",
            i32::MAX.to_be_bytes().to_vec(),
        ),
        ("announces less than nothing", (-5_i32).to_be_bytes().to_vec()),
        ("garbage", garbage),
        ("TLS", client_hello),
    ]
}

/// Keeps `AT_A_TIME` connections of a kind open, and makes new ones where the proxy closes them.
fn abuse(address: &str, first: &[u8], stop: &AtomicBool, made: &AtomicU64) {
    let mut held: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        held.retain_mut(|stream| {
            let closed = matches!(stream.read(&mut [0; 512]), Ok(0) | Err(_));
            // Without waiting an error is mostly that there is nothing to read.
            !closed || stream.take_error().is_ok_and(|error| error.is_none()) && is_open(stream)
        });
        while held.len() < AT_A_TIME {
            let Ok(mut stream) = TcpStream::connect(address) else {
                break;
            };
            if stream.set_nonblocking(true).is_ok() && (first.is_empty() || stream.write_all(first).is_ok()) {
                made.fetch_add(1, Ordering::Relaxed);
                held.push(stream);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.peek(&mut [0]);
    peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// What a process has in memory, in KiB.
pub(super) fn resident_kib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.context("no VmRSS")?.split_whitespace().next();
    Ok(words.context("no number")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_mean_it_ill_cost_nobody_anything() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic("orders", 1)?;
    let events: Vec<_> = Events::new(1).take(10).collect();
    broker.append("orders", 0, pack(&events, Packing::Lz4)?)?;
    let proxy = Running::in_front_of(&broker)?;
    let expected = fetch(&proxy.address)?;
    let before_kib = resident_kib(proxy.id())?;
    let (stop, started) = (AtomicBool::new(false), Instant::now());
    let made: Vec<AtomicU64> = kinds().iter().map(|_| AtomicU64::new(0)).collect();
    let most_kib = std::thread::scope(|scope| -> Result<u64> {
        for ((_, first), made) in kinds().into_iter().zip(&made) {
            let (address, stop) = (&proxy.address, &stop);
            scope.spawn(move || abuse(address, &first, stop, made));
        }
        let connects = scope.spawn(|| {
            let connected = (0..CONNECTS).filter(|_| TcpStream::connect(&proxy.address).is_ok());
            connected.count()
        });
        let served = || -> Result<u64> {
            let mut most_kib = 0;
            // The proxy lets who does not go on with a request go after ten seconds: longer than that.
            while started.elapsed() < Duration::from_secs(12) || !connects.is_finished() {
                ensure!(started.elapsed() < DEADLINE, "the connects take too long");
                assert_eq!(fetch(&proxy.address)?, expected, "others are served");
                most_kib = most_kib.max(resident_kib(proxy.id())?);
            }
            Ok(most_kib)
        };
        let served = served();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(connects.join().expect("it counts only"), CONNECTS);
        served
    })?;
    assert!(
        most_kib <= before_kib + MORE_KIB,
        "{before_kib} KiB became {most_kib}"
    );
    for ((kind, _), made) in kinds().iter().zip(&made) {
        assert!(
            made.load(Ordering::Relaxed) >= AT_A_TIME as u64,
            "{kind}: {made:?}"
        );
    }
    assert_eq!(fetch(&proxy.address)?, expected, "and afterwards");
    let (status, stderr) = proxy.end("-TERM")?;
    assert_eq!(status.code(), Some(0), "{stderr}");
    // One line of a kind in ten seconds, whatever they do.
    let rounds = usize::try_from(started.elapsed().as_secs() / 10 + 1)?;
    for reason in [
        "it announced a request of",
        "sent no whole request in time",
        "is not spoken",
    ] {
        let lines = stderr.lines().filter(|line| line.contains(reason)).count();
        assert!(
            (1..=rounds).contains(&lines),
            "{reason}: {lines} lines in\n{stderr}"
        );
    }
    assert!(stderr.lines().count() <= 5 * rounds, "{stderr}");
    Ok(())
}
