//! What a warm hit from a mount point costs: 16 or 512 KiB of a 64 MiB segment at a random place that the page cache
//! holds, and their checksum. The floor is a call that reads into a buffer which is there already. All ways take turns,
//! so that what else the machine does meets each of them, and it is the median of a round's ratios that tells.
//!
//! `cargo bench -p kachet-bench --bench mount_reads`

#[cfg(unix)]
fn main() {
    measured::run();
}

#[cfg(not(unix))]
fn main() {
    eprintln!("not measured: reads at a place are made as Unix has them");
}

#[cfg(unix)]
mod measured {
    use std::fs::File;
    use std::hint::black_box;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::time::Instant;

    use bytes::Bytes;
    use kachet::mount::{MountOptions, MountPoint, MountReader, ReadMode};
    use kachet_core::storage::{SegmentId, SegmentReader, Storage};
    use tokio::runtime::Runtime;

    const SEGMENT_BYTES: usize = 64 << 20;
    const RECORD_BYTES: [usize; 2] = [16 << 10, 512 << 10];
    const SEGMENT: SegmentId = SegmentId(1);
    const ROUNDS: usize = 200;
    /// What is read in a round by each way.
    const ROUND_BYTES: usize = 8 << 20;

    /// A way of reading, by name.
    type Way<'a> = (&'static str, Box<dyn FnMut(Range<u64>) -> u32 + 'a>);

    pub(super) fn run() {
        let runtime = Runtime::new().expect("a runtime starts");
        let folder = tempfile::tempdir().expect("a folder can be made");
        runtime.block_on(fill(folder.path()));
        let mapped = runtime.block_on(open(folder.path(), ReadMode::Mapped));
        let positional = runtime.block_on(open(folder.path(), ReadMode::Positional));
        let path = folder.path().join(format!("{SEGMENT}.segment"));
        let file = File::open(path).expect("the segment is there");
        for record_bytes in RECORD_BYTES {
            let mut buffer = vec![0; record_bytes];
            let mut ways: [Way<'_>; 5] = [
                (
                    "pread into a buffer (the floor)",
                    Box::new(|range| {
                        let read = file.read_exact_at(&mut buffer, range.start);
                        read.expect("the segment can be read");
                        crc32c::crc32c(black_box(&buffer))
                    }),
                ),
                ("mapped, at once", Box::new(|range| at_once(&mapped, range))),
                (
                    "positional, at once",
                    Box::new(|range| at_once(&positional, range)),
                ),
                (
                    "mapped, by a thread that may block",
                    Box::new(|range| elsewhere(&runtime, &mapped, range)),
                ),
                (
                    "positional, by a thread that may block",
                    Box::new(|range| elsewhere(&runtime, &positional, range)),
                ),
            ];
            report(record_bytes, &mut ways);
        }
    }

    fn at_once(reader: &MountReader, range: Range<u64>) -> u32 {
        let read = reader.read_now(range).expect("it is warm");
        crc32c::crc32c(black_box(&read.expect("the segment can be read")))
    }

    fn elsewhere(runtime: &Runtime, reader: &MountReader, range: Range<u64>) -> u32 {
        let read = runtime.block_on(reader.read(range));
        crc32c::crc32c(black_box(&read.expect("the segment can be read")))
    }

    fn report(record_bytes: usize, ways: &mut [Way<'_>]) {
        let mut random = fastrand::Rng::with_seed(7);
        let mut seconds = vec![Vec::new(); ways.len()];
        for round in 0..ROUNDS {
            let records = (SEGMENT_BYTES / record_bytes) as u64;
            let places = (0..ROUND_BYTES / record_bytes).map(|_| random.u64(..records) * record_bytes as u64);
            let places: Vec<u64> = places.collect();
            let reads = f64::from(u32::try_from(places.len()).expect("a round is short"));
            // Another one each time is first, which finds the least of them in the processor's caches.
            for turn in 0..ways.len() {
                let way = (round + turn) % ways.len();
                let started = Instant::now();
                for at in &places {
                    black_box(ways[way].1(*at..at + record_bytes as u64));
                }
                seconds[way].push(started.elapsed().as_secs_f64() / reads);
            }
        }
        println!("warm {} KiB and their CRC-32C:", record_bytes >> 10);
        for ((name, _), of_way) in ways.iter().zip(&seconds) {
            let ratios = of_way.iter().zip(&seconds[0]).map(|(way, floor)| way / floor);
            println!(
                "  {name:<40} {:8.2} µs, {:5.2} times the floor",
                median(of_way.iter().copied()) * 1e6,
                median(ratios)
            );
        }
    }

    fn median(values: impl Iterator<Item = f64>) -> f64 {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    async fn fill(path: &Path) {
        let mut mount = MountPoint::open(path).expect("the folder is empty");
        let mut noise = fastrand::Rng::with_seed(1);
        mount.create(SEGMENT).await.expect("it is not there yet");
        let started = Instant::now();
        for _ in 0..SEGMENT_BYTES >> 20 {
            let mut bytes = vec![0; 1 << 20];
            noise.fill(&mut bytes);
            let appended = mount.append(SEGMENT, vec![Bytes::from(bytes)]).await;
            appended.expect("there is room");
        }
        mount.seal(SEGMENT).await.expect("it can be sealed");
        println!("64 MiB made up and appended in {:?}", started.elapsed());
    }

    async fn open(path: &Path, mode: ReadMode) -> MountReader {
        let mount = MountOptions::new().read_mode(mode).open(path);
        let opened = mount.expect("nobody else has it open").open(SEGMENT).await;
        opened.expect("it was written")
    }
}
