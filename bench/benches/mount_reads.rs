//! What a warm hit from a mount point costs: 16 KiB of a 64 MiB segment at a random place that the page cache holds, and
//! their checksum. The floor is a call that reads into a buffer which is there already.
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
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use bytes::Bytes;
    use criterion::Criterion;
    use kachet::mount::{MountOptions, MountReader, ReadMode};
    use kachet_core::storage::{SegmentId, SegmentReader, Storage};
    use tokio::runtime::Runtime;

    const SEGMENT_BYTES: usize = 64 << 20;
    const RECORD_BYTES: usize = 16 << 10;
    const SEGMENT: SegmentId = SegmentId(1);

    pub(super) fn run() {
        let runtime = Runtime::new().expect("a runtime starts");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut criterion = Criterion::default().configure_from_args();
        runtime.block_on(fill(folder.path()));
        let mapped = runtime.block_on(open(folder.path(), ReadMode::Mapped));
        let positional = runtime.block_on(open(folder.path(), ReadMode::Positional));
        let mut group = criterion.benchmark_group("warm 16 KiB and their CRC-32C");
        let file =
            File::open(folder.path().join(format!("{SEGMENT}.segment"))).expect("the segment is there");
        let mut buffer = vec![0; RECORD_BYTES];
        let mut places = Places::new();
        group.bench_function("raw: pread into a buffer, the floor", |bencher| {
            bencher.iter(|| {
                let read = file.read_exact_at(&mut buffer, places.next());
                read.expect("the segment can be read");
                crc32c::crc32c(black_box(&buffer))
            });
        });
        for (name, reader) in [("mapped", &mapped), ("positional", &positional)] {
            group.bench_function(format!("{name}: read_now"), |bencher| {
                bencher.iter(|| {
                    let at = places.next();
                    let read = reader.read_now(at..at + RECORD_BYTES as u64);
                    let bytes = read.expect("it is warm").expect("the segment can be read");
                    crc32c::crc32c(black_box(&bytes))
                });
            });
            group.bench_function(format!("{name}: read, by a thread that may block"), |bencher| {
                bencher.iter(|| {
                    let at = places.next();
                    let read = runtime.block_on(reader.read(at..at + RECORD_BYTES as u64));
                    crc32c::crc32c(black_box(&read.expect("the segment can be read")))
                });
            });
        }
        group.finish();
    }

    async fn fill(path: &Path) {
        let mut mount = MountOptions::new().open(path).expect("the folder is empty");
        let mut noise = fastrand::Rng::with_seed(1);
        mount.create(SEGMENT).await.expect("it is not there yet");
        for _ in 0..SEGMENT_BYTES >> 20 {
            let mut bytes = vec![0; 1 << 20];
            noise.fill(&mut bytes);
            let appended = mount.append(SEGMENT, vec![Bytes::from(bytes)]).await;
            appended.expect("there is room");
        }
        mount.seal(SEGMENT).await.expect("it can be sealed");
    }

    async fn open(path: &Path, mode: ReadMode) -> MountReader {
        let mount = MountOptions::new().read_mode(mode).open(path);
        let opened = mount.expect("nobody else has it open").open(SEGMENT).await;
        opened.expect("it was written")
    }

    /// Where records begin, at random.
    struct Places(fastrand::Rng);

    impl Places {
        fn new() -> Self {
            Self(fastrand::Rng::with_seed(7))
        }

        fn next(&mut self) -> u64 {
            let records = (SEGMENT_BYTES / RECORD_BYTES) as u64;
            self.0.u64(..records) * RECORD_BYTES as u64
        }
    }
}
